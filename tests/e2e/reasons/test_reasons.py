"""Each reason of errors.proto as a server raises it: its status, metadata and details are as the comment says."""

from collections.abc import Callable

import pytest

from tests.conftest import Start
from tests.e2e.reasons import (
    raising_by_actions,
    raising_by_administrators,
    raising_by_agents,
    raising_by_attachments,
    raising_by_forks,
    raising_by_webhooks,
)
from tests.e2e.reasons.environment import Environment
from tests.e2e.reasons.raising import RAISE
from tests.e2e.reasons.reasons import documented
from tests.support.caller import Caller
from tests.support.service import Service

assert raising_by_administrators  # they have registered their reasons
assert raising_by_actions
assert raising_by_agents
assert raising_by_attachments
assert raising_by_webhooks
assert raising_by_forks
REASONS = documented()


@pytest.fixture
def environment(
    caller: Caller,
    other_tenant: Caller,
    serve: Start,
    connect: Callable[[Service], Caller],
    *,
    issue: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> Environment:
    """What the reasons are raised with."""
    return Environment(caller, other_tenant, serve, connect, issue, monkeypatch)


@pytest.mark.parametrize("reason", REASONS)
async def test_reason_is_raised_as_documented(environment: Environment, reason: str) -> None:
    """A reason that nothing here raises fails; so does a comment or an example that is not true."""
    assert reason in RAISE, "nothing here raises it"
    stated = REASONS[reason]
    failure = await RAISE[reason](environment)

    assert failure.reason == reason, failure.text
    assert failure.code.name == stated.status
    assert stated.required <= failure.metadata.keys() <= stated.required | stated.optional
    assert failure.metadata.keys() == stated.example
    assert set(failure.details) == {"ErrorInfo", "RequestInfo", *stated.details}
    assert failure.quotas == ((stated.quota,) if stated.quota else ())
    assert failure.request_id.startswith("req_")


def test_only_reasons_of_the_contract_are_raised() -> None:
    """Also after a reason was renamed or removed."""
    assert RAISE.keys() == REASONS.keys()
