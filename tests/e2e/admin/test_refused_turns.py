"""A turn that is refused before its request is sent leaves nothing that counts, and the session unchanged."""

from typing import Any

import pytest
from godoty.v1 import budget_pb2, tenant_pb2
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.bootstrap.components import open_components
from godoty_service.ledger.verification import verify
from godoty_service.usage.verification import verify_usage
from tests.e2e.admin.conftest import Admin
from tests.support.caller import Caller
from tests.support.service import Service

BUDGET = tenant_pb2.Policy(
    budgets=[budget_pb2.Budget(window=budget_pb2.BUDGET_WINDOW_DAY, limit_usd="0.0000001", hard=True)]
)
MAX_COST = {"limits": turn_pb.TurnLimits(max_cost_usd="0.0000001")}
REFUSALS = pytest.mark.parametrize(
    ("policy", "wanted"), [(BUDGET, {}), (tenant_pb2.Policy(), MAX_COST)], ids=["budget", "max-cost"]
)


async def _differences(service: Service) -> list[str]:
    """Return what is wrong with the tenant's ledger and usage."""
    settings = service.backends.settings(service.database.name)
    async with open_components(settings, indexes=False) as components:
        session_differences = verify(
            database=components.database,
            ledger=components.accounting.ledger,
            totals_store=components.conversations.sessions,
            tenant_id=service.tenant_id,
        )
        usage = verify_usage(
            database=components.database,
            entries=components.usage.entries,
            rollups=components.usage.rollups,
            rollup_job=components.usage.rollup_job,
            tenant_id=service.tenant_id,
        )
        return [each.what async for each in session_differences] + [each.what async for each in usage]


@REFUSALS
async def test_refused_first_turn_leaves_no_session(
    caller: Caller, admin: Admin, *, policy: tenant_pb2.Policy, wanted: dict[str, Any]
) -> None:
    """No session, no message, no event; the request id is free, and the next turn is the session's first."""
    service = caller.service
    await admin.set_policy(service.tenant_id, policy)
    refused = await caller.converse("hello", request_id="one", **wanted)

    assert refused.failure is not None
    assert refused.failure.reason in ("BUDGET_SPENT", "MAX_COST_TOO_LOW")
    assert refused.responses == ()
    assert service.session("talk") is None
    assert service.database["messages"].count_documents({"tenant_id": service.tenant_id}) == 0
    assert {each.state for each in service.entries("talk")} <= {"void"}
    assert await _differences(service) == []
    await admin.set_policy(service.tenant_id, tenant_pb2.Policy())
    turn = await caller.converse("hello", request_id="one")
    assert turn.finished.session_totals.turns == 1
    assert turn.started.session_created
    assert [each.number for each in service.entries("talk")][-1:] == [1]
    assert await _differences(service) == []


@REFUSALS
async def test_refused_later_turn_leaves_the_session_unchanged(
    caller: Caller, admin: Admin, *, policy: tenant_pb2.Policy, wanted: dict[str, Any]
) -> None:
    """Its messages, totals, model, user and update time do not change, and the next turn continues from there."""
    service = caller.service
    await caller.converse("hello", model="openai/gpt-4o-mini")
    messages, metrics = await caller.messages(), await caller.metrics()
    before = service.session("talk") or {}
    await admin.set_policy(service.tenant_id, policy)
    refused = await caller.converse("on", model="openai/gpt-4o", user="ann", request_id="one", **wanted)

    assert refused.failure is not None
    assert refused.failure.reason in ("BUDGET_SPENT", "MAX_COST_TOO_LOW")
    assert await caller.messages() == messages
    assert (await caller.metrics()).totals == metrics.totals
    after = service.session("talk") or {}
    for name in ("message_count", "state", "context", "model", "user", "update_time", "lease", "totals_stale"):
        assert after[name] == before[name], name
    assert await _differences(service) == []
    await admin.set_policy(service.tenant_id, tenant_pb2.Policy())
    turn = await caller.converse("and on", request_id="one")
    assert turn.started.totals == metrics.totals
    assert (turn.finished.session_totals.turns, turn.finished.session_totals.model_calls) == (2, 2)
    assert len(await caller.messages()) == 2 * len(messages)
    assert await _differences(service) == []
