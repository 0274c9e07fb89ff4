"""Answers of many groups and backlogs of many entries: bounded, and in pieces, so that nobody else waits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from godoty.v1 import billing_service_pb2 as pb

from godoty_service.errors import InvalidRequest, SnapshotLost, StorageUnavailable
from godoty_service.metering import ledger_pages, usage_cells, usage_curve, usage_groups, usage_sums
from godoty_service.metering.ledger_pages import EntryFilter, LedgerPages
from godoty_service.metering.time_cells import TimeGroup
from godoty_service.metering.usage_groups import NamedGroup
from godoty_service.metering.usage_query import MOST_GROUPS
from godoty_service.rpc import billing_messages
from tests.billing.books import Server, Tenant, question, scan, shown
from tests.billing.conftest import Bill
from tests.service.service import Service

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
MONTH = (datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))
SOME = 150  # of what takes up to 30 us each: a few milliseconds


@pytest.fixture
async def crowded(served: Tenant) -> AsyncIterator[Tenant]:
    """A tenant of the shared server with 10,001 sessions, whose names are long. The roll-ups have none of them."""
    await served.settled([NOON] * (MOST_GROUPS + 1), booked=True)
    ledger = served.database.collection("ledger")
    longer: list[dict[str, Any]] = [{"$set": {"session_id": {"$concat": ["$session_id", "x" * 90]}, "user": "ü" * 128}}]
    await ledger.update_many({"tenant_id": served.tenant_id}, longer)
    yield served
    await ledger.delete_many({"tenant_id": served.tenant_id})


async def test_pages_of_many_groups_end_after_a_mebibyte(service: Service, crowded: Tenant, bill: Bill) -> None:
    """Each page is one that clients take by default, says the sum of all, and together they are all groups, once."""
    pages = [await bill(service).usage(*MONTH, "session", "user")]
    while pages[-1].next_page_token:
        assert len(pages) < 20
        token = pages[-1].next_page_token
        pages.append(await bill(service).usage(*MONTH, "session", "user", page_token=token))

    assert max(each.ByteSize() for each in pages) < 1024 * 1024 + 1000
    assert len(pages) >= 4
    keys = [tuple(row.keys) for each in pages for row in each.rows]
    assert len(keys) == MOST_GROUPS + 1
    assert keys == sorted(set(keys))
    assert {each.totals.model_calls for each in pages} == {MOST_GROUPS + 1}


async def test_pages_and_exports_of_wide_entries_end_after_a_mebibyte(
    service: Service, served: Tenant, bill: Bill
) -> None:
    """Whatever an entry holds: 500 of them are several messages, and all entries are in them, once."""
    await served.settled([NOON] * 600, booked=True)
    ledger = served.database.collection("ledger")
    await ledger.update_many({"tenant_id": served.tenant_id}, {"$set": {"error": "e" * 10_000}})
    biller = bill(service)
    found: list[str] = []
    token = ""
    while True:
        page = await biller.call("ListLedgerEntries", pb.ListLedgerEntriesRequest(page_size=500, page_token=token))
        assert page.ByteSize() < 1024 * 1024 + 1000
        found += [each.call.call_id for each in page.entries]
        if not (token := page.next_page_token):
            break
    exported = await biller.export()

    assert len(found) == len(set(found)) == 600
    assert max(each.ByteSize() for each in exported) < 1024 * 1024 + 1000
    assert [each.call.call_id for part in exported for each in part.entries] == found


async def test_too_many_groups_of_roll_ups_are_refused(
    server: Server, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are pending count, too; the error says what to narrow."""
    monkeypatch.setattr("godoty_service.metering.usage_query.MOST_GROUPS", 7)
    for number in range(7):
        await tenant.open(NOON, requested_model=f"m/{number}")
    by_model = question(*MONTH, NamedGroup.MODEL)
    assert len((await server.query.ask(tenant.tenant_id, by_model)).rows) == 7

    await tenant.settled([NOON])
    with pytest.raises(InvalidRequest) as refused:
        await server.query.ask(tenant.tenant_id, by_model)
    assert refused.value.violations[0].description.startswith("must not give more than 7 groups: ask for a shorter")


class Turns:
    """Counts how often something is done between two turns of the loop."""

    def __init__(self) -> None:
        self.most = 0
        self._since = 0

    def counted(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Count it."""

        def count(*args: Any, **others: Any) -> Any:
            self._since += 1
            self.most = max(self.most, self._since)
            return work(*args, **others)

        return count

    async def watch(self, work: Awaitable[Any]) -> Any:
        """Do something while the loop turns."""

        async def turn() -> None:
            while True:
                self._since = 0
                await asyncio.sleep(0)

        turning = asyncio.create_task(turn())
        try:
            return await work
        finally:
            turning.cancel()
            with suppress(asyncio.CancelledError):
                await turning


@pytest.mark.parametrize("group", [NamedGroup.SESSION, TimeGroup.HOUR])
async def test_an_answer_of_many_groups_lets_others_run(
    server: Server, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, group: Any
) -> None:
    """Wherever its rows come from: they are read, summed and written some at a time."""
    await tenant.settled([NOON + timedelta(hours=number) for number in range(-250, 250)])
    await server.booking.take_up(tenant.tenant_id)
    turns = Turns()
    for module, name in ((usage_groups, "read_totals"), (usage_curve, "_sum"), (billing_messages, "totals_message")):
        monkeypatch.setattr(module, name, turns.counted(getattr(module, name)))
    monkeypatch.setattr(usage_groups.Grouping, "texts", turns.counted(usage_groups.Grouping.texts))
    answer = await turns.watch(server.query.ask(tenant.tenant_id, question(*MONTH, group)))
    message: pb.GetUsageResponse = await turns.watch(billing_messages.usage_answer_message(answer, most_bytes=10**6))

    assert len(message.rows) == len(answer.rows) > 300
    assert 0 < turns.most <= SOME


async def test_a_page_of_entries_lets_others_run(
    server: Server, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an export, too: its entries are read and written some at a time."""
    await tenant.settled([NOON] * 480, booked=True)
    turns = Turns()
    for module, name in ((ledger_pages, "entry_from_document"), (billing_messages, "call_message")):
        monkeypatch.setattr(module, name, turns.counted(getattr(module, name)))
    pages = LedgerPages(server.database.collection("ledger"))
    page = await turns.watch(pages.page(tenant.tenant_id, EntryFilter(), after=None, limit=500))
    messages = await turns.watch(billing_messages.entry_messages(page))

    assert len(messages) == 480
    assert 0 < turns.most <= SOME


async def test_taking_up_lets_others_run(server: Server, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch's entries are summed some at a time."""
    await tenant.settled([NOON] * 480)
    turns = Turns()
    monkeypatch.setattr(usage_cells, "part", turns.counted(usage_sums.part))
    await turns.watch(server.booking.take_up(tenant.tenant_id))

    assert 0 < turns.most <= SOME
    assert await server.differences() == []


async def test_what_comes_while_a_backlog_is_taken_up_does_not_prolong_it(
    server: Server, other: Server, tenant: Tenant
) -> None:
    """However fast entries come: an answer has what was there when it was asked for, and is given."""
    await tenant.settled([NOON] * 1200)
    fold = server.rollups.fold
    came: list[datetime] = []

    async def while_more_comes(*args: Any) -> None:
        assert len(came) < 6, "it would never end"
        came.append(NOON + timedelta(hours=len(came) + 1))
        await tenant.settled([came[-1]] * 500)
        await fold(*args)

    server.rollups.fold = while_more_comes  # type: ignore[method-assign, assignment] # as much comes as is taken up
    asked = question(NOON, NOON + timedelta(minutes=1))
    answer = await server.query.ask(tenant.tenant_id, asked)

    assert answer.totals.model_calls == 1200
    everything = question(*MONTH)
    assert shown(await other.query.ask(tenant.tenant_id, everything)) == scan(await tenant.documents(), everything)
    assert await other.differences() == []


@pytest.mark.parametrize(("error", "times"), [(SnapshotLost, 5), (StorageUnavailable, 1)])
async def test_only_what_a_later_moment_cures_is_tried_again(
    server: Server, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, error: type[StorageUnavailable], times: int
) -> None:
    """A sum that took the database too long would take it as long again."""
    tries = 0

    async def fail(*_: Any, **__: Any) -> set[datetime]:
        nonlocal tries
        tries += 1
        raise error("gone")

    monkeypatch.setattr("godoty_service.metering.rollups.Rollups.changed", fail)
    with pytest.raises(StorageUnavailable):
        await server.query.ask(tenant.tenant_id, question(*MONTH))

    assert tries == times
