"""`agent.state["godoty_metrics"]`: the ledger as tools and prompts may read it. Written, never read back."""

from typing import Any

from godoty_service.metering.money import format_usd
from godoty_service.metering.totals import NEWEST_RUNS, SessionFold

METRICS_KEY = "godoty_metrics"


def projection(fold: SessionFold) -> dict[str, Any]:
    """Project a fold: `total_cost` (decimal string, USD), `total_tokens` (int), `run_history` (newest 50).

    Each run has `timestamp` (ISO 8601), `model` (served) and `cost` (decimal string, or None while unknown): one
    for each turn and served model, the newest last.
    """
    return {
        "total_cost": format_usd(fold.totals.cost),
        "total_tokens": fold.totals.usage.total_tokens or 0,
        "run_history": [
            {"timestamp": run.time.isoformat(), "model": run.model, "cost": format_usd(run.cost)}
            for run in fold.runs[-NEWEST_RUNS:]
        ],
    }
