"""The effect of each field of a policy on a turn: sent to the provider, or refused to the caller."""

from typing import Any

import grpc
import pytest
from godoty.v1 import budget_pb2, tenant_pb2
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ids import new_id
from tests.e2e.admin.conftest import Admin, full_policy
from tests.support.caller import Caller, read
from tests.support.service import soon

POLICY = full_policy(
    provider_json='{"order": ["openai"], "allow_fallbacks": false, "max_price": {"prompt": "2", "image": "0.5"}}'
)
TINY = budget_pb2.Budget(window=budget_pb2.BUDGET_WINDOW_DAY, limit_usd="0.000001", hard=True)


async def test_policy_reaches_the_provider(caller: Caller, admin: Admin) -> None:
    """Models, tokens, routing with retention, and the lower of both maximum prices; nothing else."""
    await admin.set_policy(caller.service.tenant_id, POLICY)
    assert (await caller.converse("hello")).finished
    (body,) = caller.service.requests("talk")
    named = await caller.converse("hello", model="openai/gpt-4o-mini", limits=turn_pb.TurnLimits(max_output_tokens=9))
    other = caller.service.requests("talk")[-1]

    routing = {"order": ["openai"], "allow_fallbacks": False, "zdr": True}
    assert {name: value for name, value in body.items() if name not in ("messages", "tools")} == {
        "model": "openai/gpt-4o-mini",
        "models": ["openai/gpt-4o-mini", "openai/gpt-4o"],
        "max_tokens": 1000,
        "provider": {**routing, "max_price": {"prompt": "2", "completion": "10", "image": "0.5"}},  # gpt-4o: 2.50, 10
        "session_id": caller.service.provider_session_id("talk"),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert named.finished
    dearest = {
        "prompt": "0.165",
        "completion": "0.66",
        "image": "0.5",
    }  # one provider is above the listed price
    assert other["provider"] == {**routing, "max_price": dearest}
    assert other["max_tokens"] == 9
    assert "models" not in other  # a named model has no fallbacks


@pytest.mark.parametrize(
    ("policy", "wanted", "reason", "quotas"),
    [
        ({"allowed_models": ["anthropic/*"]}, {}, "MODEL_NOT_ALLOWED", ()),
        ({"budgets": [TINY]}, {}, "BUDGET_SPENT", ("budget/day",)),
        ({}, {"limits": turn_pb.TurnLimits(max_cost_usd="0.0000001")}, "MAX_COST_TOO_LOW", ("turn/max_cost_usd",)),
    ],
    ids=["models", "budget", "max-cost"],
)
async def test_refusal_by_a_policy_or_a_limit_has_its_reason(
    caller: Caller,
    admin: Admin,
    *,
    policy: dict[str, Any],
    wanted: dict[str, Any],
    reason: str,
    quotas: tuple[str, ...],
) -> None:
    """The reason, and the quota if one is exhausted; nothing is sent. Turn limits: `test_limits.py`."""
    await admin.set_policy(caller.service.tenant_id, tenant_pb2.Policy(**policy))
    refused = (await caller.converse("hello", model="openai/gpt-4o-mini", **wanted)).failure

    assert refused is not None
    code = grpc.StatusCode.RESOURCE_EXHAUSTED if quotas else grpc.StatusCode.PERMISSION_DENIED
    assert (refused.code, refused.reason, refused.quotas) == (code, reason, quotas)
    assert all(entry.state == "void" for entry in caller.service.entries("talk"))


async def test_hard_budget_set_during_a_turn_limits_later_calls(caller: Caller, admin: Admin) -> None:
    """The first call of the loop went out without; each later one carries `max_tokens` and `max_price`.

    Its entry states that its bound was to be reserved first.
    """
    hold = new_id("hold")
    call = caller.start(
        f"@sandbox tool-loop calls=3 tool=calculator hold_after=1 hold={hold}", model="openai/gpt-4o-mini"
    )
    await soon(lambda: len(caller.service.requests("talk")) == 1)
    budget = budget_pb2.Budget(window=budget_pb2.BUDGET_WINDOW_DAY, limit_usd="10", hard=True)
    await admin.set_policy(caller.service.tenant_id, tenant_pb2.Policy(budgets=[budget]))
    caller.service.backends.allow(hold)
    assert (await read(call)).finished

    bodies = caller.service.requests("talk")
    carried = [("max_tokens" in body, body.get("provider", {}).get("max_price")) for body in bodies]
    dearest = {"prompt": "0.165", "completion": "0.66"}
    assert carried == [(False, None), (True, dearest), (True, dearest)]
    entries = caller.service.entry_documents("talk")
    assert [each.get("budgeted") for each in entries] == [None, True, True]
