"""GetUsage over the wire: exact after each turn, by every group, and reproducible."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import grpc
import pytest
from godoty.v1 import billing_service_pb2 as pb

from godoty_service.budget import Budget, BudgetWindow
from godoty_service.metering.call import CallState
from godoty_service.rooms import open_rooms
from godoty_service.tenancy.policy import Policy
from godoty_service.tenancy.principal import Scope
from tests.billing.books import Tenant
from tests.billing.caller import Biller, timestamp
from tests.billing.conftest import Bill
from tests.service.caller import Caller, failure_of
from tests.service.service import Service, plain

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=60)
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


def _around_now() -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return now - timedelta(hours=1), now + timedelta(hours=1)


async def test_a_turn_is_in_the_next_answer(service: Service, caller: Caller, bill: Bill) -> None:
    """No sooner is a turn over than its cost, tokens and calls are in the sums, and they are the invoice's."""
    biller = bill(service)
    start, end = _around_now()
    assert (await biller.usage(start, end)).totals.cost_usd == "0"
    for number in range(1, 4):
        await caller.converse("hello", user="ann")
        answer = await biller.usage(start, end, "session")

        assert answer.totals.cost_usd == plain(service.invoiced("talk"))
        assert answer.totals.turns == answer.totals.model_calls == number
        assert answer.totals == (await caller.metrics()).totals
        assert [(list(row.keys), row.totals) for row in answer.rows] == [(["talk"], answer.totals)]
    by_user = await biller.usage(start, end, "user", "agent")
    assert [list(row.keys) for row in by_user.rows] == [["ann", "assistant"]]


async def test_days_are_as_long_as_the_zone_says(service: Service, served: Tenant, bill: Bill) -> None:
    """Berlin's 29 March has 23 hours: an entry at 22:30 UTC the day before is in it, one at 22:00 UTC is not."""
    times = [
        datetime(2026, 3, 28, 22, 59, tzinfo=UTC),
        datetime(2026, 3, 28, 23, 0, tzinfo=UTC),
        datetime(2026, 3, 29, 21, 59, tzinfo=UTC),
        datetime(2026, 3, 29, 22, 0, tzinfo=UTC),
    ]
    for time in times:
        await served.open(time)
    answer = await bill(service).usage(START, END, "day", time_zone="Europe/Berlin")

    assert [(row.keys[0], row.totals.pending_calls) for row in answer.rows] == [
        ("2026-03-28T00:00:00+01:00", 1),
        ("2026-03-29T00:00:00+01:00", 2),
        ("2026-03-30T00:00:00+02:00", 1),
    ]
    assert [row.keys[0] for row in (await bill(service).usage(START, END, "month")).rows] == [
        "2026-03-01T00:00:00+00:00"
    ]


async def test_the_hour_that_clocks_repeat_is_two(service: Service, served: Tenant, bill: Bill) -> None:
    """In Berlin, 02:30 on 25 October happens twice; the rows are in the order of time, not of text."""
    for hour in (0, 1):
        await served.open(datetime(2026, 10, 25, hour, 30, tzinfo=UTC))
    middle = datetime(2026, 10, 25, tzinfo=UTC)
    answer = await bill(service).usage(middle, middle + timedelta(days=1), "hour", time_zone="Europe/Berlin")

    assert [row.keys[0] for row in answer.rows] == ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]


async def test_a_statement_stays_what_it_was(service: Service, served: Tenant, bill: Bill) -> None:
    """What is settled or adjusted after a statement is told apart from it; it belongs to the call's period."""
    biller = bill(service)
    given_up = await served.open(NOON)
    given_up = await served.close(given_up, NOON, state=CallState.UNRESOLVED)
    still_open = await served.open(NOON)
    statement = await biller.usage(START, END, "day", "model")
    settled = await served.close(still_open, NOON, state=CallState.SETTLED)  # by a clock that is months slow
    adjustment = await served.adjust(given_up, datetime.now(UTC))
    again = await biller.usage(START, END, "day", "model", as_of=statement.as_of)
    now = await biller.usage(START, END, "day", "model")

    assert (statement.totals.pending_calls, statement.totals.unresolved_calls) == (1, 1)
    assert not statement.HasField("adjusted_later_usd")
    assert (again.rows, again.totals, again.as_of) == (statement.rows, statement.totals, statement.as_of)
    assert Decimal(again.adjusted_later_usd) == (settled.cost or 0) + adjustment.cost
    assert (now.totals.pending_calls, now.totals.unresolved_calls) == (0, 0)
    assert Decimal(now.totals.cost_usd) == (settled.cost or 0) + adjustment.cost
    assert (await biller.usage(END, END + timedelta(days=300))).totals.cost_usd == "0"


async def test_as_of_names_any_time_there_was(service: Service, served: Tenant, bill: Bill) -> None:
    """Without a statement in between, what was settled before a time is known at it, what later is not."""
    biller = bill(service)
    now = datetime.now(UTC).replace(microsecond=0)
    for minutes in (30, 20, 10):
        call = await served.open(now - timedelta(hours=2))
        await served.close(call, now - timedelta(minutes=minutes), state=CallState.SETTLED)
    shown = [
        await biller.usage(now - timedelta(days=1), now, as_of=timestamp(now - timedelta(minutes=minutes)))
        for minutes in (31, 30, 20, 15, 1)
    ]

    assert [(each.totals.model_calls, each.totals.pending_calls) for each in shown] == [
        (3, 3), (3, 2), (3, 1), (3, 1), (3, 0)
    ]  # fmt: skip
    sums = {Decimal(each.totals.cost_usd) + Decimal(each.adjusted_later_usd) for each in shown}
    assert len(sums) == 1


async def test_a_range_is_exact_below_the_millisecond(service: Service, served: Tenant, bill: Bill) -> None:
    """An entry at a range's start is in it, one a nanosecond before is not; at its end, the other way round."""
    await served.open(NOON)
    at, after, later = ({"seconds": int(NOON.timestamp()), "nanos": nanos} for nanos in (0, 1, 2_000_000))
    before = {"seconds": int(NOON.timestamp()) - 1, "nanos": 999_999_999}
    for start, end, calls in ((at, after, 1), (after, later, 0), (before, at, 0), (before, after, 1), (at, later, 1)):
        found = await bill(service).call("GetUsage", pb.GetUsageRequest(start_time=start, end_time=end))
        listed = await bill(service).all_entries(start_time=start, end_time=end)
        assert (found.totals.model_calls, len(listed)) == (calls, calls)


REFUSED = {
    "start_time": {"start_time": None},
    "end_time": {"end_time": timestamp(START)},
    "group_by": {"group_by": [pb.USAGE_GROUP_MODEL, pb.USAGE_GROUP_MODEL]},
    "time_zone": {"time_zone": "Europe/Bonn"},
    "as_of": {"as_of": timestamp(datetime(2100, 1, 1, tzinfo=UTC))},
}
ALSO_REFUSED = [
    ("end_time", {"end_time": None}),
    ("end_time", {"end_time": timestamp(START + timedelta(days=400, milliseconds=1))}),
    ("group_by", {"group_by": [pb.USAGE_GROUP_UNSPECIFIED]}),
    ("group_by", {"group_by": [99]}),
    ("group_by", {"group_by": [pb.USAGE_GROUP_DAY, pb.USAGE_GROUP_HOUR]}),
    ("group_by", {"group_by": [pb.USAGE_GROUP_USER, pb.USAGE_GROUP_AGENT, pb.USAGE_GROUP_MODEL]}),
    ("time_zone", {"time_zone": "../../etc/passwd"}),
    ("time_zone", {"time_zone": "Europe"}),
    ("time_zone", {"time_zone": "Berlin\0"}),
    ("start_time", {"start_time": {"seconds": 2**62}}),
    ("end_time", {"end_time": {"seconds": 1, "nanos": -5}}),
    ("as_of", {"as_of": {"seconds": -(2**62)}}),
]


@pytest.mark.parametrize(("field", "changes"), [*REFUSED.items(), *ALSO_REFUSED])
async def test_what_makes_no_sense_is_refused(
    service: Service, bill: Bill, field: str, changes: dict[str, object]
) -> None:
    """INVALID_ARGUMENT, and the field is named."""
    fields: dict[str, Any] = {"start_time": timestamp(START), "end_time": timestamp(END), **changes}
    request = pb.GetUsageRequest(**{name: each for name, each in fields.items() if each is not None})
    failure = await failure_of(bill(service).call("GetUsage", request))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert field in failure.fields


async def test_the_longest_range_and_the_finest_times_are_taken(service: Service, bill: Bill) -> None:
    """400 days, nanoseconds, and years in which there was no ledger."""
    biller = bill(service)
    request = pb.GetUsageRequest(start_time={"seconds": 0, "nanos": 1}, end_time={"seconds": 0, "nanos": 2})
    assert not (await biller.call("GetUsage", request)).rows
    assert not (await biller.usage(START, START + timedelta(days=400), "hour", "model", "agent")).rows
    first = datetime(1, 1, 1, tzinfo=UTC)
    assert not (await biller.usage(first, first + timedelta(days=1), "month", time_zone="Asia/Kathmandu")).rows
    last = datetime(9999, 12, 31, 23, tzinfo=UTC)
    assert not (await biller.usage(last - timedelta(days=1), last, "day", time_zone="Pacific/Apia")).rows


async def _asks(biller: Biller, tenant_id: str) -> list[object]:
    return [
        biller.usage(START, END, tenant_id=tenant_id),
        biller.call("ListLedgerEntries", pb.ListLedgerEntriesRequest(tenant_id=tenant_id)),
        biller.export(tenant_id=tenant_id),
        biller.call("GetBudget", pb.GetBudgetRequest(tenant_id=tenant_id)),
    ]


async def test_a_tenant_sees_its_own_alone(service: Service, served: Tenant, bill: Bill) -> None:
    """Another tenant's id is NOT_FOUND as an invented one is; an admin's key may name both, and learns the same."""
    await served.open(NOON)
    other = service.another_tenant()
    for asked in (service.tenant_id, "tnt_invented", '{"$ne": ""}'):
        for call in await _asks(bill(other), asked):
            failure = await failure_of(call)  # type: ignore[arg-type] # each is awaitable
            assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND")
    assert not (await bill(other).usage(START, END)).rows
    assert not await bill(other).all_entries()
    admin = bill(other, Scope.ADMIN)
    assert (await admin.usage(START, END, tenant_id=service.tenant_id)).totals.pending_calls == 1
    assert len(await admin.all_entries(tenant_id=service.tenant_id)) == 1
    assert (await failure_of(admin.usage(START, END, tenant_id="tnt_invented"))).code is grpc.StatusCode.NOT_FOUND
    assert not (await admin.usage(START, END)).rows
    named = await bill(service).usage(START, END, tenant_id=service.tenant_id)
    assert named.totals.pending_calls == 1, "one's own may be named"


async def test_the_scope_is_needed(service: Service, bill: Bill) -> None:
    """A key that may only converse is refused by each method."""
    for call in await _asks(bill(service, Scope.CONVERSE), ""):
        failure = await failure_of(call)  # type: ignore[arg-type] # each is awaitable
        assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
        assert failure.metadata["scope"] == "billing"


async def test_budgets_are_told(service: Service, caller: Caller, bill: Bill) -> None:
    """What a turn cost is spent in each window, nothing is reserved after it, and windows begin in UTC."""
    budgets = [
        Budget(window=BudgetWindow.DAY, limit=Decimal("12.50"), hard=True),
        Budget(window=BudgetWindow.TOTAL, limit=Decimal(1000), hard=False),
    ]
    await _set_budgets(service, budgets)
    await asyncio.sleep(5)  # every server knows of a policy by then
    await caller.converse("hello")
    found = await bill(service).call("GetBudget", pb.GetBudgetRequest())
    day, total = found.budgets

    assert (day.window, day.limit_usd, day.hard) == (pb.BUDGET_WINDOW_DAY, "12.5", True)
    assert (total.window, total.limit_usd, total.hard) == (pb.BUDGET_WINDOW_TOTAL, "1000", False)
    assert day.spent_usd == total.spent_usd == plain(service.invoiced("talk")) != "0"
    assert day.reserved_usd == total.reserved_usd == "0"
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert day.window_start_time.ToDatetime(tzinfo=UTC) == midnight
    assert not total.HasField("window_start_time")


async def _set_budgets(service: Service, budgets: list[Budget]) -> None:
    async with open_rooms(service.surroundings.settings(service.database.name)) as rooms:
        await rooms.administration.set_policy("me", service.tenant_id, Policy(budgets=tuple(budgets)))


async def test_a_tenant_without_budgets_has_none(service: Service, bill: Bill) -> None:
    """An empty list, not an error."""
    assert not (await bill(service).call("GetBudget", pb.GetBudgetRequest())).budgets
