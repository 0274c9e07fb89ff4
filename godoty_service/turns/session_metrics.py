"""What a session has cost: its exact totals, and their projection into the agent's state."""

from collections.abc import Sequence
from typing import Any

from godoty_service.ledger.entries import Entry
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.session_totals import session_totals_from_document
from godoty_service.ledger.totals import NEWEST_RUNS, SessionTotals
from godoty_service.pricing.money import format_usd
from godoty_service.sessions.session import Session


async def load_totals(ledger: Ledger, session: Session, *, doubtful: bool) -> SessionTotals:
    """Return a session's exact totals.

    The session's document is enough while no turn runs and no call is open; otherwise one query reads the entries
    that the stored totals do not include.

    Args:
        ledger: The ledger with the session's entries.
        session: The session, as it was read.
        doubtful: Another process may have inserted entries since the totals were stored.
    """
    totals = session_totals_from_document(session.totals)
    if not doubtful and not session.totals_stale and not totals.open:
        return totals
    entries = await ledger.entries_after(session.tenant_id, session.uid, after=totals.last_number, also=totals.open)
    return totals.apply(entries)


async def totals_with(
    ledger: Ledger, session: Session, totals: SessionTotals, entries: Sequence[Entry]
) -> SessionTotals:
    """Return the totals with the entries of a running turn, or with all if another writer's entry precedes one of them.

    Args:
        ledger: The ledger with the session's entries.
        session: The session.
        totals: The session's totals before the turn.
        entries: The turn's entries.
    """
    applied = totals.apply(list(entries))
    if all(entry.number <= applied.last_number for entry in entries):
        return applied
    after = await ledger.entries_after(session.tenant_id, session.uid, after=totals.last_number, also=totals.open)
    return totals.apply(after)


def state_metrics(session_totals: SessionTotals) -> dict[str, Any]:
    """Return the value of `agent.state["godoty_metrics"]` for tools and prompts; it is never read back.

    It has `total_cost` (decimal string, USD), `total_tokens` (int) and `run_history` (the newest 50 runs, the newest
    last). There is one run for each turn and served model, with `timestamp` (ISO 8601), `model` (served) and `cost`
    (decimal string; None while unknown).
    """
    return {
        "total_cost": format_usd(session_totals.totals.cost),
        "total_tokens": session_totals.totals.usage.total_tokens or 0,
        "run_history": [
            {"timestamp": run.time.isoformat(), "model": run.model, "cost": format_usd(run.cost)}
            for run in session_totals.runs[-NEWEST_RUNS:]
        ],
    }
