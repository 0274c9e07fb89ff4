"""The ledger of sessions whose turns waited: sums agree with the invoice, and verification finds no difference."""

from __future__ import annotations

from decimal import Decimal

from tests.e2e.actions.conftest import ALWAYS, APPROVE, END_TURN, REFUND, Asker, asked
from tests.e2e.agents.trees import asks, summing, tools
from tests.e2e.turns.conftest import differences
from tests.support.waiting import settled


async def test_ledger_passes_verification(asker: Asker) -> None:
    """With approvals, client tools and sub-agents in one session; what was not carried out costs nothing."""
    await asker.agent({"builtin": "calculator", **ALWAYS}, {"client": REFUND}, name="checker")
    await asker.agent(*tools("checker"), "current_time", name="support")
    first = await asker.ask(asks("checker", summing(calls=2)))
    second = await asker.answer((asked(first)[0], APPROVE))
    assert second.finished.stop_reason == END_TURN
    third = await asker.ask(asks("checker", "@sandbox tool-loop calls=2 tool=refund"))
    fourth = await asker.answer((asked(third)[0], {"output": {"output_text": "done"}}))
    assert fourth.finished.stop_reason == END_TURN
    await asker.ask(asks("checker", summing(calls=2)))
    last = await asker.ask("never mind")
    await settled(asker.caller)

    total = sum((each.cost or Decimal(0) for each in asker.service.entries("talk")), Decimal(0))
    assert Decimal(last.finished.session_totals.cost_usd) == total == asker.service.invoiced("talk")
    service = asker.service
    assert await differences(service.backends.mongodb_uri, service.database.name, service.tenant_id) == []
