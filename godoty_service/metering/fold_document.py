"""A session's fold as the document that the session keeps, and back.

Runs and timings are kept as columns, and what a run cost as text: fifty small documents with an amount each take four
times as long to read. An older fold has them as rows; it is read as well, and written anew with the next turn.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from godoty_service.metering.decimal128 import decode, encode
from godoty_service.metering.documents import usage_from_document, usage_to_document
from godoty_service.metering.totals import Run, SessionFold, Timing, Totals

Document = dict[str, Any]


def fold_to_document(fold: SessionFold) -> Document:
    """Write a fold down."""
    return {
        "through": fold.through,
        "open": list(fold.open),
        "open_turns": list(fold.open_turns),
        "last_turn": fold.last_turn,
        "totals": totals_to_document(fold.totals),
        "by_model": [{"model": model, **totals_to_document(totals)} for model, totals in fold.by_model],
        "runs": _columns(("turn", "model", "time", "cost"), [run._replace(cost=_text(run.cost)) for run in fold.runs]),
        "timings": _columns(("provider", "time_to_first_token", "duration"), fold.timings),
    }


def fold_from_document(document: Document | None) -> SessionFold:
    """Read a fold; a session that has none yet has folded nothing."""
    if not document:
        return SessionFold()
    return SessionFold(
        through=document["through"],
        open=tuple(document["open"]),
        open_turns=tuple(document["open_turns"]),
        last_turn=document["last_turn"],
        totals=totals_from_document(document["totals"]),
        by_model=tuple((each["model"], totals_from_document(each)) for each in document["by_model"]),
        runs=_runs(document["runs"]),
        timings=_timings(document["timings"]),
    )


def totals_to_document(totals: Totals) -> Document:
    """Write a sum down, all but its pending calls, which a fold names one by one."""
    return {
        "cost": encode(totals.cost),
        "usage": usage_to_document(totals.usage),
        "model_calls": totals.model_calls,
        "turns": totals.turns,
        "unresolved_calls": totals.unresolved_calls,
        "unresolved_bound": encode(totals.unresolved_bound),
        "unbounded_calls": totals.unbounded_calls,
    }


def totals_from_document(document: Document) -> Totals:
    """Read a sum."""
    return Totals(
        cost=decode(document["cost"]),
        usage=usage_from_document(document["usage"]),
        model_calls=document["model_calls"],
        turns=document["turns"],
        unresolved_calls=document["unresolved_calls"],
        unresolved_bound=decode(document["unresolved_bound"]),
        unbounded_calls=document["unbounded_calls"],
    )


def _runs(kept: Any) -> tuple[Run, ...]:
    if isinstance(kept, list):  # rows
        return tuple(
            Run(each["turn"], each["model"], each["time"], decode(each["cost"]) if each["cost"] is not None else None)
            for each in kept
        )
    costs = [None if text is None else Decimal(text) for text in kept["cost"]]
    return tuple(map(Run, kept["turn"], kept["model"], kept["time"], costs))


def _timings(kept: Any) -> tuple[Timing, ...]:
    if isinstance(kept, list):  # rows
        return tuple(Timing(*each[: len(Timing._fields)]) for each in kept)
    return tuple(map(Timing, kept["provider"], kept["time_to_first_token"], kept["duration"]))


def _columns(names: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> Document:
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def _text(amount: Decimal | None) -> Any:
    return None if amount is None else str(amount)
