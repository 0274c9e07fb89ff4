"""What an entry adds to the roll-ups: its turn once, its tokens and its cost exactly, by its state."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from bson.decimal128 import Decimal128

from godoty_service.ledger.states import CURRENT_RULE, CallState
from godoty_service.ledger.totals import Totals
from godoty_service.pricing import money
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.usage.calendar import TimeGroup
from godoty_service.usage.grouping import NamedGroup
from tests.integration.billing.harness import Server, Tenant, report_sums, scan, usage_query
from tests.integration.billing.sample_day import DAY, NO_GROUP, NOON, fill


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
    await fill(tenant, 520)  # a batch has 500

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
