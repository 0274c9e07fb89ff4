"""Each entry is rolled up exactly once, whichever server does it and whenever it dies."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from bson.decimal128 import Decimal128

from godoty_service.errors import StorageUnavailable
from godoty_service.ledger.states import CURRENT_RULE, CallState
from godoty_service.ledger.totals import Totals
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Collection, Snapshot
from godoty_service.pricing import money
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.usage.calendar import TimeGroup
from godoty_service.usage.entries import EntryWithState, UsageEntries
from godoty_service.usage.grouping import NamedGroup
from tests.integration.billing.harness import Server, Tenant, report_sums, scan, usage_query

NOON = datetime(2026, 5, 4, 12, 0, 0, 1000, tzinfo=UTC)
NO_GROUP: tuple[NamedGroup, ...] = ()
DAY = usage_query(NOON - timedelta(hours=12), NOON + timedelta(hours=12))


async def _fill(tenant: Tenant, calls: int) -> None:
    """Insert settled calls."""
    opened = []
    for number in range(calls):
        session = f"{tenant.tenant_id}.{number}"  # of its own, so that the next number is always 1
        opened.append(await tenant.open(NOON + timedelta(minutes=number % 300), session_uid=session))
    await asyncio.gather(*(tenant.close(call, NOON + timedelta(hours=6)) for call in opened))


@pytest.mark.parametrize("done", [False, True], ids=["lost", "done-unanswered"])
@pytest.mark.parametrize("write", range(6))
async def test_death_between_any_two_writes_adds_nothing_twice(
    server: Server, other: Server, tenant: Tenant, write: int, *, done: bool
) -> None:
    """Whichever write was the last, the next server completes the batch, and the sums are exact."""
    await _fill(tenant, 20)
    await tenant.open(NOON)
    server.faults.writes, server.faults.done = write, done
    try:
        await server.query.run(tenant.tenant_id, DAY)
    except StorageUnavailable:
        died = True
    else:
        died = False
    assert died == (write < 6)
    assert await other.differences() == []
    report = await other.query.run(tenant.tenant_id, DAY)

    assert report_sums(report) == scan(await tenant.documents(), DAY)
    assert await other.differences() == []


async def test_paused_server_that_resumes_later_adds_nothing(server: Server, other: Server, tenant: Tenant) -> None:
    """Writes of a batch that arrive after it was completed, and after the next batch, change nothing."""
    await _fill(tenant, 5)
    add_batch = server.rollups.add_batch
    paused, resumed = asyncio.Event(), asyncio.Event()

    async def pause_first(*args: Any) -> None:
        paused.set()
        await resumed.wait()
        await add_batch(*args)

    server.rollups.add_batch = pause_first  # type: ignore[method-assign, assignment] # a pause
    slow = asyncio.create_task(server.rollup_job.roll_up(tenant.tenant_id))
    await paused.wait()
    await other.rollup_job.roll_up(tenant.tenant_id)
    await _fill(tenant, 5)
    await other.rollup_job.roll_up(tenant.tenant_id)
    resumed.set()
    await slow

    assert await other.differences() == []
    assert report_sums(await other.query.run(tenant.tenant_id, DAY)) == scan(await tenant.documents(), DAY)


async def test_concurrent_servers_add_each_entry_once(database: Database, tenant: Tenant) -> None:
    """More than a batch of entries, rolled up by five servers while more are inserted."""
    servers = [Server(database, f"server {number}") for number in range(5)]
    await _fill(tenant, 700)
    await asyncio.gather(
        *(each.rollup_job.roll_up(tenant.tenant_id, include_pending=True) for each in servers), _fill(tenant, 100)
    )
    report = await servers[0].query.run(tenant.tenant_id, DAY)

    assert report_sums(report) == scan(await tenant.documents(), DAY)
    assert await servers[0].differences() == []
    assert await database.collection("ledger").count({"rollup_state": {"$exists": True}}) == 0


async def test_server_with_the_lease_rolls_up_all_tenants(
    database: Database, server: Server, other: Server, tenant: Tenant
) -> None:
    """While one has the lease, the other does nothing; the lease of a dead server expires."""
    second = Tenant(database, server.ledger, tenant.chance)
    await _fill(tenant, 3)
    await _fill(second, 3)

    assert await server.rollup_job.run_once()
    assert not await other.rollup_job.run_once()
    assert await database.collection("ledger").count({"rollup_state": {"$exists": True}}) == 0

    async def later() -> datetime:
        return await database.now() + timedelta(minutes=1)

    heir = Server(database, "heir", now=later)
    assert await heir.rollup_job.run_once()
    assert not await server.rollup_job.run_once()


async def test_tenant_whose_sums_fail_does_not_block_others(database: Database, server: Server, tenant: Tenant) -> None:
    """A sum that needs more than 34 digits is a fault of that tenant alone."""
    broken = Tenant(database, server.ledger, tenant.chance)
    broken.tenant_id = "tnt_0"  # comes first
    for cost in ("1E+20", "1E-20"):
        call = await broken.open(NOON)
        await broken.close(call, NOON, state=CallState.SETTLED)
        await database.collection("ledger").update_one(
            {"_id": call.call_id}, {"$set": {"cost": Decimal128(Decimal(cost))}}
        )
    await _fill(tenant, 3)
    await server.rollup_job.run_once()

    assert report_sums(await server.query.run(tenant.tenant_id, DAY)) == scan(await tenant.documents(), DAY)
    queued = await database.collection("ledger").find({"rollup_state": {"$exists": True}})
    assert {each["tenant_id"] for each in queued} == {"tnt_0"}


@pytest.mark.parametrize("reported", [True, False], ids=["counted-before", "rolled-up-alone"])
async def test_turn_moves_to_its_second_call_when_the_first_is_void(
    server: Server, tenant: Tenant, *, reported: bool
) -> None:
    """A turn is counted once, with its first call that is not void, also if the second was rolled up before."""
    tenant.rules = (CURRENT_RULE,)
    first = await tenant.open(NOON, session_uid="s", turn_id="turn", requested_model="first")
    second = await tenant.open(NOON + timedelta(hours=1), session_uid="s", turn_id="turn", requested_model="second")
    await tenant.close(replace(second, served_model="second"), NOON, state=CallState.SETTLED)
    by_model = usage_query(DAY.start, DAY.end, NamedGroup.MODEL)
    early = await server.query.run(tenant.tenant_id, by_model) if reported else None
    await server.rollup_job.run_once()
    await tenant.close(first, datetime.now(UTC), state=CallState.VOID)
    await server.rollup_job.run_once()
    late = await server.query.run(tenant.tenant_id, by_model)

    assert report_sums(late) == scan(await tenant.documents(), by_model)
    assert [(row.totals.turns, row.totals.model_calls) for row in late.rows] == [(1, 1)]
    assert await server.differences() == []
    if early is not None:
        again = await server.query.run(tenant.tenant_id, replace(by_model, as_of=early.as_of))
        assert {row.keys[0]: row.totals.turns for row in early.rows}["first"] == early.totals.turns == 1
        assert (again.rows, again.totals) == (early.rows, early.totals)


async def test_turn_of_void_calls_alone_counts_nothing_and_has_no_row(server: Server, tenant: Tenant) -> None:
    """No turn, no call, and no row by any group."""
    tenant.rules = (CURRENT_RULE,)
    for known in ({"session_uid": "counted"}, {"session_uid": "never"}):
        call = await tenant.open(NOON, turn_id="turn", **known)
        if known["session_uid"] == "counted":
            await server.query.run(tenant.tenant_id, DAY)
        await tenant.close(call, datetime.now(UTC), state=CallState.VOID)
    for group in (*TimeGroup, *NamedGroup):
        report = await server.query.run(tenant.tenant_id, usage_query(DAY.start, DAY.end, group))
        assert (report.rows, report.totals) == ((), Totals())
    assert await server.differences() == []


async def test_entry_of_the_former_rule_counts_as_it_was_rolled_up(server: Server, tenant: Tenant) -> None:
    """Entries of an earlier version have no rule: a void call still opens its turn, unresolved tokens are in no sum."""
    tenant.rules = (1,)
    void = await tenant.open(NOON, session_uid="void", turn_id="void")
    await tenant.close(void, NOON, state=CallState.VOID)
    unresolved = await tenant.open(NOON, session_uid="lost", turn_id="lost")
    await tenant.close(replace(unresolved, usage=TokenUsage(input_tokens=9)), NOON, state=CallState.UNRESOLVED)
    await tenant.database.collection("ledger").update_many({}, {"$unset": {"rule": ""}})
    for group in (NO_GROUP, (NamedGroup.SESSION,)):
        report = await server.query.run(tenant.tenant_id, usage_query(DAY.start, DAY.end, *group))
        assert (report.totals.turns, report.totals.usage.input_tokens) == (2, None)
    assert await server.differences() == []


async def test_tokens_of_an_unresolved_call_count_when_it_closes(server: Server, tenant: Tenant) -> None:
    """They are counted with their call, but not while it is pending, however the sums are read."""
    tenant.rules = (CURRENT_RULE,)
    call = await tenant.open(NOON)
    await tenant.defer(call)
    call = tenant.calls[call.call_id]
    assert (await server.query.run(tenant.tenant_id, DAY)).totals.usage.input_tokens is None
    await tenant.close(call, NOON, state=CallState.UNRESOLVED)
    for group in (NO_GROUP, (NamedGroup.MODEL,), (NamedGroup.SESSION,)):
        report = await server.query.run(tenant.tenant_id, usage_query(DAY.start, DAY.end, *group))
        assert (report.totals.usage.input_tokens, report.totals.unresolved_calls) == (3, 1)
    assert await server.differences() == []


async def test_turn_is_counted_once_with_its_first_call(server: Server, tenant: Tenant) -> None:
    """By the former rule: also if the first call is void, and the second was rolled up long before it closed."""
    tenant.rules = (1,)
    first = await tenant.open(NOON, session_uid="s", turn_id="turn", requested_model="first")
    second = await tenant.open(NOON + timedelta(hours=1), session_uid="s", turn_id="turn", requested_model="second")
    await tenant.close(second, NOON, state=CallState.SETTLED)
    early = await server.query.run(tenant.tenant_id, DAY)
    await tenant.close(first, NOON, state=CallState.VOID)
    late = await server.query.run(tenant.tenant_id, DAY)

    assert (early.totals.turns, early.totals.model_calls, early.totals.pending_calls) == (1, 2, 1)
    assert (late.totals.turns, late.totals.model_calls, late.totals.pending_calls) == (1, 1, 0)


@pytest.mark.parametrize("group", [(), (NamedGroup.USER,)], ids=["roll-ups", "entries"])
async def test_deferred_call_is_listed_under_its_served_model(
    server: Server, tenant: Tenant, group: tuple[NamedGroup, ...]
) -> None:
    """From then on, and pending until it closes; the report from before does not change."""
    call = await tenant.open(NOON, requested_model="a/one")
    by_model = usage_query(DAY.start, DAY.end, NamedGroup.MODEL, *(group or (NamedGroup.PROVIDER,)))
    before = await server.query.run(tenant.tenant_id, by_model)
    await tenant.defer(call)
    await server.rollup_job.run_once()
    after = await server.query.run(tenant.tenant_id, by_model)
    left = tenant.calls[call.call_id]
    await tenant.close(left, datetime.now(UTC), state=CallState.UNRESOLVED)
    closed = await server.query.run(tenant.tenant_id, by_model)

    assert [row.keys[0] for row in before.rows] == ["a/one"]
    assert [(row.keys[0], row.totals.pending_calls) for row in after.rows] == [("c/four", 1)]
    assert closed.totals.pending_calls == 0
    for earlier in (before, after):
        again = await server.query.run(tenant.tenant_id, replace(by_model, as_of=earlier.as_of))
        assert (again.rows, again.totals) == (earlier.rows, earlier.totals)


async def test_deferred_call_is_pending_until_it_closes(server: Server, tenant: Tenant) -> None:
    """It counts once, without the tokens that its stream reported."""
    call = await tenant.open(NOON)
    by_model = usage_query(DAY.start, DAY.end, NamedGroup.MODEL, NamedGroup.PROVIDER)
    before = await server.query.run(tenant.tenant_id, by_model)
    await tenant.defer(call)
    await server.rollup_job.run_once()
    after = await server.query.run(tenant.tenant_id, by_model)
    await tenant.close(call, NOON, state=CallState.SETTLED)

    assert before.totals == after.totals
    assert after.totals.pending_calls == 1
    assert (await server.query.run(tenant.tenant_id, by_model)).totals.pending_calls == 0


async def test_report_rolls_up_more_than_a_batch(server: Server, tenant: Tenant) -> None:
    """It includes all queued entries, however many."""
    await _fill(tenant, 520)  # a batch has 500

    assert report_sums(await server.query.run(tenant.tenant_id, DAY)) == scan(await tenant.documents(), DAY)


async def test_sums_of_large_and_small_amounts_lose_no_digit(server: Server, tenant: Tenant) -> None:
    """Hundreds of billions, less the same, and the 22nd decimal that a price can have: all 34 digits count."""
    for hour, cost in enumerate(("9E11", "1E-22", "-9E11")):
        call = await tenant.open(NOON + timedelta(hours=hour))
        closed = await tenant.close(call, NOON, state=CallState.UNRESOLVED)
        adjustment = await tenant.adjust(closed, NOON)
        await tenant.database.collection("ledger").update_one(
            {"_id": adjustment.entry_id}, {"$set": {"cost": Decimal128(cost)}}
        )
    for groups in (NO_GROUP, (NamedGroup.MODEL,), (NamedGroup.SESSION,)):
        report = await server.query.run(tenant.tenant_id, usage_query(DAY.start, DAY.end, *groups))
        assert money.total(row.totals.cost for row in report.rows) == Decimal("1E-22")


async def test_every_source_has_the_same_sums(server: Server, tenant: Tenant) -> None:
    """Days, hours, quarters and entries: the sums equal a scan, also for odd ranges and zones."""
    for minutes in range(-40 * 60, 40 * 60, 37):
        call = await tenant.open(NOON + timedelta(minutes=minutes))
        await tenant.close(call, NOON)
    documents = await tenant.documents()
    zones = ("UTC", "Asia/Kathmandu", "Asia/Kolkata", "Australia/Lord_Howe")
    groups: list[tuple[Any, ...]] = [(), *((group,) for group in (*TimeGroup, NamedGroup.MODEL))]
    for zone, group in itertools.product(zones, groups):
        for start, end in ((-72, 72), (-40.01, 39.99), (-30.3, -29.7), (0, 0.25)):
            query = usage_query(NOON + timedelta(hours=start), NOON + timedelta(hours=end), *group, zone=zone)
            assert report_sums(await server.query.run(tenant.tenant_id, query)) == scan(documents, query), query


Tamper = Callable[[Database], Any]


async def _more_cost(database: Database) -> None:
    curve = await database.collection("usage_rollups").find_one({"level": "curve"})
    assert curve is not None
    more = money.add(Decimal(curve["amounts"]["cost"][0]), Decimal("0.0000000000000000000001"))
    await database.collection("usage_rollups").update_one(
        {"_id": curve["_id"]}, {"$set": {"amounts.cost.0": str(more)}}
    )


async def _more_tokens(database: Database) -> None:
    await database.collection("usage_rollups").update_one({"level": "detail"}, {"$inc": {"usage.input_tokens": 1}})


async def _no_day(database: Database) -> None:
    await database.collection("usage_rollups").delete_one({"level": "day"})


async def _one_more(database: Database) -> None:
    found = await database.collection("usage_rollups").find_one({"level": "curve"})
    assert found is not None
    time = found["time"] + timedelta(days=3)
    await database.collection("usage_rollups").insert_one(found | {"_id": "forged", "time": time})


async def _less_late(database: Database) -> None:
    await database.collection("usage_rollups").update_one({"level": "curve"}, {"$set": {"known.0": NOON}})


async def _less_late_in_all(database: Database) -> None:
    await database.collection("usage_rollups").update_one({"level": "curve"}, {"$set": {"latest": NOON}})


async def _cheaper_call(database: Database) -> None:
    cost = Decimal128(Decimal(0))
    await database.collection("ledger").update_one({"state": "settled"}, {"$set": {"cost": cost}})


async def _no_entry(database: Database) -> None:
    await database.collection("ledger").delete_one({"state": "settled"})


async def _unmarked_pending(database: Database) -> None:
    await database.collection("ledger").update_many({"rollup_state": "pending"}, {"$unset": {"rollup_state": ""}})


async def _marked_ready(database: Database) -> None:
    await database.collection("ledger").update_one({"state": "settled"}, {"$set": {"rollup_state": "ready"}})


async def _other_turn(database: Database) -> None:
    await database.collection("ledger").update_one({"opens_turn": True}, {"$unset": {"opens_turn": ""}})


async def _no_hour(database: Database) -> None:
    await database.collection("usage_rollups").delete_one({"level": "detail_hour"})


async def _dearer_hour(database: Database) -> None:
    await database.collection("usage_rollups").update_one(
        {"level": "detail_hour"}, {"$set": {"cost": Decimal128(Decimal(7))}}
    )


async def _later_day(database: Database) -> None:
    await database.collection("usage_rollups").update_one({"level": "day"}, {"$set": {"latest": NOON}})


async def _quarter_beyond_the_day(database: Database) -> None:
    await database.collection("usage_rollups").update_one({"level": "curve"}, {"$inc": {"quarters.0": 200}})


def _forged(level: str) -> Tamper:
    async def forge(database: Database) -> None:
        found = await database.collection("usage_rollups").find_one({"level": level})
        assert found is not None
        await database.collection("usage_rollups").insert_one(found | {"_id": "forged", "agent": "forged"})

    return forge


TAMPERINGS = {
    "usage detail_hour 2026-05-04T12:00:00+00:00": _no_hour,
    "cost: stored 7, by the quarters": _dearer_hour,
    "latest: stored 2026-05-04T12:00:00.001000+00:00, by the hours": _later_day,
    "usage quarter 2026-05-06": _quarter_beyond_the_day,
    "forged: is stored, but has no entries": _forged("detail"),
    "usage detail_hour 2026-05-04T12:00:00+00:00 ": _forged("detail_hour"),
    "usage day 2026-05-04T00:00:00+00:00": _forged("day"),
    "cost: stored": _more_cost,
    "usage: stored": _more_tokens,
    "is missing": _no_day,
    "is stored, but has no entries": _one_more,
    "latest: stored": _less_late,
    "latest: stored 2026-05-04T12:00:00.001000+00:00": _less_late_in_all,
    "quarter 2026-05-04": _cheaper_call,
    "by the entries": _no_entry,
    "is rolled up and pending": _unmarked_pending,
    "model_calls: stored": _marked_ready,
    "is not marked as its turn's first": _other_turn,
}


@pytest.mark.parametrize("piece", [2, 50_000])
@pytest.mark.parametrize("said", TAMPERINGS)
async def test_tampered_document_is_reported(
    server: Server, database: Database, tenant: Tenant, said: str, piece: int
) -> None:
    """Clean roll-ups pass; a document, an entry or a mark that was changed by hand does not."""
    for number in range(6):
        call = await tenant.open(NOON + timedelta(minutes=7 * number))
        await tenant.close(call, NOON + timedelta(hours=1), state=CallState.SETTLED)
    await server.rollup_job.run_once()
    await tenant.open(NOON)
    assert await server.differences() == []
    await TAMPERINGS[said](database)
    found = await server.differences(piece=piece)

    assert any(said in each for each in found), found
    assert await server.differences(tenant.tenant_id, piece=piece) == found


class _Counting(UsageEntries):
    """Entries that count what is read of each snapshot."""

    def __init__(self, collection: Collection, read: list[int]) -> None:
        super().__init__(collection)
        self._read = read

    def read_at(self, snapshot: Snapshot) -> "_Counting":
        """Start a new count."""
        self._read.append(0)
        return _Counting(self._entries.read_at(snapshot), self._read)

    async def iterate_by_time(
        self, tenant_id: str, start: datetime, end: datetime
    ) -> AsyncIterator[list[EntryWithState]]:
        """Count entries."""
        async for page in super().iterate_by_time(tenant_id, start, end):
            self._read[-1] += len(page)
            yield page


async def test_day_is_verified_in_pieces_each_in_a_snapshot_of_its_own(
    server: Server, database: Database, tenant: Tenant
) -> None:
    """No snapshot reads more entries than a piece may have, or a quarter of an hour has; all entries are read."""
    await _fill(tenant, 60)  # in the first hour: 15 in each quarter
    for hours in range(2, 8):
        await tenant.close(await tenant.open(NOON + timedelta(hours=hours)), NOON + timedelta(hours=8))
    await server.rollup_job.run_once()
    for piece, most in ((1, 15), (40, 40), (50_000, 66)):
        read: list[int] = []
        server.entries = _Counting(database.collection("ledger"), read)
        assert await server.differences(piece=piece) == []
        assert sum(read) == 66
        assert max(read) <= most


async def test_busy_roll_ups_verified_in_pieces_are_clean(server: Server, other: Server, tenant: Tenant) -> None:
    """While entries are inserted and rolled up, no piece differs, whenever it is read."""

    async def write() -> None:
        for _ in range(12):
            await _fill(tenant, 25)
            await other.rollup_job.roll_up(tenant.tenant_id, include_pending=True)

    writing = asyncio.create_task(write())
    rounds = 0
    while not writing.done():
        assert await server.differences(piece=20) == []
        rounds += 1
    await writing

    assert rounds > 1
    assert await server.differences(piece=20) == []


async def test_settle_time_in_the_future_does_not_advance_as_of(server: Server, other: Server, tenant: Tenant) -> None:
    """A call settled "tomorrow" is in the report, whose `as_of` is now; later calls are in later reports."""
    call = await tenant.open(NOON)
    pending = await tenant.open(datetime.now(UTC).replace(microsecond=0) + timedelta(days=31))
    await tenant.close(call, datetime.now(UTC).replace(microsecond=0) + timedelta(days=1), state=CallState.SETTLED)
    first = await server.query.run(tenant.tenant_id, DAY)
    slow = await tenant.open(NOON)
    await tenant.close(slow, datetime.now(UTC).replace(microsecond=0), state=CallState.SETTLED)
    second = await other.query.run(tenant.tenant_id, DAY)
    again = await other.query.run(tenant.tenant_id, usage_query(DAY.start, DAY.end, as_of=first.as_of))

    assert first.as_of < second.as_of <= datetime.now(UTC)
    assert [each.totals.model_calls for each in (first, second)] == [1, 2]
    assert (again.totals, again.rows) == (first.totals, first.rows)
    assert again.later_cost == tenant.calls[slow.call_id].cost
    assert await server.differences() == []
    tomorrow = usage_query(pending.start_time, pending.start_time + timedelta(days=1))
    assert (await server.query.run(tenant.tenant_id, tomorrow)).totals.pending_calls == 1
