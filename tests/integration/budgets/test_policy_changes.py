"""The effect of a hard budget on turns when it is set, removed and set again."""

from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal

import grpc
import pytest
from godoty.v1 import admin_service_pb2 as admin_pb
from godoty.v1 import admin_service_pb2_grpc, budget_pb2, tenant_pb2
from godoty.v1 import turn_pb2 as turn_pb
from godoty.v1.budget_pb2 import BUDGET_WINDOW_TOTAL

from godoty_service.tenancy.auth import Scope
from tests.support.caller import Caller

SetCap = Callable[[str | None], Awaitable[None]]
MOST_OF_THE_MODEL = 16384  # output tokens of gpt-4o-mini, by the list


@pytest.fixture
async def set_cap(caller: Caller, issue: Callable[..., str]) -> AsyncIterator[SetCap]:
    """Set the caller's hard budget of all time in US dollars, or none, by AdminService."""
    key = issue(caller.service, scopes=frozenset({Scope.ADMIN}))
    async with grpc.aio.insecure_channel(caller.service.target) as channel:
        stub = admin_service_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call] # generated

        async def set_to(limit: str | None) -> None:
            budgets = [budget_pb2.Budget(window=BUDGET_WINDOW_TOTAL, limit_usd=limit, hard=True)] if limit else []
            request = admin_pb.UpdatePolicyRequest(
                tenant_id=caller.service.tenant_id,
                policy=tenant_pb2.Policy(max_output_tokens=20, budgets=budgets),
                update_mask={"paths": ["*"]},
            )
            await stub.UpdatePolicy(request, metadata=(("authorization", f"Bearer {key}"),), timeout=180)

        yield set_to


async def test_spending_without_a_budget_counts_when_it_is_set_again(caller: Caller, set_cap: SetCap) -> None:
    """A limit is removed, more than it is spent, and the same limit is set: no turn is served any more."""
    cap = "0.0012"
    await set_cap(cap)
    assert (await caller.converse("hello")).finished
    await set_cap(None)
    while caller.service.invoiced("talk") <= Decimal(cap):
        assert (await caller.converse("@sandbox plain prompt_tokens=5000")).finished
    await set_cap(cap)
    refused = await caller.converse("hello again")

    assert refused.failure is not None
    assert refused.failure.reason == "BUDGET_SPENT"


@pytest.mark.parametrize("asked", [None, 30], ids=["no limit", "a limit of the turn"])
async def test_under_a_hard_bound_each_call_says_how_much_it_may_answer(caller: Caller, asked: int | None) -> None:
    """The model's own limit goes out with each call of a turn, undiminished; the turn's own counts down below it."""
    limits = turn_pb.TurnLimits(max_cost_usd="1", max_output_tokens=asked)
    turn = await caller.converse("@sandbox tool-loop calls=2", limits=limits)
    sent = [body["max_tokens"] for body in caller.service.requests("talk")]

    assert len(sent) == len(turn.calls) > 1
    if asked is None:
        assert sent == [MOST_OF_THE_MODEL] * len(sent)
    else:
        assert sent == sorted(sent, reverse=True)
        assert sent[0] == asked
    assert "max_tokens" not in await sent_without_bound(caller)


async def sent_without_bound(caller: Caller) -> dict[str, object]:
    """Run a turn without limits; return the body of its request."""
    assert (await caller.converse("hello")).finished
    return caller.service.requests("talk")[-1]
