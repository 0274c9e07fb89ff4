"""What was given up on and is known later: one new entry, and every sum is exact before and after."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import metering_pb2

from godoty_service.metering.adjustments import Adjustments, AlreadyResolved, NotUnresolved
from godoty_service.metering.call import Adjustment, CallState, CostSource, ModelCall
from godoty_service.metering.documents import entry_from_document
from godoty_service.metering.session_folds import SessionFolds
from godoty_service.metering.usage import TokenUsage
from tests.metering.bookkeeper import Bookkeeper, billed, calls, cancelled
from tests.metering.conftest import NEVER, Bookkeep, Serve
from tests.service.caller import Caller, read
from tests.service.service import plain

NO_RECORD = "@sandbox slow tokens=30 first_delay_ms=0 delay_ms=10 record_ms=-1"


class Interrupted(SessionFolds):
    """Folds of a server that dies between an entry's write and the fold's."""

    async def advance(self, tenant_id: str, session_uid: str) -> None:
        """Come no further."""


@pytest.fixture
async def keeper(calling: Serve, bookkeep: Bookkeep) -> tuple[Caller, Bookkeeper]:
    """A caller of a server that never reconciles, and a bookkeeper with an hour's patience beside it."""
    caller = await calling(reconcile_interval=NEVER)
    return caller, await bookkeep(caller.service)


async def unresolved(caller: Caller, keeper: Bookkeeper) -> ModelCall:
    """Leave a call behind whose record never comes, and give it up."""
    entry = await cancelled(caller, NO_RECORD)
    keeper.ahead = timedelta(hours=2)
    await keeper.reconciler.tick()
    keeper.ahead = timedelta()
    (given_up,) = [each for each in calls(caller) if each.call_id == entry.call_id]
    assert given_up.state is CallState.UNRESOLVED
    return given_up


async def totals(caller: Caller) -> metering_pb2.Totals:
    """What a reader of the session sees now, which both ways to ask agree on."""
    metrics = await caller.metrics()
    session = (await caller.call("GetSession", pb.GetSessionRequest(session_id="talk"))).session
    assert session.cost_usd == metrics.totals.cost_usd
    assert metrics.totals.cost_usd == plain(
        sum((Decimal(each.totals.cost_usd) for each in metrics.by_model), Decimal(0))
    )
    return metrics.totals


def adjustments(caller: Caller) -> list[Adjustment]:
    """The session's adjustments."""
    found = caller.service.database["ledger"].find({"tenant_id": caller.service.tenant_id, "kind": "adjustment"})
    return [entry for each in found if isinstance(entry := entry_from_document(each), Adjustment)]


async def test_a_resolved_call_moves_every_sum_by_exactly_its_cost(keeper: tuple[Caller, Bookkeeper]) -> None:
    """Cost, tokens, open calls and bounds before and after; the old entry is as it was, the next turn goes on."""
    caller, books = keeper
    await caller.converse("hello")
    call = await unresolved(caller, books)
    other = await unresolved(caller, books)
    before = await totals(caller)
    assert before.unresolved_calls == 2
    assert call.upper_bound is not None
    assert other.upper_bound is not None
    assert before.unresolved_bound_usd == plain(call.upper_bound + other.upper_bound)

    cost = billed(caller, call)
    usage = TokenUsage(input_tokens=100, output_tokens=20, total_tokens=120)
    written = await books.adjustments.resolve(call, cost=cost, usage=usage, why="the invoice", by="ann")

    after = await totals(caller)
    assert Decimal(after.cost_usd) - Decimal(before.cost_usd) == cost > 0
    assert after.usage.total_tokens - before.usage.total_tokens == 120
    assert (after.unresolved_calls, after.pending_calls, after.model_calls) == (1, 0, 3)
    assert after.unresolved_bound_usd == plain(other.upper_bound)
    assert calls(caller)[1] == call
    assert adjustments(caller) == [written]
    assert (written.number, written.corrects, written.why, written.by) == (4, call.call_id, "the invoice", "ann")
    assert await books.differences() == []
    turn = await caller.converse("and on")
    assert turn.started.totals == after
    assert turn.calls[0].number == 5


@pytest.mark.parametrize("more", [0, 30])
async def test_tokens_of_a_call_of_unknown_cost_count_once(keeper: tuple[Caller, Bookkeeper], more: int) -> None:
    """They stand in the session's sums when it closes as unresolved; a resolution adds what it knows beyond them."""
    caller, books = keeper
    await caller.converse("@sandbox no-cost record_ms=-1")
    caller.service.database["ledger"].update_one({}, {"$set": {"is_byok": True}})
    open_then = await totals(caller)
    books.ahead = timedelta(hours=2)
    await books.reconciler.tick()
    (call,) = calls(caller)
    assert (call.state, call.usage is not None) == (CallState.UNRESOLVED, True)
    unresolved_then = await totals(caller)
    known = call.usage or TokenUsage()
    stated = replace(known, output_tokens=(known.output_tokens or 0) + more, total_tokens=None)
    await books.adjustments.resolve(call, cost=Decimal("0.001"), usage=stated, why="the invoice", by="ann")
    resolved_then = await totals(caller)

    assert not open_then.usage.HasField("total_tokens")
    assert unresolved_then.usage.total_tokens == known.total_tokens == resolved_then.usage.total_tokens
    assert resolved_then.usage.output_tokens - unresolved_then.usage.output_tokens == more
    assert resolved_then.usage.input_tokens == known.input_tokens
    assert await books.differences() == []


async def test_a_call_is_resolved_once(keeper: tuple[Caller, Bookkeeper]) -> None:
    """Of several who resolve it at once one does; whoever comes later is told; neither moves a sum again."""
    caller, books = keeper
    call = await unresolved(caller, books)

    outcomes = await asyncio.gather(
        *(books.adjustments.resolve(call, cost=Decimal(n).scaleb(-3), why="at once", by=f"p{n}") for n in (1, 2, 3)),
        return_exceptions=True,
    )

    (written,) = [each for each in outcomes if isinstance(each, Adjustment)]
    assert sum(isinstance(each, AlreadyResolved) for each in outcomes) == 2
    with pytest.raises(AlreadyResolved):
        await books.adjustments.resolve(call, cost=Decimal("0.009"), why="again", by="late")
    assert adjustments(caller) == [written]
    assert (await totals(caller)).cost_usd == plain(written.cost)
    assert await books.differences() == []


async def test_only_what_is_unresolved_can_be_resolved(keeper: tuple[Caller, Bookkeeper]) -> None:
    """A settled and a pending call are refused, and nothing is written."""
    caller, books = keeper
    await caller.converse("hello")
    await cancelled(caller, NO_RECORD)
    settled, pending = calls(caller)

    for call in (settled, pending):
        with pytest.raises(NotUnresolved):
            await books.adjustments.resolve(call, cost=Decimal(1), why="no", by="ann")

    assert adjustments(caller) == []


async def test_a_stream_that_outlives_its_entry_settles_late(calling: Serve, bookkeep: Bookkeep) -> None:
    """Others gave the call up while its server still streamed: the billed cost comes as one adjustment."""
    caller = await calling(reconcile_interval=NEVER)
    books = await bookkeep(caller.service)
    call = caller.start("@sandbox slow tokens=30 first_delay_ms=0 delay_ms=20")
    async for response in call:
        if response.HasField("text_delta"):
            break
    (entry,) = calls(caller)
    assert await books.ledger.close(replace(entry, state=CallState.UNRESOLVED, settle_time=entry.start_time))
    await books.folds.advance(entry.tenant_id, entry.session_uid)
    seen = await totals(caller)
    assert (seen.unresolved_calls, seen.cost_usd) == (1, "0")

    turn = await read(call)
    assert turn.failure is None

    (given_up,) = calls(caller)
    (late,) = adjustments(caller)
    (line,) = caller.service.invoice("talk")
    assert (given_up.state, given_up.cost) == (CallState.UNRESOLVED, None)
    assert (late.cost, late.corrects, late.number) == (line.cost, entry.call_id, 2)
    assert (late.why, late.by) == ("told by its own stream", "godoty")
    after = await totals(caller)
    assert (after.cost_usd, after.unresolved_calls) == (plain(late.cost), 0)
    assert after.unresolved_bound_usd == "0"
    assert after.usage.output_tokens == 30
    assert await books.differences() == []


async def test_settling_late_happens_once_and_only_where_it_is_needed(keeper: tuple[Caller, Bookkeeper]) -> None:
    """Twice at once is one adjustment; for a call that has been settled, or has no cost, there is none."""
    caller, books = keeper
    await caller.converse("hello")
    call = await unresolved(caller, books)
    (settled, _) = calls(caller)
    known = replace(call, state=CallState.SETTLED, cost=Decimal("0.25"), cost_source=CostSource.BILLED)

    await books.adjustments.settle_late(replace(known, cost=None))
    await books.adjustments.settle_late(replace(settled, cost=Decimal(7)))
    await books.adjustments.settle_late(replace(known, call_id="call_unknown"))
    assert adjustments(caller) == []
    await asyncio.gather(*(books.adjustments.settle_late(known) for _ in range(3)))

    assert [each.cost for each in adjustments(caller)] == [Decimal("0.25")]
    assert Decimal((await totals(caller)).cost_usd) == Decimal("0.25") + (settled.cost or 0)


async def test_readers_see_an_adjustment_before_it_is_folded(keeper: tuple[Caller, Bookkeeper]) -> None:
    """Its server died between the entry's write and the fold's: every reader sums it, and the next fold takes it."""
    caller, books = keeper
    call = await unresolved(caller, books)
    halfway = Adjustments(books.ledger, Interrupted(books.sessions, books.ledger))

    await halfway.resolve(call, cost=Decimal("0.005"), why="the invoice", by="ann")

    session = caller.service.session("talk")
    assert session is not None
    assert session["fold"]["through"] == 1
    seen = await totals(caller)
    assert (seen.cost_usd, seen.unresolved_calls, seen.unresolved_bound_usd) == ("0.005", 0, "0")
    assert await books.differences() == []
    turn = await caller.converse("hello")
    assert turn.started.totals == seen
    assert (await totals(caller)).unresolved_calls == 0
    assert await books.differences() == []


async def test_readers_see_a_settlement_before_it_is_folded(keeper: tuple[Caller, Bookkeeper]) -> None:
    """The same for a pending call that is settled and not folded yet."""
    caller, books = keeper
    entry = await cancelled(caller, NO_RECORD)
    cost = billed(caller, entry)

    settled = replace(entry, state=CallState.SETTLED, cost=cost, cost_source=CostSource.RECONCILED)
    assert await books.ledger.close(settled)

    session = caller.service.session("talk")
    assert session is not None
    assert session["fold"]["open"] == [1]
    seen = await totals(caller)
    assert (seen.cost_usd, seen.pending_calls) == (plain(cost), 0)
    assert await books.differences() == []


async def test_an_announced_entry_that_never_came_changes_nothing(keeper: tuple[Caller, Bookkeeper]) -> None:
    """Its server died after it had announced the entry: the sums are as before, and the next turn clears the mark."""
    caller, books = keeper
    await caller.converse("hello")
    before = await totals(caller)
    session = caller.service.session("talk")
    assert session is not None

    await books.folds.announce(caller.service.tenant_id, session["_id"])

    assert await totals(caller) == before
    await caller.converse("and on")
    marked = caller.service.session("talk")
    assert marked is not None
    assert marked["unfolded"] is False
    assert await books.differences() == []


async def test_a_call_of_a_deleted_session_is_resolved_all_the_same(keeper: tuple[Caller, Bookkeeper]) -> None:
    """The entries outlive the session: the adjustment stands among them, and the books are proven."""
    caller, books = keeper
    call = await unresolved(caller, books)
    await caller.call("DeleteSession", pb.DeleteSessionRequest(session_id="talk"))

    written = await books.adjustments.resolve(call, cost=Decimal("0.00125"), why="the invoice", by="ann")

    assert adjustments(caller) == [written]
    assert await books.differences() == []
