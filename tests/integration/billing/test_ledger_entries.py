"""ListLedgerEntries and ExportLedger: each entry once, in order, in constant memory."""

import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
from godoty.v1 import billing_service_pb2 as pb
from godoty.v1 import ledger_pb2, metering_pb2
from pymongo import MongoClient

from godoty_service.ids import new_id
from godoty_service.ledger.codec import entry_to_document
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.states import CallState
from godoty_service.mongo.client import open_database
from godoty_service.pricing import money
from godoty_service.usage.ledger_pages import EntryFilter, LedgerPages
from tests.conftest import StartProcess
from tests.integration.billing.caller import BillingCaller, entry_name, timestamp
from tests.integration.billing.conftest import ConnectBilling
from tests.integration.billing.harness import Server, Tenant
from tests.support.caller import Caller, failure_of
from tests.support.service import Service, eventually

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
EXPORTED = 30_000


async def _fill(tenant: Tenant, calls: int) -> None:
    for number in range(calls):
        call = await tenant.open(NOON + timedelta(milliseconds=number // 7))  # several start at once
        if number % 5:
            closed = await tenant.close(call, NOON)
            if closed.state is CallState.UNRESOLVED:
                await tenant.adjust(closed, NOON + timedelta(days=90))


def _started(tenant: Tenant, entry: ledger_pb2.LedgerEntry) -> datetime:
    """Return the start of an entry's call."""
    return tenant.calls[entry.call.call_id or entry.adjustment.call_id].start_time


async def test_pages_have_each_entry_once_oldest_first(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """Adjustments follow their calls, with any page size."""
    await _fill(served_tenant, 60)
    everything = {each["_id"] for each in await served_tenant.documents()}
    assert any(each.startswith("adj") for each in everything)
    for size in (1, 7, 500, 0):
        found = await connect_billing(service).all_entries(page_size=size)

        assert len(found) == len(everything)
        assert {entry_name(each) for each in found} == everything
        assert [_started(served_tenant, each) for each in found] == sorted(
            _started(served_tenant, each) for each in found
        )
    names = [entry_name(each) for each in found]
    for each in found:
        if each.HasField("adjustment"):
            assert names.index(each.adjustment.call_id) < names.index(each.adjustment.adjustment_id)
            assert each.adjustment.why == "a test"
    exported = await connect_billing(service).export()
    assert [entry_name(each) for page in exported for each in page.entries] == names


async def _named_documents(tenant: Tenant) -> list[dict[str, Any]]:
    """Return a tenant's entries with the names that the server has replaced by references."""

    async def replaced() -> list[dict[str, Any]]:
        documents = await tenant.documents()
        return [] if any("user" in each for each in documents) else documents

    documents = await eventually(replaced)
    names = {
        each["_id"]: each["name"]
        for each in await tenant.database.collection("users").find({"tenant_id": tenant.tenant_id})
    }
    return [each | ({"user": names[each["user_reference"]]} if "user_reference" in each else {}) for each in documents]


async def test_entries_match_each_filter(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """Time, session, turn, user, API key, model and state, alone and together, as in a scan."""
    await _fill(served_tenant, 60)
    billing = connect_billing(service)
    documents = await _named_documents(served_tenant)
    calls = {each["_id"]: each for each in documents if each["kind"] == "call"}

    def names(chosen: Any) -> set[str]:
        return {each["_id"] for each in documents if chosen(each, calls[each.get("corrects", each["_id"])])}

    async def found(**fields: Any) -> set[str]:
        return {entry_name(each) for each in await billing.all_entries(**fields)}

    assert await found(session_id="s2") == names(lambda each, _: each["session_id"] == "s2")
    assert await found(session_id="none") == set()
    for field in ("turn_id", "user", "api_key_id"):
        for value in {call[field] for call in calls.values() if field in call}:
            same = names(lambda each, _, field=field, value=value: each.get(field) == value)
            assert await found(**{field: value}) == same
        assert await found(**{field: f"turn_{'0' * 28}" if field == "turn_id" else "none"}) == set()
    for state in ("pending", "settled", "unresolved", "void"):
        wanted = metering_pb2.CallState.Value(f"CALL_STATE_{state.upper()}")
        assert await found(state=wanted) == names(lambda each, _, state=state: each.get("state") == state)
    for model in ("a/one", "c/four"):
        assert await found(model=model) == names(
            lambda _, call, model=model: (call.get("served_model") or call["requested_model"]) == model
        )
    start, end = NOON + timedelta(milliseconds=3), NOON + timedelta(milliseconds=6)
    within = names(lambda _, call: start <= call["start_time"] < end)
    assert await found(start_time=timestamp(start), end_time=timestamp(end)) == within
    exported = await billing.export(start_time=timestamp(start), end_time=timestamp(end))
    assert {entry_name(each) for page in exported for each in page.entries} == within
    assert await found(start_time=timestamp(start), session_id="s1", model="a/one") == names(
        lambda each, call: (
            call["start_time"] >= start
            and each["session_id"] == "s1"
            and (call.get("served_model") or call["requested_model"]) == "a/one"
        )
    )


async def test_list_as_of_a_time_does_not_change(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """Entries that are inserted between two pages are not in it; calls have their newest state."""
    await _fill(served_tenant, 20)
    before = {each["_id"] for each in await served_tenant.documents()}
    billing = connect_billing(service)
    now = (await billing.usage(NOON, NOON + timedelta(days=1))).as_of
    first = await billing.call("ListLedgerEntries", pb.ListLedgerEntriesRequest(as_of=now, page_size=5))
    await _fill(served_tenant, 20)
    pending = next(each for each in served_tenant.calls.values() if each.state is CallState.PENDING)
    await served_tenant.close(pending, NOON, state=CallState.SETTLED)
    rest = await billing.all_entries(as_of=now, page_size=5)

    assert [entry_name(each) for each in first.entries] == [entry_name(each) for each in rest[:5]]
    assert {entry_name(each) for each in rest} == before
    assert next(each for each in rest if each.call.call_id == pending.call_id).call.state == (
        metering_pb2.CALL_STATE_SETTLED
    )
    later = timestamp(datetime.now(UTC) + timedelta(hours=1))
    failure = await failure_of(billing.call("ListLedgerEntries", pb.ListLedgerEntriesRequest(as_of=later)))
    assert list(failure.fields) == ["as_of"]


async def test_page_ends_after_some_pieces(server: Server, tenant: Tenant) -> None:
    """A page of a filter with few matches reads a part of the ledger; the pages together have all matches."""
    await tenant.settled([NOON + timedelta(milliseconds=each // 3) for each in range(90)])
    rare = await tenant.open(NOON + timedelta(milliseconds=27), user="rare")
    pages = LedgerPages(server.database.collection("ledger"), users=server.users, piece=3)
    found: list[str] = []
    read, after = 0, None
    while read == 0 or after is not None:
        page = await pages.page(tenant.tenant_id, EntryFilter(user="rare"), after=after, limit=5)
        read, after = read + 1, page.end
        found += [each.entry_id for each in page.entries]
    streamed = [each async for each in pages.pages(tenant.tenant_id, EntryFilter(user="rare"), size=5)]

    assert found == [rare.call_id]
    assert read == 2, "20 pieces of 3 entries, and the rest"
    assert [[each.entry_id for each in page] for page in streamed] == [found]


async def test_filters_read_a_piece_an_operation(
    server: Server, tenant: Tenant, mongodb_uri: str, prepared_database: str
) -> None:
    """By the database's own count, no operation of a filtered page examines more entries than a piece."""
    await tenant.settled([NOON + timedelta(milliseconds=each // 3) for each in range(300)])
    database: Any = MongoClient(mongodb_uri)[prepared_database]
    database.command("profile", 2)
    pages = LedgerPages(server.database.collection("ledger"), users=server.users, piece=50)
    for which in (
        EntryFilter(user="none"),
        EntryFilter(api_key_id="none"),
        EntryFilter(model="none"),
        EntryFilter(state=CallState.VOID),
        EntryFilter(turn_id="none"),
        EntryFilter(session_id="none", user="none"),
        EntryFilter(visible_at=NOON - timedelta(days=1)),
    ):
        await pages.page(tenant.tenant_id, which, after=None, limit=10)
    database.command("profile", 0)
    examined = [each["docsExamined"] for each in database["system.profile"].find({"ns": f"{prepared_database}.ledger"})]

    assert len(examined) > 20
    assert max(examined) <= 50 + 2 * 3, "and those that start with the first and with the last of a piece"


async def test_call_has_its_agent_purpose_and_key(
    service: Service, caller: Caller, connect_billing: ConnectBilling
) -> None:
    """In the event of the turn and in the ledger; `settle_time` once the call is settled."""
    (finished,) = (await caller.converse("hello")).calls
    (entry,) = await connect_billing(service).all_entries(api_key_id=finished.api_key_id, turn_id=finished.turn_id)

    assert (finished.agent, finished.purpose) == ("assistant", metering_pb2.CALL_PURPOSE_AGENT)
    assert finished.api_key_id == service.key_id
    assert entry.call == finished
    assert finished.settle_time.ToDatetime(tzinfo=UTC) >= finished.start_time.ToDatetime(tzinfo=UTC)


async def test_entries_of_a_period_add_up_to_its_sums(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """Including adjustments that were made in later months."""
    await _fill(served_tenant, 60)
    end = NOON + timedelta(milliseconds=5)
    exported = await connect_billing(service).export(end_time=timestamp(end))
    entries = [each for page in exported for each in page.entries]
    costs = [each.adjustment.cost_usd or each.call.cost_usd or "0" for each in entries]
    usage = await connect_billing(service).usage(NOON, end)

    assert money.total(map(Decimal, costs)) == Decimal(usage.totals.cost_usd)
    assert {each.user for each in entries} == {"", "ann", "bob"}


async def test_foreign_page_token_is_refused(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """Of another query, of another tenant, and an invented one."""
    await _fill(served_tenant, 5)
    billing = connect_billing(service)
    first = await billing.call("ListLedgerEntries", pb.ListLedgerEntriesRequest(page_size=1))
    token = first.next_page_token
    assert token
    refused = [
        _page(billing, token, session_id="s1"),
        _page(connect_billing(service.another_tenant()), token),
        _page(billing, token[:-3]),
        billing.call("ListLedgerEntries", pb.ListLedgerEntriesRequest(page_size=-1)),
        billing.call("ListLedgerEntries", pb.ListLedgerEntriesRequest(state=17)),  # type: ignore[arg-type] # unknown
    ]
    for call in refused:
        assert (await failure_of(call)).code is grpc.StatusCode.INVALID_ARGUMENT


async def _page(billing: BillingCaller, token: str, **fields: Any) -> Any:
    return await billing.call("ListLedgerEntries", pb.ListLedgerEntriesRequest(page_token=token, **fields))


def _resident(process: int) -> int:
    """Return the resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _insert(tenant: Tenant, calls: int) -> None:
    """Insert entries faster than the ledger does."""
    made = await tenant.open(NOON)
    documents = [
        entry_to_document(
            replace(made, call_id=new_id("call"), number=number, start_time=NOON + timedelta(seconds=number // 3))
        )
        for number in range(2, calls + 1)
    ]
    for start in range(0, len(documents), 10_000):
        await tenant.database.collection("ledger").insert_many(documents[start : start + 10_000])


async def test_memory_of_an_export_is_constant(serve_process: StartProcess, connect_billing: ConnectBilling) -> None:
    """30,000 entries reach the caller, each once, at most 500 a message; the server grows by less than 20 MB."""
    process, service = await serve_process()
    database = open_database(uri=service.backends.mongodb_uri, name=service.database.name)
    tenant = Tenant(database, Ledger(database.collection("ledger")), random.Random(7))
    tenant.tenant_id = service.tenant_id
    await tenant.live()
    await _insert(tenant, EXPORTED)
    assert process.process is not None
    server = process.process.pid
    billing = connect_billing(service)
    await billing.export(end_time=timestamp(NOON + timedelta(seconds=1000)))  # warms up
    before = most = _resident(server)
    seen: set[str] = set()
    stream = billing.stub.ExportLedger(pb.ExportLedgerRequest(), metadata=billing._metadata, timeout=120)
    async for page in stream:
        assert len(page.entries) <= 500
        names = {entry_name(each) for each in page.entries}
        assert not names & seen
        seen |= names
        most = max(most, _resident(server))
    await database.close()

    assert len(seen) == EXPORTED
    assert most - before < 20_000_000, f"grew by {(most - before) / 1e6:.1f} MB"
