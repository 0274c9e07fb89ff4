"""The ledger's entries: numbered without gaps by any number of writers, and closed once."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.errors import DuplicateKey, StorageError
from godoty_service.ids import new_id
from godoty_service.ledger.entries import Adjustment, CostSource, ModelCall
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.states import CallState
from godoty_service.ledger.totals import SessionTotals
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Collection
from godoty_service.pricing.token_usage import TokenUsage

Make = Callable[..., ModelCall]
NOW = datetime(2026, 8, 22, 12, tzinfo=UTC)


@pytest.fixture
async def ledger(database: Database) -> Ledger:
    """An empty ledger."""
    await database.collection("ledger").ensure(Ledger.INDEXES)
    return Ledger(database.collection("ledger"))


@pytest.fixture
def make() -> Make:
    """Makes calls of one session, pending unless said otherwise."""

    def make_call(number: int = 1, **changes: Any) -> ModelCall:
        call = ModelCall(
            call_id=new_id("call"),
            tenant_id="tenant",
            session_uid="ses",
            session_id="talk",
            turn_id="turn",
            number=number,
            state=CallState.PENDING,
            requested_model="a/b",
            provider_key_id="key",
            start_time=NOW,
            agent="assistant",
            owner="server",
        )
        return replace(call, **changes)

    return make_call


def settled(call: ModelCall, cost: str = "0.1") -> ModelCall:
    """The same, settled."""
    return replace(
        call,
        state=CallState.SETTLED,
        cost=Decimal(cost),
        cost_source=CostSource.BILLED,
        settle_time=NOW,
        served_model="a/b",
        usage=TokenUsage(input_tokens=1, output_tokens=2, total_tokens=3),
        duration=timedelta(milliseconds=5),
    )


async def test_writers_at_once_share_no_number_and_leave_no_gap(ledger: Ledger, make: Make) -> None:
    """Whichever number each writer proposes, the entries are 1, 2, 3 … and each writer gets its own."""
    written = await asyncio.gather(*(ledger.insert(make(number=1 + n % 3)) for n in range(12)))

    numbers = sorted(entry.number for entry in written)
    assert numbers == list(range(1, 13))
    kept = await ledger.entries_after("tenant", "ses", after=0, also=())
    assert [entry.number for entry in kept] == numbers
    assert {entry.call_id: entry.number for entry in written} == {
        entry.call_id: entry.number for entry in kept if isinstance(entry, ModelCall)
    }


async def test_two_writers_who_follow_their_own_count_share_no_number(ledger: Ledger, make: Make) -> None:
    """Each numbers on from his own last entry, as turns do: together they leave no gap and no number twice."""

    async def write(turn_id: str) -> list[int]:
        numbers = [0]
        for _ in range(6):
            numbers.append((await ledger.insert(make(number=numbers[-1] + 1, turn_id=turn_id))).number)
        return numbers[1:]

    first, second = await asyncio.gather(write("first"), write("second"))
    assert sorted(first + second) == list(range(1, 13))
    assert first == sorted(first)
    assert await ledger.highest("tenant", "ses") == 12
    assert await ledger.highest("tenant", "other") == 0


async def test_sessions_and_tenants_are_numbered_apart(ledger: Ledger, make: Make) -> None:
    """Each session counts from 1, and reads its own entries only."""
    for changes in ({}, {"session_uid": "ses2"}, {"tenant_id": "else"}):
        assert (await ledger.insert(make(**changes))).number == 1

    assert len(await ledger.entries_after("tenant", "ses", after=0, also=())) == 1
    call = make(number=2)
    await ledger.insert(call)
    assert await ledger.get("tenant", call.call_id) == call
    assert await ledger.get("else", call.call_id) is None


async def test_second_insert_of_an_entry_is_refused(ledger: Ledger, make: Make) -> None:
    """The same entry a second time is a duplicate, not a second entry."""
    entry = await ledger.insert(make())

    with pytest.raises(DuplicateKey):
        await ledger.insert(entry)
    assert await ledger.highest("tenant", "ses") == 1


async def test_one_of_concurrent_closes_succeeds(ledger: Ledger, make: Make) -> None:
    """Of concurrent closes one succeeds; its values stay, and the others return False."""
    call = await ledger.insert(make())
    costs = [str(number) for number in range(1, 9)]
    closings = await asyncio.gather(*(ledger.close(settled(call, cost)) for cost in costs))

    assert sum(closings) == 1
    kept = await ledger.get("tenant", call.call_id)
    assert kept == settled(call, costs[closings.index(True)])
    assert not await ledger.close(replace(call, state=CallState.VOID))
    assert not await ledger.defer(replace(call, error="late"))
    await ledger.store_generation_id("tenant", call.call_id, "gen-late")
    assert await ledger.get("tenant", call.call_id) == kept
    assert await ledger.next_due() is None


async def test_another_tenant_closes_nothing(ledger: Ledger, make: Make) -> None:
    """A call's id is not enough: the tenant is in every query."""
    call = await ledger.insert(make())

    assert not await ledger.close(settled(replace(call, tenant_id="else")))
    await ledger.store_generation_id("else", call.call_id, "gen-x")
    assert await ledger.get("tenant", call.call_id) == call


async def test_stored_generation_id_survives_the_close(ledger: Ledger, make: Make) -> None:
    """The provider's id is stored as soon as it is known, and the closing write keeps it."""
    call = await ledger.insert(make())
    await ledger.store_generation_id("tenant", call.call_id, "gen-1")
    stored = await ledger.get("tenant", call.call_id)
    assert stored == replace(call, generation_id="gen-1")
    await ledger.close(settled(stored))

    closed = await ledger.get("tenant", call.call_id)
    assert closed is not None
    assert closed.generation_id == "gen-1"


async def test_entries_after_a_number_with_open_ones_complete_the_totals(ledger: Ledger, make: Make) -> None:
    """Entries after a number and the named open ones are sufficient for exact totals."""
    calls = [await ledger.insert(make(number=number)) for number in range(1, 7)]
    for call in (calls[0], calls[2], calls[4]):
        await ledger.close(settled(call))
    totals = SessionTotals().apply(await ledger.entries_after("tenant", "ses", after=0, also=()))
    assert (totals.last_number, totals.open) == (6, (2, 4, 6))
    await ledger.close(settled(calls[3], "0.25"))
    await ledger.insert(make(number=7))

    news = await ledger.entries_after("tenant", "ses", after=totals.last_number, also=totals.open)
    assert sorted(entry.number for entry in news) == [2, 4, 6, 7]
    assert totals.apply(news) == SessionTotals().apply(await ledger.entries_after("tenant", "ses", after=0, also=()))
    assert totals.apply(news).current().cost == Decimal("0.55")


async def test_adjustments_are_numbered_among_the_calls(ledger: Ledger, make: Make) -> None:
    """A correction is an entry like any other, and comes back as it was."""
    call = await ledger.insert(make())
    change = Adjustment(
        entry_id=new_id("adj"),
        tenant_id="tenant",
        session_uid="ses",
        session_id="talk",
        turn_id="turn",
        number=1,
        corrects=call.call_id,
        cost=Decimal("-0.0000000000000000000001"),
        model="a/b",
        time=NOW,
        why="a test",
        by="someone",
    )
    written = await ledger.insert(change)

    assert written == replace(change, number=2)
    assert await ledger.adjustments.get("tenant", change.entry_id) == written
    assert await ledger.get("tenant", change.entry_id) is None
    assert [entry async for entry in ledger.by_session("tenant")] == [call, written]


async def test_dead_servers_call_is_claimed_by_one_reconciler(ledger: Ledger, make: Make) -> None:
    """A due call is handed to one reconciler at a time, and only to one that has the right key."""
    for number in range(1, 5):
        await ledger.insert(make(number=number, owner="dead"))
    assert await ledger.owners() == {"dead"}
    assert await ledger.defer_orphans(["dead"]) == 4
    soon = datetime.now(UTC) + timedelta(seconds=1)
    wanted: dict[str, Any] = {"due_by": soon, "claimed_until": soon + timedelta(seconds=30), "any_before": NOW}
    assert await ledger.claim_due(provider_key_ids=["other"], **wanted) is None

    takes = [ledger.claim_due(provider_key_ids=["key"], **wanted) for _ in range(8)]
    taken = [each.call.number for each in await asyncio.gather(*takes) if each is not None]
    assert sorted(taken) == [1, 2, 3, 4]
    assert await ledger.owners() == set()


async def test_servers_own_running_calls_are_not_deferred(ledger: Ledger, make: Make) -> None:
    """What it is busy with is not made due; what it has forgotten is."""
    busy, forgotten = await ledger.insert(make(1)), await ledger.insert(make(2))
    ledger.open_calls.add(busy.call_id)

    assert await ledger.defer_own("server") == 1
    soon = datetime.now(UTC) + timedelta(seconds=1)
    taken = await ledger.claim_due(due_by=soon, claimed_until=soon, provider_key_ids=["key"], any_before=NOW)
    assert taken is not None
    assert taken.call.call_id == forgotten.call_id


async def test_call_that_is_opened_meanwhile_is_not_deferred(
    ledger: Ledger, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that is inserted after the look for forgotten ones has begun is left alone, whenever it was opened."""
    opened = make(1)
    find, update_many = Collection.find, Collection.update_many

    async def open_call() -> None:
        if opened.call_id not in ledger.open_calls:
            ledger.open_calls.add(opened.call_id)
            await ledger.insert(opened)

    async def find_later(collection: Collection, *given: Any, **named: Any) -> Any:
        await open_call()
        return await find(collection, *given, **named)

    async def update_later(collection: Collection, *given: Any, **named: Any) -> Any:
        await open_call()
        return await update_many(collection, *given, **named)

    monkeypatch.setattr(Collection, "find", find_later)
    monkeypatch.setattr(Collection, "update_many", update_later)

    assert await ledger.defer_own("server") == 0
    assert await ledger.owners() == {"server"}


async def test_unwritable_generation_id_keeps_no_other_from_being_stored(ledger: Ledger, make: Make) -> None:
    """Ids that arrive together are written in one operation; one that no document can hold fails alone."""
    calls = [make(number) for number in (1, 2, 3)]
    for call in calls:
        await ledger.insert(call)
    ids = ["gen-1", "gen-\ud83d", "gen-3"]
    noting = (ledger.store_generation_id("tenant", call.call_id, name) for call, name in zip(calls, ids, strict=True))
    found = await asyncio.gather(*noting, return_exceptions=True)

    assert [type(each) for each in found] == [type(None), StorageError, type(None)]
    stored = [await ledger.get("tenant", call.call_id) for call in calls]
    assert [each.generation_id for each in stored if each is not None] == ["gen-1", None, "gen-3"]
