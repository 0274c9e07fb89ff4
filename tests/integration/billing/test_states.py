"""The contribution of a state is defined once: the sums in Python and in MongoDB follow one table."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.budgets.budget import BudgetWindow
from godoty_service.budgets.charges import call_charge
from godoty_service.budgets.entry_sums import DaySums, EntrySums
from godoty_service.ledger.entries import CallState, CostSource, ModelCall
from godoty_service.ledger.states import RULES
from godoty_service.ledger.totals import SessionTotals, totals_of_entry
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.usage.grouping import NamedGroup
from tests.integration.billing.harness import Server, Tenant, usage_query

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = (NOON - timedelta(hours=12), NOON + timedelta(hours=12))


async def _write(tenant: Tenant, state: CallState, rule: int) -> ModelCall:
    """Insert a call with all fields that a call in this state may have."""
    tenant.rules = (rule,)
    call = await tenant.open(NOON, upper_bound=Decimal("0.5"), usage=TokenUsage(input_tokens=7, output_tokens=2))
    if state is CallState.PENDING:
        return call
    known: dict[str, Any] = {"state": state, "settle_time": NOON, "served_model": "a/one"}
    if state is CallState.SETTLED:
        known |= {"cost": Decimal("0.1"), "cost_source": CostSource.BILLED}
    closed = replace(call, **known)
    assert await tenant.ledger.close(closed)
    return closed


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("state", CallState)
async def test_each_state_counts_the_same_in_python_and_in_mongodb(
    server: Server, tenant: Tenant, state: CallState, rule: int
) -> None:
    """Session totals, sums of roll-ups, sums of entries, and the charges and reservations of a budget."""
    call = await _write(tenant, state, rule)
    counted = replace(totals_of_entry(call), turns=int(RULES[rule][state].turn))
    assert SessionTotals().apply([call]).current() == counted
    for group in (NamedGroup.MODEL, NamedGroup.SESSION):
        report = await server.query.run(tenant.tenant_id, usage_query(*DAY, group))
        assert report.totals == counted
    sums = DaySums()
    await EntrySums(tenant.database.collection("ledger")).add_entries(sums, tenant.tenant_id)
    statement = sums.opening_balance(NOON)
    spent = {window: amounts[window.key(NOON)] for window, amounts in statement.spent.items()}
    if state is CallState.PENDING:
        assert [each.bound for each in statement.reservations] == [call.upper_bound]
    else:
        assert statement.reservations == ()
        assert spent == dict.fromkeys(BudgetWindow, call_charge(call))
    cost, pending, unresolved = await tenant.ledger.sum_of(provider_key_id="key", start=DAY[0], end=DAY[1])
    assert (cost, pending, unresolved) == (counted.cost, counted.pending_calls, counted.unresolved_calls)
    assert await server.differences() == []
