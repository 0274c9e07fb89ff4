"""An export has each entry that is visible at its `as_of` exactly once, also if entries are written meanwhile."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from godoty.v1 import billing_service_pb2 as pb

from godoty_service.ledger.entries import Entry, ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.rpc.pagination import encode_token
from godoty_service.usage.ledger_pages import EntryCursor, EntryFilter, LedgerExport, LedgerPages
from tests.integration.billing.caller import BillingCaller, entry_name, timestamp
from tests.integration.billing.conftest import ConnectBilling
from tests.integration.billing.harness import Server, Tenant
from tests.support.caller import failure_of
from tests.support.service import Service

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


def exports_of(server: Server) -> LedgerExport:
    """Return a server's exports."""
    pages = LedgerPages(server.database.collection("ledger"), users=server.users, piece=3)  # each export reads several
    return LedgerExport(rollup_job=server.rollup_job, pages=pages, now=server.database.now)


async def names_of(tenant: Tenant) -> set[str]:
    """Return the ids of all entries."""
    return {each["_id"] for each in await tenant.documents()}


async def write_some(tenant: Tenant, chance: random.Random) -> None:
    """Insert calls early, in between, late and in the future, and settle or adjust existing calls."""
    for seconds in (-3600, 1, 7, 86_400, 86_400 * 365):
        call = await tenant.open(NOON + timedelta(seconds=seconds))
        if chance.random() < 0.5:
            await tenant.close(call, NOON)
    pending = [
        call for call in tenant.calls.values() if isinstance(call.state, CallState) and call.state is CallState.PENDING
    ]
    closed = await tenant.close(chance.choice(pending), datetime.now(UTC), state=CallState.UNRESOLVED)
    await tenant.adjust(closed, datetime.now(UTC))


async def test_entries_inserted_during_an_export_are_in_the_next_one(
    server: Server, other: Server, tenant: Tenant
) -> None:
    """Two entries a page, and calls of every start time are inserted after each page: none of them is exported."""
    chance = random.Random(11)
    for _ in range(3):
        await write_some(tenant, chance)
    before = await names_of(tenant)
    export = await exports_of(server).begin(tenant.tenant_id, EntryFilter(), size=2)
    found: list[Entry] = []
    async for page in export.pages:
        found += page
        if len(found) < 12:
            await write_some(tenant, chance)
            await chance.choice((server, other)).rollup_job.advance_watermark(
                tenant.tenant_id
            )  # another answer takes them up

    assert [each.entry_id for each in found] == list(dict.fromkeys(each.entry_id for each in found))
    assert {each.entry_id for each in found} == before
    everything = await names_of(tenant)
    assert len(everything) > len(before) + 20
    again = await exports_of(other).begin(tenant.tenant_id, EntryFilter(), size=7)
    assert again.as_of > export.as_of
    assert {each.entry_id async for page in again.pages for each in page} == everything


async def test_range_of_an_export_has_the_entries_of_as_of(server: Server, tenant: Tenant) -> None:
    """An end in the future adds no entry that is inserted after the export has started."""
    first = await tenant.open(NOON)
    which = EntryFilter(start=NOON - timedelta(days=1), end=datetime.now(UTC) + timedelta(days=1))
    export = await exports_of(server).begin(tenant.tenant_id, which)
    await tenant.open(NOON - timedelta(hours=1))
    await tenant.open(datetime.now(UTC))

    assert [each.entry_id async for page in export.pages for each in page] == [first.call_id]


async def test_call_dated_in_the_future_is_exported(server: Server, tenant: Tenant) -> None:
    """A call that starts after `as_of` by its server's clock existed when the export started: it is included, once."""
    future = datetime.now(UTC) + timedelta(minutes=10)
    calls = [await tenant.open(future), await tenant.open(future)]
    await tenant.close(calls[0], future)

    export = await exports_of(server).begin(tenant.tenant_id, EntryFilter())

    exported = [each.entry_id async for page in export.pages for each in page]
    assert sorted(exported) == sorted(call.call_id for call in calls)


async def test_entry_is_exported_in_the_state_in_which_it_is_read(server: Server, tenant: Tenant) -> None:
    """A call that settles after the export has started and before its page is read is exported as settled."""
    call = await tenant.open(NOON)
    export = await exports_of(server).begin(tenant.tenant_id, EntryFilter())
    settled = await tenant.close(call, datetime.now(UTC), state=CallState.SETTLED)

    (entry,) = [each async for page in export.pages for each in page]

    assert isinstance(entry, ModelCall)
    assert (entry.call_id, entry.state, entry.cost) == (call.call_id, CallState.SETTLED, settled.cost)


async def test_export_continues_after_any_cut(server: Server, other: Server, tenant: Tenant) -> None:
    """The rest follows on any server, without what was inserted since."""
    chance = random.Random(12)
    for _ in range(3):
        await write_some(tenant, chance)
    export = await exports_of(server).begin(tenant.tenant_id, EntryFilter(), size=2)
    whole = [each async for page in export.pages for each in page]
    for cut in range(len(whole)):
        await write_some(tenant, chance)
        after = EntryCursor.of(whole[cut])
        rest = await exports_of(other).begin(
            tenant.tenant_id, EntryFilter(), as_of=export.as_of, after=after, size=chance.randint(1, 5)
        )
        found = [each.entry_id async for page in rest.pages for each in page]

        assert found == [each.entry_id for each in whole[cut + 1 :]]


async def test_cursor_continues_an_export(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """Of each response, also the first; the rest has the export's `as_of`, and no entry twice."""
    await served_tenant.settled([NOON + timedelta(milliseconds=each // 7) for each in range(1100)])
    biller = connect_billing(service)
    whole = await biller.export(end_time=timestamp(NOON + timedelta(days=1)))
    await served_tenant.settled([NOON] * 10)
    sizes = [len(each.entries) for each in whole]
    assert sizes == [0, 500, 500, 100]
    for number, response in enumerate(whole):
        rest = await biller.export(end_time=timestamp(NOON + timedelta(days=1)), cursor=response.cursor)

        assert rest[0].as_of == whole[0].as_of
        assert rest[0].cursor == response.cursor
        assert [entry_name(entry) for each in rest for entry in each.entries] == [
            entry_name(entry) for each in whole[number + 1 :] for entry in each.entries
        ]


async def test_cursor_of_another_export_is_refused(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """Of another range, of another tenant, of a list, and an invented one with a time in the future."""
    await served_tenant.settled([NOON] * 3)
    biller = connect_billing(service)
    cursor = (await biller.export())[-1].cursor
    listed = await biller.call("ListLedgerEntries", pb.ListLedgerEntriesRequest(page_size=1))
    query = ("export", service.tenant_id, repr(EntryFilter()))
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    refused: list[tuple[BillingCaller, dict[str, Any]]] = [
        (biller, {"cursor": cursor, "start_time": timestamp(NOON)}),
        (connect_billing(service.another_tenant()), {"cursor": cursor}),
        (biller, {"cursor": cursor[:-3]}),
        (biller, {"cursor": listed.next_page_token}),
        *((biller, {"cursor": encode_token(query, forged)}) for forged in ([], [7], ["x"], [future, "x", 1, "y"])),
        (biller, {"cursor": encode_token(query, [NOON.isoformat(), NOON.isoformat(), "1", "y"])}),
    ]
    for who, fields in refused:
        failure = await failure_of(who.export(**fields))
        assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        assert list(failure.fields) == ["cursor"], fields
    failure = await failure_of(biller.export(cursor=encode_token(query, [future])))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_first_message_has_as_of(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """The first message, and no other, has `as_of`, also for a tenant without entries."""
    empty = await connect_billing(service).export()
    await served_tenant.open(NOON)
    begun = datetime.now(UTC)
    first, *rest = await connect_billing(service).export()

    assert [len(each.entries) for each in empty] == [0]
    assert empty[0].HasField("as_of")
    as_of = first.as_of.ToDatetime(tzinfo=UTC)
    assert begun - timedelta(minutes=1) < as_of < datetime.now(UTC) + timedelta(seconds=5)
    assert [each.HasField("as_of") for each in rest] == [False]
    assert sum(len(each.entries) for each in rest) == 1
