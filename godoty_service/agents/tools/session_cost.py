"""The tool for what the session has cost."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from strands import ToolContext, tool

from godoty_service.ledger.totals import SessionTotals
from godoty_service.pricing.money import format_usd

SESSION_TOTALS: Final = "session_totals"  # in the invocation state: what returns the totals of the turn's session
SessionTotalsReader = Callable[[], Awaitable[SessionTotals]]


@tool(name="session_cost", context=True)
async def session_cost(tool_context: ToolContext) -> str:
    """Return what this conversation has cost so far, in US dollars, with its tokens, model calls and turns.

    The model calls of this turn until now are included; the answer that follows is not.
    """
    read: SessionTotalsReader = tool_context.invocation_state[SESSION_TOTALS]
    return json.dumps(cost_report(await read()))


def cost_report(session_totals: SessionTotals) -> dict[str, Any]:
    """Return what the model sees: amounts are exact decimal strings in US dollars.

    `total_cost` and `total_tokens` are those that `godoty_metrics` in the agent's state would have if the turn ended
    now. Calls whose cost is not known are counted, with a note: they are not in the total.
    """
    totals = session_totals.current()
    report: dict[str, Any] = {
        "total_cost": format_usd(totals.cost),
        "currency": "USD",
        "total_tokens": totals.usage.total_tokens or 0,
        "turns": totals.turns,
        "model_calls": totals.model_calls,
        "pending_calls": totals.pending_calls,
        "unresolved_calls": totals.unresolved_calls,
    }
    notes = []
    if totals.pending_calls:
        notes.append(f"The cost of {_calls(totals.pending_calls)} is pending: it is not in the total yet.")
    if totals.unresolved_calls:
        report["unresolved_cost_at_most"] = format_usd(totals.unresolved_bound) if not totals.unbounded_calls else None
        notes.append(f"The cost of {_calls(totals.unresolved_calls)} is unknown: it is not in the total.")
    return report | ({"notes": notes} if notes else {})


def _calls(number: int) -> str:
    return "1 model call" if number == 1 else f"{number:,} model calls"
