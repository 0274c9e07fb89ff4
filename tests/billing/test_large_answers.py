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
    """A tenant of the shared server with as many sessions as an answer may have. The roll-ups have none of them."""
    await served.settled([NOON] * MOST_GROUPS, booked=True)
    yield served
    await served.database.collection("ledger").delete_many({"tenant_id": served.tenant_id})


async def test_more_groups_than_a_page_holds_take_two(service: Service, crowded: Tenant, bill: Bill) -> None:
    """As many as the largest message that clients take by default holds are one page, and one more is on the next."""
    answer = await bill(service).usage(*MONTH, "session")
    assert (len(answer.rows), answer.totals.model_calls) == (MOST_GROUPS, MOST_GROUPS)
    assert not answer.next_page_token

    await crowded.settled([NOON], booked=True)
    answer = await bill(service).usage(*MONTH, "session", page_size=20_000)
    rest = await bill(service).usage(*MONTH, "session", page_token=answer.next_page_token)
    assert (len(answer.rows), answer.totals.model_calls) == (MOST_GROUPS, MOST_GROUPS + 1)
    assert (len(rest.rows), rest.totals) == (1, answer.totals)


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
    message: pb.GetUsageResponse = await turns.watch(billing_messages.usage_answer_message(answer))

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
