"""The log lines of a turn, for people and for programs."""

import pytest

from tests.e2e.rpc.conftest import LoggedServer
from tests.support.caller import Caller, failure_of

FREE = "z-ai/glm-5.2:free"  # its tokens cost nothing


@pytest.mark.parametrize(
    ("directive", "cost"), [("plain fee=0.00000015", "0.00000015"), ("plain fee=0E-10", "0"), ("no-cost", "0")]
)
async def test_cost_is_logged_in_plain_notation(
    logged_server: LoggedServer, logged_caller: Caller, directive: str, cost: str
) -> None:
    """As in the API: no exponent and no trailing zeros, however small."""
    turn = await logged_caller.converse(f"@sandbox {directive}", model=FREE)

    (ended,) = await logged_server.lines("turn_ended", turn_id=turn.responses[0].turn_id)
    assert ended["cost_usd"] == turn.finished.turn_totals.cost_usd == cost


async def test_error_has_the_request_id_of_the_log(logged_server: LoggedServer, logged_caller: Caller) -> None:
    """By RequestInfo an operator finds the lines of a call that failed; each call has an id of its own."""
    service = logged_caller.service
    await logged_caller.converse("hello")
    broken = {"_id": f"ses_broken_{service.tenant_id}", "session_id": "broken", "lease": {"shape": 1}}
    service.database["sessions"].insert_one({**(service.session("talk") or {}), **broken})  # it cannot be read
    failures = [await failure_of(logged_caller.metrics("broken")) for _ in range(2)]
    service.database["sessions"].delete_one({"_id": broken["_id"]})

    for failure in failures:
        (line,) = await logged_server.lines("call_fault", request_id=failure.request_id)
        assert line["tenant_id"] == service.tenant_id
        assert failure.metadata["request_id"] == failure.request_id
    assert len({each.request_id for each in failures}) == 2
