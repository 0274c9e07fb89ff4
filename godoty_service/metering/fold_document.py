"""A session's fold as the document that the session keeps, and back."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from godoty_service.metering.decimal128 import decode, encode
from godoty_service.metering.documents import usage_from_document, usage_to_document
from godoty_service.metering.totals import Run, SessionFold, Timing, Totals

Document = dict[str, Any]
_MICROSECOND = timedelta(microseconds=1)


def fold_to_document(fold: SessionFold) -> Document:
    """Write a fold down."""
    return {
        "through": fold.through,
        "open": list(fold.open),
        "open_turns": list(fold.open_turns),
        "last_turn": fold.last_turn,
        "totals": totals_to_document(fold.totals),
        "by_model": [{"model": model, **totals_to_document(totals)} for model, totals in fold.by_model],
        "runs": [
            {"turn": run.turn_id, "model": run.model, "time": run.time, "cost": _money(run.cost)} for run in fold.runs
        ],
        "timings": [[each.provider, _ticks(each.time_to_first_token), _ticks(each.duration)] for each in fold.timings],
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
        runs=tuple(
            Run(turn_id=each["turn"], model=each["model"], time=each["time"], cost=_decimal(each["cost"]))
            for each in document["runs"]
        ),
        timings=tuple(
            Timing(
                provider=provider,
                time_to_first_token=None if first is None else first * _MICROSECOND,
                duration=duration * _MICROSECOND,
            )
            for provider, first, duration in document["timings"]
        ),
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


def _ticks(time: timedelta | None) -> int | None:
    return None if time is None else time // _MICROSECOND


def _money(amount: Decimal | None) -> Decimal128 | None:
    return None if amount is None else encode(amount)


def _decimal(amount: Decimal128 | None) -> Decimal | None:
    return None if amount is None else decode(amount)
