"""Reports of many groups and backlogs of many entries: bounded, and in pieces, so that other requests run."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from godoty.v1 import billing_service_pb2 as pb

from godoty_service.errors import InvalidRequest, SnapshotLost, StorageUnavailable
from godoty_service.rpc.billing import codec as billing_codec
from godoty_service.usage import day_series, grouping, ledger_pages, rollup_keys, sums
from godoty_service.usage.calendar import TimeGroup
from godoty_service.usage.grouping import NamedGroup
from godoty_service.usage.ledger_pages import EntryFilter, LedgerPages
from godoty_service.usage.query import MAX_GROUPS
from tests.integration.billing.caller import keys_of
from tests.integration.billing.conftest import ConnectBilling
from tests.integration.billing.harness import Server, Tenant, report_sums, scan, usage_query
from tests.support.service import Service

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
MONTH = (datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))
SOME = 150  # steps of up to 30 us each: a few milliseconds


@pytest.fixture
async def crowded(served_tenant: Tenant) -> AsyncIterator[Tenant]:
    """A tenant of the shared server with 10,001 sessions with long names, none of them in the roll-ups."""
    await served_tenant.settled([NOON] * (MAX_GROUPS + 1), rolled_up=True, suffix="x" * 90, user="ü" * 128)
    yield served_tenant
    await served_tenant.delete_entries()


async def test_pages_of_many_groups_are_at_most_a_mebibyte(
    service: Service, crowded: Tenant, connect_billing: ConnectBilling
) -> None:
    """Each page fits into the default message size, has the total of all, and together they have all groups, once."""
    pages = [await connect_billing(service).usage(*MONTH, "session", "user")]
    while pages[-1].next_page_token:
        assert len(pages) < 20
        token = pages[-1].next_page_token
        pages.append(await connect_billing(service).usage(*MONTH, "session", "user", page_token=token))

    assert max(each.ByteSize() for each in pages) < 1024 * 1024 + 1000
    assert len(pages) >= 4
    keys = [key for each in pages for key in keys_of(each)]
    assert len(keys) == MAX_GROUPS + 1
    assert keys == sorted(set(keys))
    assert {each.totals.model_calls for each in pages} == {MAX_GROUPS + 1}


async def test_pages_and_exports_of_wide_entries_are_at_most_a_mebibyte(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """500 wide entries are several messages, and all entries are in them, once."""
    await served_tenant.settled([NOON] * 600, rolled_up=True)
    ledger = served_tenant.database.collection("ledger")
    await ledger.update_many({"tenant_id": served_tenant.tenant_id}, {"$set": {"error": "e" * 10_000}})
    biller = connect_billing(service)
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
    """Pending calls count, too; the error says what to narrow."""
    monkeypatch.setattr("godoty_service.usage.query.MAX_GROUPS", 7)
    for number in range(7):
        await tenant.open(NOON, requested_model=f"m/{number}")
    by_model = usage_query(*MONTH, NamedGroup.MODEL)
    assert len((await server.query.run(tenant.tenant_id, by_model)).rows) == 7

    await tenant.settled([NOON])
    with pytest.raises(InvalidRequest) as refused:
        await server.query.run(tenant.tenant_id, by_model)
    assert refused.value.violations[0].description.startswith("must not give more than 7 groups: request a shorter")


class Turns:
    """Counts how often something is done between two turns of the loop."""

    def __init__(self) -> None:
        self.most = 0
        self._since = 0

    def counted(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, counted."""

        def count(*args: Any, **others: Any) -> Any:
            self._since += 1
            self.most = max(self.most, self._since)
            return work(*args, **others)

        return count

    async def watch(self, work: Awaitable[Any]) -> Any:
        """Await while the loop turns."""

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
async def test_report_of_many_groups_yields_to_the_event_loop(
    server: Server, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, group: Any
) -> None:
    """From any source: groups are read, summed and encoded in batches."""
    await tenant.settled([NOON + timedelta(hours=number) for number in range(-250, 250)])
    await server.rollup_job.roll_up(tenant.tenant_id)
    turns = Turns()
    for module, name in ((grouping, "read_totals"), (day_series.DaySeries, "sum"), (billing_codec, "totals_message")):
        monkeypatch.setattr(module, name, turns.counted(getattr(module, name)))
    monkeypatch.setattr(grouping.Grouping, "texts", turns.counted(grouping.Grouping.texts))
    report = await turns.watch(server.query.run(tenant.tenant_id, usage_query(*MONTH, group)))
    message: pb.GetUsageResponse = await turns.watch(
        billing_codec.usage_report_message(report, usage_query(*MONTH, group), max_bytes=10**6)
    )

    assert len(message.rows) == len(report.rows) > 300
    assert 0 < turns.most <= SOME


async def test_page_of_entries_yields_to_the_event_loop(
    server: Server, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for an export: entries are read and encoded in batches."""
    await tenant.settled([NOON] * 480, rolled_up=True)
    turns = Turns()
    for module, name in ((ledger_pages, "entry_from_document"), (billing_codec, "call_message")):
        monkeypatch.setattr(module, name, turns.counted(getattr(module, name)))
    pages = LedgerPages(server.database.collection("ledger"), users=server.users, piece=10_000)
    page = await turns.watch(pages.page(tenant.tenant_id, EntryFilter(), after=None, limit=500))
    messages = await turns.watch(billing_codec.entry_messages(page.entries))

    assert len(messages) == 480
    assert 0 < turns.most <= SOME


async def test_roll_up_yields_to_the_event_loop(
    server: Server, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entries of a batch are summed in batches."""
    await tenant.settled([NOON] * 480)
    turns = Turns()
    monkeypatch.setattr(rollup_keys, "part", turns.counted(sums.part))
    await turns.watch(server.rollup_job.roll_up(tenant.tenant_id))

    assert 0 < turns.most <= SOME
    assert await server.differences() == []


async def test_entries_inserted_during_a_backlog_do_not_prolong_it(
    server: Server, other: Server, tenant: Tenant
) -> None:
    """However fast entries arrive: a report has those that were there when it was requested, and is returned."""
    await tenant.settled([NOON] * 1200)
    add_batch = server.rollups.add_batch
    came: list[datetime] = []

    async def while_more_comes(*args: Any) -> None:
        assert len(came) < 6, "it would never end"
        came.append(NOON + timedelta(hours=len(came) + 1))
        await tenant.settled([came[-1]] * 500)
        await add_batch(*args)

    server.rollups.add_batch = while_more_comes  # type: ignore[method-assign, assignment] # one arrives for each rolled up
    query = usage_query(NOON, NOON + timedelta(minutes=1))
    report = await server.query.run(tenant.tenant_id, query)

    assert report.totals.model_calls == 1200
    everything = usage_query(*MONTH)
    assert report_sums(await other.query.run(tenant.tenant_id, everything)) == scan(
        await tenant.documents(), everything
    )
    assert await other.differences() == []


@pytest.mark.parametrize(("error", "times"), [(SnapshotLost, 5), (StorageUnavailable, 1)])
async def test_only_a_lost_snapshot_is_retried(
    server: Server, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, error: type[StorageUnavailable], times: int
) -> None:
    """A sum that took the database too long would take as long again."""
    tries = 0

    async def fail(*_: Any, **__: Any) -> set[datetime]:
        nonlocal tries
        tries += 1
        raise error("gone")

    monkeypatch.setattr("godoty_service.usage.rollup_store.RollupStore.changed_quarters", fail)
    with pytest.raises(StorageUnavailable):
        await server.query.run(tenant.tenant_id, usage_query(*MONTH))

    assert tries == times
