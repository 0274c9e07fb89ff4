"""GetUsage over gRPC: exact after each turn, by every group, and repeatable."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import grpc
import pytest
from godoty.v1 import billing_service_pb2 as pb
from godoty.v1 import budget_pb2

from godoty_service.bootstrap.components import open_components
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.ledger.states import CallState
from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.policies import Policy, PolicyChange
from tests.integration.billing.caller import BillingCaller, keys_of, timestamp
from tests.integration.billing.conftest import ConnectBilling
from tests.integration.billing.harness import Tenant
from tests.support.backends import ME
from tests.support.caller import Caller, failure_of
from tests.support.service import Service, eventually, format_amount

START = datetime(2026, 3, 1, tzinfo=UTC)
END = START + timedelta(days=60)
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


def _around_now() -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return now - timedelta(hours=1), now + timedelta(hours=1)


async def test_finished_turn_is_in_the_next_report(
    service: Service, caller: Caller, connect_billing: ConnectBilling
) -> None:
    """As soon as a turn is over, its cost, tokens and calls are in the sums, and equal the invoice."""
    biller = connect_billing(service)
    start, end = _around_now()
    assert (await biller.usage(start, end)).totals.cost_usd == "0"
    for number in range(1, 4):
        await caller.converse("hello", user="ann")
        answer = await biller.usage(start, end, "session")

        assert answer.totals.cost_usd == format_amount(service.invoiced("talk"))
        assert answer.totals.turns == answer.totals.model_calls == number
        assert answer.totals == (await caller.metrics()).totals
        assert keys_of(answer) == [("talk",)]
        assert [row.totals for row in answer.rows] == [answer.totals]
    by_user = await biller.usage(start, end, "user", "agent")
    assert keys_of(by_user) == [("ann", "assistant")]


async def test_days_have_the_length_of_the_zone(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """Berlin's 29 March has 23 hours: an entry at 22:30 UTC the day before is in it, one at 22:00 UTC is not."""
    times = [
        datetime(2026, 3, 28, 22, 59, tzinfo=UTC),
        datetime(2026, 3, 28, 23, 0, tzinfo=UTC),
        datetime(2026, 3, 29, 21, 59, tzinfo=UTC),
        datetime(2026, 3, 29, 22, 0, tzinfo=UTC),
    ]
    for time in times:
        await served_tenant.open(time)
    answer = await connect_billing(service).usage(START, END, "day", time_zone="Europe/Berlin")

    pending = [row.totals.pending_calls for row in answer.rows]
    assert [(key, count) for (key,), count in zip(keys_of(answer), pending, strict=True)] == [
        ("2026-03-28T00:00:00+01:00", 1),
        ("2026-03-29T00:00:00+01:00", 2),
        ("2026-03-30T00:00:00+02:00", 1),
    ]
    assert answer.time_zone == "Europe/Berlin"
    months = await connect_billing(service).usage(START, END, "month")
    assert (months.time_zone, keys_of(months)) == ("UTC", [("2026-03-01T00:00:00+00:00",)])


async def test_repeated_hour_is_two_groups(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """In Berlin, 02:30 on 25 October happens twice; the rows are ordered by time, not by text."""
    for hour in (0, 1):
        await served_tenant.open(datetime(2026, 10, 25, hour, 30, tzinfo=UTC))
    middle = datetime(2026, 10, 25, tzinfo=UTC)
    answer = await connect_billing(service).usage(middle, middle + timedelta(days=1), "hour", time_zone="Europe/Berlin")

    assert keys_of(answer) == [("2026-10-25T02:00:00+02:00",), ("2026-10-25T02:00:00+01:00",)]


async def test_keys_have_the_field_of_their_group(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """In the order of the request; entries without a value have an unset key."""
    await served_tenant.open(
        NOON, user=None, api_key_id=None, requested_model="a/one", requested_id=None, agent="clerk"
    )
    await served_tenant.open(NOON, user="ann", api_key_id="key-1", session_id="talk")
    biller = connect_billing(service)
    day = pb.UsageKey(time=timestamp(NOON.replace(hour=0)))

    async def keys(*groups: str) -> list[list[pb.UsageKey]]:
        return [list(row.keys) for row in (await biller.usage(START, END, *groups)).rows]

    nothing, named = pb.UsageKey(), await keys("user")
    assert named == [[nothing], [pb.UsageKey(user="ann", user_reference=named[1][0].user_reference)]]
    assert re.fullmatch("user_[0-9a-f]{28}", named[1][0].user_reference)
    assert await keys("user", "day", "api_key") == [
        [nothing, day, nothing],
        [*named[1], day, pb.UsageKey(api_key_id="key-1")],
    ]
    assert [pb.UsageKey(model="a/one"), nothing] in await keys("model", "provider")
    assert [pb.UsageKey(agent="clerk")] in await keys("agent")
    assert [pb.UsageKey(session_id="talk")] in await keys("session")


async def test_report_with_the_same_as_of_does_not_change(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """Later settlements and adjustments are reported separately; they belong to the call's period."""
    biller = connect_billing(service)
    given_up = await served_tenant.open(NOON)
    given_up = await served_tenant.close(given_up, NOON, state=CallState.UNRESOLVED)
    still_open = await served_tenant.open(NOON)
    statement = await biller.usage(START, END, "day", "model")
    settled = await served_tenant.close(still_open, NOON, state=CallState.SETTLED)  # by a clock that is months slow
    adjustment = await served_tenant.adjust(given_up, datetime.now(UTC))
    again = await biller.usage(START, END, "day", "model", as_of=statement.as_of)
    now = await biller.usage(START, END, "day", "model")

    assert (statement.totals.pending_calls, statement.totals.unresolved_calls) == (1, 1)
    assert not statement.HasField("adjusted_later_usd")
    assert (again.rows, again.totals, again.as_of) == (statement.rows, statement.totals, statement.as_of)
    assert Decimal(again.adjusted_later_usd) == (settled.cost or 0) + adjustment.cost
    assert (now.totals.pending_calls, now.totals.unresolved_calls) == (0, 0)
    assert Decimal(now.totals.cost_usd) == (settled.cost or 0) + adjustment.cost
    assert (await biller.usage(END, END + timedelta(days=300))).totals.cost_usd == "0"


async def test_as_of_may_be_any_past_time(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """Also without a report at that time: what was settled before it is included, what later is not."""
    biller = connect_billing(service)
    now = datetime.now(UTC).replace(microsecond=0)
    for minutes in (30, 20, 10):
        call = await served_tenant.open(now - timedelta(hours=2))
        await served_tenant.close(call, now - timedelta(minutes=minutes), state=CallState.SETTLED)
    report_sums = [
        await biller.usage(now - timedelta(days=1), now, as_of=timestamp(now - timedelta(minutes=minutes)))
        for minutes in (31, 30, 20, 15, 1)
    ]

    assert [(each.totals.model_calls, each.totals.pending_calls) for each in report_sums] == [
        (3, 3), (3, 2), (3, 1), (3, 1), (3, 0)
    ]  # fmt: skip
    sums = {Decimal(each.totals.cost_usd) + Decimal(each.adjusted_later_usd) for each in report_sums}
    assert len(sums) == 1


async def test_range_is_exact_below_the_millisecond(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """An entry at a range's start is included, one a nanosecond before is not; at its end, the reverse."""
    await served_tenant.open(NOON)
    at, after, later = ({"seconds": int(NOON.timestamp()), "nanos": nanos} for nanos in (0, 1, 2_000_000))
    before = {"seconds": int(NOON.timestamp()) - 1, "nanos": 999_999_999}
    for start, end, calls in ((at, after, 1), (after, later, 0), (before, at, 0), (before, after, 1), (at, later, 1)):
        found = await connect_billing(service).call("GetUsage", pb.GetUsageRequest(start_time=start, end_time=end))
        listed = await connect_billing(service).all_entries(start_time=start, end_time=end)
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
async def test_invalid_request_is_refused(
    service: Service, connect_billing: ConnectBilling, field: str, changes: dict[str, object]
) -> None:
    """INVALID_ARGUMENT with the field."""
    fields: dict[str, Any] = {"start_time": timestamp(START), "end_time": timestamp(END), **changes}
    request = pb.GetUsageRequest(**{name: each for name, each in fields.items() if each is not None})
    failure = await failure_of(connect_billing(service).call("GetUsage", request))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert field in failure.fields


async def test_longest_range_and_finest_times_are_accepted(service: Service, connect_billing: ConnectBilling) -> None:
    """400 days, nanoseconds, and years without a ledger."""
    biller = connect_billing(service)
    request = pb.GetUsageRequest(start_time={"seconds": 0, "nanos": 1}, end_time={"seconds": 0, "nanos": 2})
    assert not (await biller.call("GetUsage", request)).rows
    assert not (await biller.usage(START, START + timedelta(days=400), "hour", "model", "agent")).rows
    first = datetime(1, 1, 1, tzinfo=UTC)
    assert not (await biller.usage(first, first + timedelta(days=1), "month", time_zone="Asia/Kathmandu")).rows
    last = datetime(9999, 12, 31, 23, tzinfo=UTC)
    assert not (await biller.usage(last - timedelta(days=1), last, "day", time_zone="Pacific/Apia")).rows


async def _asks(biller: BillingCaller, tenant_id: str) -> list[object]:
    return [
        biller.usage(START, END, tenant_id=tenant_id),
        biller.call("ListLedgerEntries", pb.ListLedgerEntriesRequest(tenant_id=tenant_id)),
        biller.export(tenant_id=tenant_id),
        biller.call("GetBudget", pb.GetBudgetRequest(tenant_id=tenant_id)),
    ]


async def test_tenant_sees_only_its_own_usage(
    service: Service, served_tenant: Tenant, connect_billing: ConnectBilling
) -> None:
    """Another tenant's id is NOT_FOUND like an invented one; an admin's key may name both, with the same result."""
    await served_tenant.open(NOON)
    other = service.another_tenant()
    for named_id in (service.tenant_id, "tnt_invented", '{"$ne": ""}'):
        for call in await _asks(connect_billing(other), named_id):
            failure = await failure_of(call)  # type: ignore[arg-type] # each is awaitable
            assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "TENANT_NOT_FOUND")
    assert not (await connect_billing(other).usage(START, END)).rows
    assert not await connect_billing(other).all_entries()
    admin = connect_billing(other, Scope.ADMIN)
    assert (await admin.usage(START, END, tenant_id=service.tenant_id)).totals.pending_calls == 1
    assert len(await admin.all_entries(tenant_id=service.tenant_id)) == 1
    assert (await failure_of(admin.usage(START, END, tenant_id="tnt_invented"))).code is grpc.StatusCode.NOT_FOUND
    assert not (await admin.usage(START, END)).rows
    named = await connect_billing(service).usage(START, END, tenant_id=service.tenant_id)
    assert named.totals.pending_calls == 1, "one's own may be named"


async def test_missing_scope_is_refused(service: Service, connect_billing: ConnectBilling) -> None:
    """A key that may only converse is refused by each method."""
    for call in await _asks(connect_billing(service, Scope.CONVERSE), ""):
        failure = await failure_of(call)  # type: ignore[arg-type] # each is awaitable
        assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
        assert failure.metadata["scope"] == "billing"


async def test_budget_status_is_returned(service: Service, caller: Caller, connect_billing: ConnectBilling) -> None:
    """The cost of a turn is spent in each window, nothing is reserved after it, and windows begin in UTC."""
    budgets = [
        Budget(window=BudgetWindow.DAY, limit=Decimal("12.50"), hard=True),
        Budget(window=BudgetWindow.TOTAL, limit=Decimal(1000), hard=False),
    ]
    await _set_budgets(service, budgets)
    assert (await caller.converse("hello")).finished
    biller = connect_billing(service)

    async def charged() -> Any:
        found = await biller.call("GetBudget", pb.GetBudgetRequest())
        return None if "0" in {each.spent_usd for each in found.budgets} else found

    day, total = (await eventually(charged)).budgets

    assert (day.window, day.limit_usd, day.hard) == (budget_pb2.BUDGET_WINDOW_DAY, "12.5", True)
    assert (total.window, total.limit_usd, total.hard) == (budget_pb2.BUDGET_WINDOW_TOTAL, "1000", False)
    assert day.spent_usd == total.spent_usd == format_amount(service.invoiced("talk")) != "0"
    assert day.reserved_usd == total.reserved_usd == "0"
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert day.window_start_time.ToDatetime(tzinfo=UTC) == midnight
    assert not total.HasField("window_start_time")


async def _set_budgets(service: Service, budgets: list[Budget]) -> None:
    async with open_components(service.backends.settings(service.database.name), indexes=False) as components:
        await components.administration.update_policy(
            ME, service.tenant_id, PolicyChange(policy=Policy(budgets=tuple(budgets)))
        )


async def test_tenant_without_budgets_gets_an_empty_list(service: Service, connect_billing: ConnectBilling) -> None:
    """Not an error."""
    assert not (await connect_billing(service).call("GetBudget", pb.GetBudgetRequest())).budgets
