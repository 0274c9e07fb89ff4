"""Adjustments of calls whose cost is known: every sum follows, each request counts once, nothing goes below zero."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.errors import AmountRefused, CallNotAdjustable, CallNotFound, RequestIdReused
from godoty_service.metering.adjustment_order import AdjustmentOrder
from godoty_service.metering.adjustments import Adjustments
from godoty_service.metering.call import Adjustment, CallState, ModelCall
from godoty_service.metering.documents import entry_from_document
from godoty_service.metering.session_folds import SessionFolds
from godoty_service.tenancy.principal import Scope
from tests.billing.caller import Biller
from tests.metering.bookkeeper import Bookkeeper, calls, cancelled
from tests.metering.conftest import NEVER, Bookkeep, Serve
from tests.service.caller import Caller
from tests.service.service import plain

SLOW = "@sandbox slow tokens=30 first_delay_ms=0 delay_ms=10 record_ms=-1"


@pytest.fixture
async def keeper(calling: Serve, bookkeep: Bookkeep) -> tuple[Caller, Bookkeeper]:
    """A caller of a server that neither reconciles nor rolls up by itself, and a bookkeeper beside it."""
    caller = await calling(reconcile_interval=NEVER, rollup_interval=NEVER)
    return caller, await bookkeep(caller.service)


def order(call: ModelCall, amount: str, request_id: str = "r1", **changes: Any) -> AdjustmentOrder:
    """Ask for something to be added to a call's cost."""
    asked = AdjustmentOrder(
        tenant_id=call.tenant_id,
        call_id=call.call_id,
        amount=Decimal(amount),
        is_new_cost=False,
        why="the invoice",
        by="ann",
        request_id=request_id,
    )
    return replace(asked, **changes)


def adjustments(caller: Caller) -> list[Adjustment]:
    """The tenant's adjustments, in the order of their numbers."""
    query = {"tenant_id": caller.service.tenant_id, "kind": "adjustment"}
    found = caller.service.database["ledger"].find(query).sort("number", 1)
    return [entry for each in found if isinstance(entry := entry_from_document(each), Adjustment)]


async def settled(caller: Caller) -> ModelCall:
    """Take a turn of one call."""
    await caller.converse("hello")
    call = calls(caller)[-1]
    assert call.state is CallState.SETTLED
    return call


async def close(caller: Caller, keeper: Bookkeeper, state: CallState) -> ModelCall:
    """Leave a call in a state without a cost."""
    entry = await cancelled(caller, SLOW)
    closed = replace(entry, state=state, settle_time=datetime.now(UTC))
    assert await keeper.ledger.close(closed)
    await keeper.folds.advance(entry.tenant_id, entry.session_uid)
    return closed


async def test_every_sum_follows_an_adjustment(keeper: tuple[Caller, Bookkeeper], issue: Callable[..., str]) -> None:
    """Session totals, models, runs, usage and the export: up by an amount, then to a new cost in all."""
    caller, books = keeper
    call = await settled(caller)
    assert call.cost is not None
    tokens = (await caller.metrics()).totals.usage
    biller = Biller(caller.service, caller.channel, issue(caller.service, scopes=frozenset({Scope.BILLING})))
    now = datetime.now(UTC)
    for amount, is_new_cost, cost in (
        ("0.001", False, call.cost + Decimal("0.001")),
        ("0.002", True, Decimal("0.002")),
    ):
        await books.adjustments.adjust(order(call, amount, amount, is_new_cost=is_new_cost))

        metrics = await caller.metrics()
        assert metrics.totals.cost_usd == plain(cost)
        assert metrics.totals.usage == tokens
        assert [(each.model, each.totals.cost_usd) for each in metrics.by_model] == [(call.model, plain(cost))]
        assert [each.cost_usd for each in metrics.recent_runs] == [plain(cost)]
        answer = await biller.usage(now - timedelta(hours=1), now + timedelta(hours=1), "model")
        assert [row.totals for row in answer.rows] == [answer.totals] == [metrics.totals]
        assert await books.differences() == []
    exported = [each.adjustment for each in await biller.all_entries() if each.HasField("adjustment")]
    assert [(each.call_id, each.by, each.why, each.request_id, each.resolves) for each in exported] == [
        (call.call_id, "ann", "the invoice", name, False) for name in ("0.001", "0.002")
    ]
    assert sum((Decimal(each.cost_usd) for each in exported), call.cost) == Decimal("0.002")
    assert calls(caller) == [call]
    turn = await caller.converse("and on")
    assert turn.calls[0].number == 4


async def test_answer_of_an_earlier_time_stays_as_it_was(
    keeper: tuple[Caller, Bookkeeper], issue: Callable[..., str]
) -> None:
    """GetUsage with the `as_of` of before the adjustment is what it was; what came later is told beside it."""
    caller, books = keeper
    call = await settled(caller)
    biller = Biller(caller.service, caller.channel, issue(caller.service, scopes=frozenset({Scope.BILLING})))
    start, end = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)
    before = await biller.usage(start, end, "model")

    await books.adjustments.adjust(order(call, "0.005"))
    after = await biller.usage(start, end, "model")
    then = await biller.usage(start, end, "model", as_of=before.as_of)
    await books.adjustments.adjust(order(call, "-0.001", "r2"))
    still = await biller.usage(start, end, "model", as_of=before.as_of)
    between = await biller.usage(start, end, "model", as_of=after.as_of)

    assert (then.totals, list(then.rows)) == (before.totals, list(before.rows))
    assert (still.totals, list(still.rows)) == (before.totals, list(before.rows))
    assert (then.adjusted_later_usd, still.adjusted_later_usd) == ("0.005", "0.004")
    assert between.totals == after.totals
    assert Decimal(after.totals.cost_usd) - Decimal(before.totals.cost_usd) == Decimal("0.005")
    assert (await biller.usage(start, end)).totals.cost_usd == (await caller.metrics()).totals.cost_usd


async def test_same_request_is_the_same_adjustment(keeper: tuple[Caller, Bookkeeper]) -> None:
    """Repeated later, at once, and after other adjustments: one entry; with another content it is refused."""
    caller, books = keeper
    call = await settled(caller)
    asked = order(call, "0.005")

    made = await asyncio.gather(*(books.adjustments.adjust(asked) for _ in range(4)))
    await books.adjustments.adjust(order(call, "-0.005", "r2"))
    again = await books.adjustments.adjust(asked)

    assert {each.entry_id for each in (*made, again)} == {asked.entry_id}
    assert [each.cost for each in adjustments(caller)] == [Decimal("0.005"), Decimal("-0.005")]
    others: list[dict[str, Any]] = [
        {"amount": Decimal("0.006")},
        {"is_new_cost": True},
        {"why": "another"},
        {"by": "bob"},
        {"call_id": "call_other"},
    ]
    for changes in others:
        with pytest.raises(RequestIdReused):
            await books.adjustments.adjust(replace(asked, **changes))
    assert len(adjustments(caller)) == 2
    assert await books.differences() == []


async def test_new_costs_at_once_leave_the_last_one(keeper: tuple[Caller, Bookkeeper], bookkeep: Bookkeep) -> None:
    """Six on two servers, while a turn writes to the session: the call costs what its last adjustment says."""
    caller, books = keeper
    other = await bookkeep(caller.service)
    call = await settled(caller)
    orders = [order(call, f"0.00{number}", f"r{number}", is_new_cost=True) for number in range(1, 7)]

    await asyncio.gather(
        caller.converse("@sandbox tool-loop calls=3"),
        *((books, other)[place % 2].adjustments.adjust(each) for place, each in enumerate(orders)),
    )

    made = adjustments(caller)
    assert len(made) == 6
    assert await books.adjustments.total(call.tenant_id, call.call_id) == made[-1].new_cost
    expected = sum((each.cost or Decimal(0) for each in calls(caller)[1:]), made[-1].new_cost or Decimal(0))
    assert (await caller.metrics()).totals.cost_usd == plain(expected)
    assert await books.differences() == []


async def test_amounts_no_call_can_cost_are_refused(keeper: tuple[Caller, Bookkeeper]) -> None:
    """Below zero, above the bound without the flag, beyond a million or too fine: refused, with what it would be."""
    caller, books = keeper
    call = await settled(caller)
    assert call.cost is not None
    assert call.upper_bound is not None
    above = plain(call.upper_bound + Decimal("0.001"))
    refused = [
        order(call, plain(-call.cost - Decimal("1E-25"))),
        order(call, above, is_new_cost=True),
        order(call, "1000000", above_bound=True),
        order(call, "0.00000000000000000000000001"),
        order(call, "-1", is_new_cost=True),
    ]

    for each in refused:
        with pytest.raises(AmountRefused):
            await books.adjustments.adjust(each)
    assert adjustments(caller) == []
    await books.adjustments.adjust(order(call, above, is_new_cost=True, above_bound=True))
    await books.adjustments.adjust(order(call, "0", "r2", is_new_cost=True))

    assert (await caller.metrics()).totals.cost_usd == "0"
    assert await books.differences() == []


async def test_state_of_the_call_decides(keeper: tuple[Caller, Bookkeeper]) -> None:
    """Pending and unresolved calls are refused, the latter with advice; void and resolved ones are adjusted."""
    caller, books = keeper
    pending = await cancelled(caller, SLOW)
    unresolved = await close(caller, books, CallState.UNRESOLVED)
    void = await close(caller, books, CallState.VOID)

    with pytest.raises(CallNotAdjustable, match="pending"):
        await books.adjustments.adjust(order(pending, "0.001"))
    with pytest.raises(CallNotAdjustable, match="godoty ledger resolve"):
        await books.adjustments.adjust(order(unresolved, "0.001"))
    with pytest.raises(CallNotFound):
        await books.adjustments.adjust(order(replace(void, tenant_id="tnt_other"), "0.001"))
    assert adjustments(caller) == []
    await books.adjustments.resolve(unresolved, cost=Decimal("0.009"), why="a slip", by="ann")
    await books.adjustments.adjust(order(unresolved, "0.0009", is_new_cost=True))
    await books.adjustments.adjust(order(void, "0.0001", "r2"))

    totals = (await caller.metrics()).totals
    assert (totals.cost_usd, totals.pending_calls, totals.unresolved_calls) == ("0.001", 1, 0)
    assert totals.unresolved_bound_usd == "0"
    assert await books.differences() == []


class Interrupted(SessionFolds):
    """Folds of a server that dies between the ledger's insert and the session's sums."""

    async def advance(self, tenant_id: str, session_uid: str) -> None:
        """Come no further."""
        raise ConnectionError("a test ended the server")


async def test_server_that_dies_after_the_insert_is_finished_by_a_sweep(keeper: tuple[Caller, Bookkeeper]) -> None:
    """Readers count the entry at once; a repeated request and a sweep change nothing more."""
    caller, books = keeper
    call = await settled(caller)
    assert call.cost is not None
    dying = Adjustments(books.ledger, Interrupted(books.sessions, books.ledger))
    with pytest.raises(ConnectionError):
        await dying.adjust(order(call, "0.005"))

    seen = (await caller.metrics()).totals.cost_usd
    assert seen == plain(call.cost + Decimal("0.005"))
    assert await books.differences() == []
    await books.adjustments.apply_left()
    await books.adjustments.adjust(order(call, "0.005"))

    session = caller.service.session("talk")
    assert session is not None
    assert (session["fold"]["through"], session["unfolded"]) == (2, False)
    assert (await caller.metrics()).totals.cost_usd == seen
    assert await books.differences() == []


async def test_a_running_server_finishes_what_another_left(calling: Serve, bookkeep: Bookkeep) -> None:
    """The mark of an adjustment that nobody finished is gone within a sweep of any server."""
    caller = await calling(reconcile_interval=0.1)
    books = await bookkeep(caller.service)
    call = await settled(caller)
    dying = Adjustments(books.ledger, Interrupted(books.sessions, books.ledger))
    with pytest.raises(ConnectionError):
        await dying.adjust(order(call, "0.005"))

    async with asyncio.timeout(30):
        while caller.service.database["ledger"].find_one({"unapplied": True}):
            await asyncio.sleep(0.1)

    session = caller.service.session("talk")
    assert session is not None
    assert session["fold"]["through"] == 2
