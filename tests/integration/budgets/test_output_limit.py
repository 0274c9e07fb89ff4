"""A model call under a hard budget, or under `max_cost_usd`, gets the output limit that the unspent amount covers."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import grpc
import pytest
from godoty.v1 import admin_service_pb2 as admin_pb
from godoty.v1 import admin_service_pb2_grpc, budget_pb2, tenant_pb2
from godoty.v1 import turn_pb2 as turn_pb
from godoty.v1.budget_pb2 import BUDGET_WINDOW_DAY, BUDGET_WINDOW_TOTAL

from godoty_service.ledger.entries import ModelCall
from godoty_service.tenancy.auth import Scope
from tests.conftest import Start
from tests.support.caller import Caller, Failure
from tests.support.service import Service, eventually, format_amount

SetPolicy = Callable[..., Awaitable[None]]
MODEL = "openai/gpt-4o-mini"
MODEL_LIMIT = 16384  # its output tokens, by the list
OUTPUT_PRICE = Decimal("0.00000066")  # US dollars for a token, of its dearest provider


@pytest.fixture
async def set_policy(issue: Callable[..., str]) -> SetPolicy:
    """Set a tenant's hard budgets of the day and of all time, in US dollars, and the rest of its policy."""

    async def set_to(caller: Caller, *, day: str | None = None, total: str | None = None, **rest: Any) -> None:
        limits = {BUDGET_WINDOW_DAY: day, BUDGET_WINDOW_TOTAL: total}
        budgets = [
            budget_pb2.Budget(window=each, limit_usd=limit, hard=True) for each, limit in limits.items() if limit
        ]
        request = admin_pb.UpdatePolicyRequest(
            tenant_id=caller.service.tenant_id,
            policy=tenant_pb2.Policy(budgets=budgets, **rest),
            update_mask={"paths": ["*"]},
        )
        key = issue(caller.service, scopes=frozenset({Scope.ADMIN}))
        async with grpc.aio.insecure_channel(caller.service.target) as channel:
            stub = admin_service_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call] # generated
            await stub.UpdatePolicy(request, metadata=(("authorization", f"Bearer {key}"),), timeout=180)

    return set_to


def bound_of(call: ModelCall) -> Decimal:
    """Return a call's upper bound, which must be known."""
    assert call.upper_bound is not None
    return call.upper_bound


def figures(failure: Failure | None) -> dict[str, Decimal]:
    """Return the amounts of a refusal, and check that its text states each of them."""
    assert failure is not None
    amounts = {name: failure.metadata[f"{name}_usd"] for name in ("limit", "spent", "held", "needed")}
    assert all(f"{amount} USD" in failure.text for amount in amounts.values()), failure.text
    found = {name: Decimal(amount) for name, amount in amounts.items()}
    assert amounts == {name: format_amount(amount) for name, amount in found.items()}
    return found


async def test_budget_below_the_longest_answer_admits_a_short_one(caller: Caller, set_policy: SetPolicy) -> None:
    """The request has the largest `max_tokens` whose upper bound fits into the budget; the ledger has nothing else."""
    await set_policy(caller, day="0.005", total="10")
    turn = await caller.converse("hello", model=MODEL)

    (call,) = caller.service.entries("talk")
    (body,) = caller.service.requests("talk")
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert 256 < body["max_tokens"] < MODEL_LIMIT
    assert bound_of(call) <= Decimal("0.005") < bound_of(call) + OUTPUT_PRICE


async def test_answer_cut_by_the_budget_ends_with_stop_reason_budget(caller: Caller, set_policy: SetPolicy) -> None:
    """Its text is persisted and charged, the budget is not exceeded, and the next turn is refused with the figures."""
    await set_policy(caller, day="0.001")
    turn = await caller.converse("@sandbox long tokens=5000", model=MODEL)
    (call,) = caller.service.entries("talk")
    refused = await caller.converse("hello", session_id="next", model=MODEL)

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_BUDGET
    assert turn.text
    assert turn.text in (await caller.messages())[-1].content[0].text
    assert call.cost is not None
    assert call.cost <= bound_of(call) <= Decimal("0.001")
    assert refused.failure is not None
    assert (refused.failure.reason, refused.failure.quotas) == ("BUDGET_SPENT", ("budget/day",))
    assert refused.failure.retry_after is None
    amounts = figures(refused.failure)
    assert (amounts["limit"], amounts["spent"], amounts["held"]) == (Decimal("0.001"), call.cost, Decimal(0))
    assert amounts["needed"] > amounts["limit"] - amounts["spent"]
    assert caller.service.requests("next") == []


async def test_answer_cut_by_its_own_limit_under_a_budget_keeps_its_reason(
    caller: Caller, set_policy: SetPolicy
) -> None:
    """A requested limit of 20 tokens fits: it is sent unchanged, and the reason is MAX_OUTPUT_TOKENS."""
    await set_policy(caller, day="0.001", max_output_tokens=20)
    turn = await caller.converse("@sandbox plain tokens=300", model=MODEL)

    assert [each["max_tokens"] for each in caller.service.requests("talk")] == [20]
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_MAX_OUTPUT_TOKENS


@pytest.mark.parametrize(("asked", "reason"), [(20, ""), (None, "BUDGET_SPENT")])
async def test_smallest_limit_is_the_requested_one_but_at_most_256_tokens(
    caller: Caller, set_policy: SetPolicy, *, asked: int | None, reason: str
) -> None:
    """A budget that covers 20 tokens and not 256 admits a turn that requests 20, and refuses one that requests more."""
    await set_policy(caller, max_output_tokens=20, day="10")
    assert (await caller.converse("hello", session_id="probe", model=MODEL)).finished
    (probe,) = caller.service.entries("probe")
    assert probe.cost is not None
    await set_policy(caller, day=format_amount(probe.cost + bound_of(probe) + 50 * OUTPUT_PRICE))
    turn = await caller.converse("hello", limits=turn_pb.TurnLimits(max_output_tokens=asked), model=MODEL)

    assert (turn.failure.reason if turn.failure is not None else "") == reason
    assert [each["max_tokens"] for each in caller.service.requests("talk")] == ([] if reason else [20])


@pytest.mark.parametrize("limit", ["0.005", "0.015"], ids=["clamped", "whole"])
async def test_call_refused_for_reservations_alone_is_retryable_and_not_clamped(
    caller: Caller, set_policy: SetPolicy, *, limit: str
) -> None:
    """Beside an open call the second one is BUDGET_RESERVED with RetryInfo and the figures; then it is served."""
    await set_policy(caller, day=limit)
    first = asyncio.create_task(caller.converse(f"@sandbox plain tokens=4 hold_after=1 hold={limit}", model=MODEL))
    held = await eventually(lambda: asyncio.to_thread(_sent, caller, "talk"))
    refused = await caller.converse("hello", session_id="second", model=MODEL)
    caller.service.backends.allow(limit)
    await first
    turn = await caller.converse("hello", session_id="second", model=MODEL)

    assert refused.failure is not None
    assert (refused.failure.reason, refused.failure.quotas) == ("BUDGET_RESERVED", ("budget/day",))
    assert refused.failure.retry_after
    amounts = figures(refused.failure)
    assert (amounts["limit"], amounts["spent"], amounts["held"]) == (Decimal(limit), Decimal(0), bound_of(held[0]))
    assert amounts["needed"] <= amounts["limit"] < amounts["needed"] + amounts["held"]
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert len(caller.service.requests("second")) == 1


def _sent(caller: Caller, session_id: str) -> list[ModelCall]:
    return caller.service.entries(session_id) if caller.service.requests(session_id) else []


async def test_max_cost_of_a_turn_clamps_its_answer(caller: Caller) -> None:
    """`max_cost_usd` acts like a budget: the answer is cut with reason BUDGET; below 256 tokens it is an error."""
    turn = await caller.converse(
        "@sandbox long tokens=5000", limits=turn_pb.TurnLimits(max_cost_usd="0.001"), model=MODEL
    )
    (call,) = caller.service.entries("talk")
    refused = await caller.converse(
        "hello", session_id="next", limits=turn_pb.TurnLimits(max_cost_usd="0.0001"), model=MODEL
    )

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_BUDGET
    assert call.cost is not None
    assert call.cost <= bound_of(call) <= Decimal("0.001") < bound_of(call) + OUTPUT_PRICE
    assert refused.failure is not None
    assert (refused.failure.reason, refused.failure.quotas) == ("MAX_COST_TOO_LOW", ("turn/max_cost_usd",))
    amounts = figures(refused.failure)
    assert (amounts["limit"], amounts["spent"], amounts["held"]) == (Decimal("0.0001"), Decimal(0), Decimal(0))
    assert amounts["needed"] > amounts["limit"]


async def test_lower_of_budget_and_max_cost_decides(caller: Caller, set_policy: SetPolicy) -> None:
    """Several hard budgets and the turn's own limit apply at once: the smallest unspent amount decides."""
    await set_policy(caller, day="0.004", total="0.003")
    sizes = []
    for number, limit in enumerate(("0.002", "1")):
        name = f"talk{number}"
        assert (
            await caller.converse("hello", session_id=name, limits=turn_pb.TurnLimits(max_cost_usd=limit), model=MODEL)
        ).finished
        sizes.append(bound_of(caller.service.entries(name)[0]))

    spent = caller.service.entries("talk0")[0].cost
    assert spent is not None
    assert sizes[0] <= Decimal("0.002") < sizes[0] + OUTPUT_PRICE
    assert sizes[1] <= Decimal("0.003") - spent < sizes[1] + OUTPUT_PRICE


async def test_money_spent_on_another_server_clamps_the_call(
    serve: Start, connect: Callable[[Service], Caller], set_policy: SetPolicy
) -> None:
    """A server whose cache shows that the whole call fits is refused the reservation, and retries with fewer tokens."""
    service = await serve()
    here, there = connect(service), connect(service.at((await serve(database=service.database.name)).target))
    await set_policy(here, total="0.0118")
    assert (await here.converse("hello", model=MODEL)).finished  # from now on the server knows what is spent
    assert (await there.converse("@sandbox plain prompt_tokens=5000", session_id="there", model=MODEL)).finished
    turn = await here.converse("hello again", model=MODEL)

    states = [each.state.value for each in here.service.entries("talk")]
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert states == ["settled", "void", "settled"]
    assert [each["max_tokens"] < MODEL_LIMIT for each in here.service.requests("talk")] == [False, True]
    spent = sum(
        (each.cost or 0 for each in [*here.service.entries("talk"), *here.service.entries("there")]), Decimal(0)
    )
    assert bound_of(here.service.entries("talk")[-1]) <= Decimal("0.0118") - spent + (
        here.service.entries("talk")[-1].cost or 0
    )
