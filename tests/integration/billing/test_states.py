"""What a state counts is defined once: the sums in Python and in MongoDB, and all checks, follow one table."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from godoty_service.budgets.budget import BudgetWindow
from godoty_service.budgets.calendar import UTC_CALENDAR
from godoty_service.budgets.charges import call_charge
from godoty_service.budgets.entry_sums import DaySums, EntrySums
from godoty_service.errors import CallNotAdjustable
from godoty_service.ledger.adjustment_order import AdjustmentOrder, adjustment_of
from godoty_service.ledger.adjustment_verification import correction_faults
from godoty_service.ledger.call_totals import call_total
from godoty_service.ledger.entries import Adjustment, CostSource, ModelCall
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.states import CURRENT_RULE, RULES, CallState
from godoty_service.ledger.totals import SessionTotals, Totals, totals_of_entry
from godoty_service.mongo.client import Database
from godoty_service.pricing import money
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.turns.call_spans import sum_attributes
from godoty_service.usage.grouping import NamedGroup
from godoty_service.usage.ledger_pages import EntryFilter, LedgerPages
from godoty_service.users.references import UserReferences
from tests.integration.billing.harness import Server, Tenant, usage_query
from tests.integration.budgets.conftest import BOUND, BudgetHarness
from tests.support.additional_states import STATES as ADDITIONAL_STATES

REPOSITORY = Path(__file__).parents[3]
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = (NOON - timedelta(hours=12), NOON + timedelta(hours=12))
LATER = datetime(2200, 1, 1, tzinfo=UTC)
COST = Decimal("0.1")
# Whether they count is for the table to say.
KNOWN: dict[str, Any] = {
    "cost": COST,
    "cost_source": CostSource.BILLED,
    "usage": TokenUsage(input_tokens=7, output_tokens=2),
    "upper_bound": Decimal("0.5"),
}
each_rule = pytest.mark.parametrize("rule", RULES)
each_state = pytest.mark.parametrize("state", CallState)


async def _write(tenant: Tenant, state: CallState, rule: int) -> ModelCall:
    """Insert a call with all fields that a call in any state has; a final one is closed an hour later."""
    tenant.rules = (rule,)
    if RULES[rule][state].open:
        return await tenant.open(NOON, state=state, **KNOWN)
    call = await tenant.open(NOON, upper_bound=KNOWN["upper_bound"])
    closed = replace(call, state=state, settle_time=NOON + timedelta(hours=1), served_model="a/one", **KNOWN)
    assert await tenant.ledger.close(closed)
    return closed


@each_rule
@each_state
async def test_each_state_counts_the_same_in_python_and_in_mongodb(
    server: Server, tenant: Tenant, state: CallState, rule: int
) -> None:
    """Session totals, sums of roll-ups, sums of entries, and the sums of the ledger."""
    call = await _write(tenant, state, rule)
    row = RULES[rule][state]
    counted = replace(totals_of_entry(call), turns=int(row.turn))
    totals = SessionTotals().apply([call])
    assert totals.current() == counted
    assert [run.cost for run in totals.runs] == ([COST if row.cost else None] if row.call and not row.open else [])
    for group in (NamedGroup.MODEL, NamedGroup.SESSION):
        report = await server.query.run(tenant.tenant_id, usage_query(*DAY, group))
        assert report.totals == counted
    cost, pending, unresolved = await tenant.ledger.sum_of(provider_key_id="key", start=DAY[0], end=DAY[1])
    assert (cost, pending, unresolved) == (counted.cost, counted.pending_calls, counted.unresolved_calls)
    assert await tenant.ledger.count() == (counted.pending_calls, counted.unresolved_calls)
    assert await server.differences() == []


@each_rule
@each_state
async def test_call_was_pending_before_its_end(server: Server, tenant: Tenant, state: CallState, rule: int) -> None:
    """A report of a time before a call closed counts it as pending, and its cost as later, if that counts at all."""
    row = RULES[rule][state]
    await _write(tenant, state, rule)
    await server.query.run(tenant.tenant_id, usage_query(*DAY))

    query = usage_query(*DAY, NamedGroup.SESSION, as_of=NOON + timedelta(minutes=30))
    report = await server.query.run(tenant.tenant_id, query)

    assert report.totals == Totals(model_calls=1, pending_calls=1, turns=int(row.turn))
    assert report.later_cost == (COST if row.cost else 0)


@each_rule
@each_state
async def test_each_state_is_charged_the_same_in_python_and_in_mongodb(
    tenant: Tenant, state: CallState, rule: int
) -> None:
    """By summing entries in the database, and by reading their documents: charges and reservations."""
    call = await _write(tenant, state, rule)
    sums = EntrySums(tenant.database.collection("ledger"))
    by_database, by_document = DaySums(), DaySums()
    await sums.add_entries(by_database, tenant.tenant_id)
    await sums.add_calls(by_document, tenant.tenant_id, [call.call_id])

    for each in (by_database, by_document):
        statement = each.opening_balance(NOON)
        spent = {window: amounts[UTC_CALENDAR.keys(NOON)[window]] for window, amounts in statement.spent.items()}
        is_open = RULES[rule][state].open
        assert [reserved.bound for reserved in statement.reservations] == ([call.upper_bound] if is_open else [])
        assert spent == dict.fromkeys(BudgetWindow, money.ZERO if is_open else call_charge(call))


async def test_state_of_a_later_build_is_charged_as_unresolved(tenant: Tenant) -> None:
    """By its bound, not by a cost that is not known to be final, in each way to sum its entry."""
    call = await _write(tenant, CallState.SETTLED, CURRENT_RULE)
    entries = tenant.database.collection("ledger")
    await entries.update_one({"_id": call.call_id}, {"$set": {"state": "contested"}})
    by_database, by_document = DaySums(), DaySums()
    await EntrySums(entries).add_entries(by_database, tenant.tenant_id)
    await EntrySums(entries).add_calls(by_document, tenant.tenant_id, [call.call_id])
    read = await tenant.ledger.get(tenant.tenant_id, call.call_id)

    assert read is not None
    assert call_charge(read) == call.upper_bound
    assert by_database.amounts == by_document.amounts == {UTC_CALENDAR.day(NOON): call.upper_bound}


@each_state
async def test_each_state_is_reserved_or_settled(database: Database, state: CallState) -> None:
    """The maintenance settles the reservation of a final call, by the charge that verification expects."""
    await database.collection("ledger").ensure(Ledger.INDEXES)
    harness = BudgetHarness(database)
    row = RULES[CURRENT_RULE][state]
    await harness.begin()
    harness.advance(60)
    await harness.run_maintenance()
    call = replace(await harness.open(reserved=True), state=state, rule=CURRENT_RULE)
    await database.collection("ledger").update_one({"_id": call.call_id}, {"$set": {"rule": CURRENT_RULE}})
    if row.open:
        await database.collection("ledger").update_one({"_id": call.call_id}, {"$set": {"state": state.value}})
    else:
        call = replace(call, settle_time=harness.now, cost=COST, cost_source=CostSource.BILLED)
        assert await harness.ledger.close(call)
    assert await harness.differences() == []
    harness.advance(60)
    await harness.run_maintenance()

    status = await harness.status()
    assert (status.spent, status.reserved) == ((money.ZERO, BOUND) if row.open else (call_charge(call), money.ZERO))
    assert await harness.differences() == []


@each_state
async def test_calls_are_found_by_their_state(tenant: Tenant, state: CallState) -> None:
    """Among calls in all states."""
    calls = [await _write(tenant, each, CURRENT_RULE) for each in CallState]
    users = UserReferences(tenant.database.collection("users"))
    pages = LedgerPages(tenant.database.collection("ledger"), users=users, piece=2)

    found = await pages.page(tenant.tenant_id, EntryFilter(state=state), after=None, limit=len(calls))

    assert [each.entry_id for each in found.entries] == [call.call_id for call in calls if call.state is state]


async def test_calls_in_open_states_are_found_by_index(mongodb_uri: str, tenant: Tenant) -> None:
    """Whether one state is open or several are: the partial indexes match the queries."""
    ledger, name = tenant.ledger, tenant.database.name
    for state in CallState:
        await _write(tenant, state, CURRENT_RULE)
    async with AsyncMongoClient[dict[str, Any]](mongodb_uri) as client:
        await client[name].command("profile", 2)
        await ledger.owners()
        await ledger.next_due()
        await ledger.defer_own("server")
        await ledger.defer_orphans(["other"])
        assert await ledger.claim_due(due_by=LATER, claimed_until=LATER, provider_key_ids=["key"], any_before=NOON)
        await client[name].command("profile", 0)
        plans = [each["planSummary"] async for each in client[name]["system.profile"].find({"ns": f"{name}.ledger"})]

    assert plans
    assert [plan for plan in plans if not plan.startswith("IXSCAN")] == []


@each_state
async def test_state_decides_by_its_aspects_whether_a_call_is_adjusted(tenant: Tenant, state: CallState) -> None:
    """An open call is not, an unresolved one is resolved first; verification and the call's total agree."""
    call = await _write(tenant, state, CURRENT_RULE)
    row = RULES[CURRENT_RULE][state]
    settled = replace(call, state=CallState.SETTLED)

    adjusted, wrong = [*_adjusted(call)], [*_adjusted(settled)]

    assert bool(adjusted) == (not row.open and not row.unresolved)
    assert bool(adjusted) == ([*correction_faults([call, *wrong])] == [])
    assert call_total(call, []) == (COST if row.cost else 0)
    assert sum_attributes([call])["godoty.model_calls"] == int(row.call)


def _adjusted(call: ModelCall) -> Iterator[Adjustment]:
    """Yield the adjustment of a call, if it can be adjusted."""
    order = AdjustmentOrder(
        tenant_id=call.tenant_id,
        call_id=call.call_id,
        amount=Decimal("0.2"),
        is_new_cost=False,
        why="a test",
        by="ann",
        request_id="one",
        above_bound=True,
    )
    try:
        yield adjustment_of(order, call, [], number=2, time=NOON)
    except CallNotAdjustable:
        return


def test_additional_states_need_no_other_edit(mongodb_uri: str) -> None:
    """All tests of this module pass with more states, which only the table has."""
    module = Path(__file__).relative_to(REPOSITORY).as_posix()
    this = f"{module}::test_additional_states_need_no_other_edit"
    run = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "pytest", "-p", "tests.support.additional_states", module, "--deselect", this],
        env=os.environ | {"GODOTY_MONGODB_URI": mongodb_uri},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=1200,  # a busy machine is slow, and only a failure waits that long
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    states = len(CallState) + len(ADDITIONAL_STATES)
    assert f"{states * (3 * len(RULES) + 3) + 3} passed" in run.stdout


def test_only_the_table_knows_states_by_name() -> None:
    """Other modules give a call its state by name; what follows from the state they ask by an aspect."""
    by_name = re.compile(r'(?<!\bstate=)\bCallState\.[A-Z]|"state": "[a-z]')
    found = {
        f"{path.relative_to(REPOSITORY)}: {line.strip()}"
        for path in (REPOSITORY / "godoty_service").rglob("*.py")
        for line in path.read_text().splitlines()
        if path.name != "states.py" and by_name.search(line)
    }

    assert found == set()
