"""Sums that are read from the entries one by one: in bounded pieces, and in pages of one consistent report."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from godoty_service.errors import InvalidRequest
from godoty_service.ledger.states import CallState
from godoty_service.mongo.client import Database
from godoty_service.usage.calendar import TimeGroup
from godoty_service.usage.entry_scan import ScanLimits
from godoty_service.usage.grouping import NamedGroup
from godoty_service.usage.query import Page, UsageRow
from tests.conftest import LONG
from tests.integration.billing.caller import keys_of, timestamp
from tests.integration.billing.conftest import ConnectBilling
from tests.integration.billing.harness import Server, Tenant, report_sums, scan, usage_query
from tests.support.caller import failure_of
from tests.support.service import Service

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
MONTH = (datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC))
PIECE = 7  # of the servers that tests start
MANY = 600_000 if LONG else 2_000
MANY_PIECE = MANY // 30  # entries


async def test_each_operation_sums_a_bounded_number_of_entries(
    server: Server, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also entries with the same start and number; together they equal a scan of all entries."""
    await tenant.settled([NOON] * 40 + [NOON + timedelta(days=1)] * 40)
    for minute in range(9):
        await tenant.open(NOON + timedelta(minutes=minute))
    sizes: list[int] = []
    aggregate = server.entries.aggregate

    async def watched(pipeline: Any) -> Any:
        found = await aggregate(pipeline)
        sizes.append(sum(each["entries"] for each in found))
        return found

    monkeypatch.setattr(server.entries, "aggregate", watched)
    query = usage_query(*MONTH, NamedGroup.SESSION, TimeGroup.DAY)
    report = await server.query.run(tenant.tenant_id, query)

    assert report_sums(report) == scan(await tenant.documents(), query)
    assert report.totals.model_calls == sum(sizes) == 89
    assert max(sizes) == PIECE


async def test_more_entries_than_the_limit_are_refused_before_they_are_summed(
    database: Database, server: Server, tenant: Tenant
) -> None:
    """The error has the limit and what to narrow; a shorter range works, and so do sums of roll-ups."""
    await tenant.settled([NOON + timedelta(days=day) for day in range(20)])
    small = Server(database, "small", limits=ScanLimits(piece=PIECE, entries=10))
    for group in (NamedGroup.SESSION, NamedGroup.USER):
        with pytest.raises(InvalidRequest) as refused:
            await small.query.run(tenant.tenant_id, usage_query(*MONTH, group))
        assert [each.field for each in refused.value.violations] == ["end_time"]
        assert "more than 10 entries" in str(refused.value)
        shorter = usage_query(MONTH[0], NOON + timedelta(days=5), group)
        assert (await small.query.run(tenant.tenant_id, shorter)).totals.model_calls == 5
    assert (await small.query.run(tenant.tenant_id, usage_query(*MONTH, NamedGroup.MODEL))).totals.model_calls == 20


@pytest.mark.parametrize(
    "groups",
    [
        (NamedGroup.SESSION,),
        (TimeGroup.DAY, NamedGroup.SESSION),
        (NamedGroup.USER, NamedGroup.MODEL),
        (TimeGroup.HOUR,),
    ],
)
@pytest.mark.parametrize("size", [1, 4, 1000])
async def test_pages_together_are_the_whole_report(
    server: Server, other: Server, tenant: Tenant, groups: tuple[Any, ...], size: int
) -> None:
    """Each row once and in order, with the same totals on each page, also if entries are written between two pages."""
    for number in range(30):
        call = await tenant.open(NOON + timedelta(hours=number), session_id=f"s{number % 11}", user=f"u{number % 5}ü")
        if number % 3:
            await tenant.close(call, NOON + timedelta(days=9))
    query = usage_query(*MONTH, *groups)
    whole = await server.query.run(tenant.tenant_id, query)
    rows: list[UsageRow] = []
    page = await server.query.run(tenant.tenant_id, query, Page(size=size))
    assert page.as_of == whole.as_of
    pages = 1
    while True:
        rows += page.rows
        assert (page.totals, page.as_of) == (whole.totals, whole.as_of)
        assert len(page.rows) <= size
        if page.end is None:
            break
        pages += 1
        open_calls = [each for each in tenant.calls.values() if each.state is CallState.PENDING]
        if open_calls:
            await tenant.close(open_calls[0], datetime.now(UTC))
        await tenant.open(NOON, session_id="new")
        await other.query.run(tenant.tenant_id, query)
        again = replace(query, as_of=whole.as_of)
        page = await server.query.run(tenant.tenant_id, again, Page(size=size, after=page.end))

    assert tuple(rows) == whole.rows
    assert pages >= len(whole.rows) // size


async def test_pages_over_grpc(service: Service, served_tenant: Tenant, connect_billing: ConnectBilling) -> None:
    """A token has the first page's `as_of` and belongs to its query; another query's or a forged one is refused."""
    for number in range(7):
        await served_tenant.open(NOON, session_id=f"s{number}ü")
    biller = connect_billing(service)
    first = await biller.usage(*MONTH, "session", page_size=3)
    await served_tenant.open(NOON, session_id="s0")
    keys, page = keys_of(first), first
    while page.next_page_token:
        page = await biller.usage(*MONTH, "session", page_size=3, page_token=page.next_page_token)
        keys += keys_of(page)
        assert (page.totals, page.as_of) == (first.totals, first.as_of)
        assert not page.HasField("adjusted_later_usd")
    assert keys == [(f"s{number}ü",) for number in range(7)]

    token = first.next_page_token
    others: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (("user",), {}),
        (("session",), {"time_zone": "Europe/Berlin"}),
        (("session",), {"as_of": timestamp(NOON)}),
    ]
    for groups, fields in others:
        failure = await failure_of(biller.usage(*MONTH, *groups, page_token=token, **fields))
        assert (failure.code, list(failure.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"])
    failure = await failure_of(biller.usage(*MONTH, "session", page_token=token[:-4] + "AAAA"))
    assert list(failure.fields) == ["page_token"]
    failure = await failure_of(biller.usage(*MONTH, "session", page_size=-1))
    assert list(failure.fields) == ["page_size"]


async def test_hundreds_of_thousands_of_entries_are_reported(database: Database, tenant: Tenant) -> None:
    """By session and by user, in pieces: none has more entries than can be read within the storage timeout."""
    server = Server(database, "large", limits=ScanLimits(piece=MANY_PIECE, entries=2_000_000))
    for start in range(0, MANY, 20_000):
        count = min(20_000, MANY - start)
        await tenant.settled(
            [NOON + timedelta(seconds=number) for number in range(start, start + count)], rolled_up=True
        )
    reads = 0
    aggregate = server.entries.aggregate

    async def counted(pipeline: Any) -> Any:
        nonlocal reads
        reads += 1
        return await aggregate(pipeline)

    server.entries.aggregate = counted  # type: ignore[method-assign] # a watch
    for group, rows in ((NamedGroup.USER, 1), (NamedGroup.SESSION, 1000)):
        reads = 0
        report = await server.query.run(tenant.tenant_id, usage_query(*MONTH, group), Page(size=1000))
        assert (report.totals.model_calls, len(report.rows)) == (MANY, rows)
        assert reads >= MANY / MANY_PIECE
