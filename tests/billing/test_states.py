"""What a state counts is said once: Python's sums and MongoDB's are those of one table."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.budget import BudgetWindow
from godoty_service.metering.call import CallState, CostSource, ModelCall
from godoty_service.metering.charges import charge
from godoty_service.metering.entry_sums import DaySums, EntrySums
from godoty_service.metering.states import RULES
from godoty_service.metering.totals import SessionFold, added
from godoty_service.metering.usage import TokenUsage
from godoty_service.metering.usage_groups import NamedGroup
from tests.billing.books import Server, Tenant, question

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
DAY = (NOON - timedelta(hours=12), NOON + timedelta(hours=12))


async def _write(tenant: Tenant, state: CallState, rule: int) -> ModelCall:
    """Write a call with all that may be known of one in this state."""
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
    """A session's sums, sums of roll-ups, sums of entries, and what a budget has spent and reserved."""
    call = await _write(tenant, state, rule)
    counted = replace(added(call), turns=int(RULES[rule][state].turn))
    assert SessionFold().take([call]).view() == counted
    for group in (NamedGroup.MODEL, NamedGroup.SESSION):
        answer = await server.query.ask(tenant.tenant_id, question(*DAY, group))
        assert answer.totals == counted
    sums = DaySums()
    await EntrySums(tenant.database.collection("ledger")).add_entries(sums, tenant.tenant_id)
    statement = sums.statement(NOON)
    spent = {window: amounts[window.key(NOON)] for window, amounts in statement.spent.items()}
    if state is CallState.PENDING:
        assert [each.bound for each in statement.held] == [call.upper_bound]
    else:
        assert statement.held == ()
        assert spent == dict.fromkeys(BudgetWindow, charge(call))
    cost, pending, unresolved = await tenant.ledger.sum_of(provider_key_id="key", start=DAY[0], end=DAY[1])
    assert (cost, pending, unresolved) == (counted.cost, counted.pending_calls, counted.unresolved_calls)
    assert await server.differences() == []
