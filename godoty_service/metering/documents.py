"""Ledger entries and usage as MongoDB documents, and back: the one converter of this room."""

from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from decimal import Decimal
from typing import Any

from godoty_service.metering.call import Adjustment, CallState, CostSource, Entry, ModelCall, PriceEvidence
from godoty_service.metering.decimal128 import decode, encode
from godoty_service.metering.prices import UnitPrices
from godoty_service.metering.usage import COUNTERS, TokenUsage

Document = dict[str, Any]

_MONEY = frozenset({"cost", "catalogue_cost", "upper_bound", "upstream_cost", "bound", "new_cost"})
_TIMES = frozenset({"time_to_first_token", "duration"})
_CALL_FIELDS = tuple(field.name for field in fields(ModelCall))
_ADJUSTMENT_FIELDS = tuple(field.name for field in fields(Adjustment))
_COUNTERS = frozenset(COUNTERS)
_STATES = frozenset(CallState)
_COST_SOURCES = frozenset(CostSource)
_SOURCES = tuple(field.name for field in fields(PriceEvidence) if field.name != "prices")


def entry_to_document(entry: Entry) -> Document:
    """Write an entry down. Unknown fields are left out."""
    names, key = (_CALL_FIELDS, "call_id") if isinstance(entry, ModelCall) else (_ADJUSTMENT_FIELDS, "entry_id")
    document = {name: to_field(name, value) for name in names if (value := getattr(entry, name)) is not None}
    document["_id"] = document.pop(key)
    document["kind"] = "call" if isinstance(entry, ModelCall) else "adjustment"
    return document


def new_entry_document(entry: Entry) -> Document:
    """Return an entry as it is inserted, with the marks of what is still to be done with it.

    `unbooked`: the usage roll-ups do not have it (`usage_entries.py`). `unapplied`: its session's sums or its tenant's
    budget may not have it (`adjustments.py`). An adjustment stands at its call's start, the period that it belongs to.
    """
    document = entry_to_document(entry)
    if isinstance(entry, Adjustment):
        document["start_time"] = entry.start_time
        return document | {"unbooked": "final", "unapplied": True}
    return document | {"unbooked": "open" if entry.state is CallState.PENDING else "final"}


def entry_from_document(document: Document) -> Entry:
    """Read an entry."""
    if document["kind"] == "adjustment":
        return Adjustment(entry_id=document["_id"], **_read(document, _ADJUSTMENT_FIELDS))
    return ModelCall(call_id=document["_id"], **_read(document, _CALL_FIELDS))


def call_from_document(document: Document) -> ModelCall:
    """Read an entry that is a call."""
    return ModelCall(call_id=document["_id"], **_read(document, _CALL_FIELDS))


def to_field(name: str, value: Any) -> Any:
    """Write one field down: money as Decimal128, durations in microseconds."""
    if name in _MONEY and isinstance(value, Decimal):
        return encode(value)
    if name in _TIMES and isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    if isinstance(value, TokenUsage):
        return usage_to_document(value)
    if isinstance(value, PriceEvidence):
        return _evidence_document(value)
    if isinstance(value, (CallState, CostSource)):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def usage_to_document(usage: TokenUsage) -> Document:
    """Write counters down; those that nobody told are left out."""
    return {name: count for name in COUNTERS if (count := getattr(usage, name)) is not None}


def usage_from_document(document: Document) -> TokenUsage:
    """Read counters; those of a later build are ignored."""
    if document.keys() <= _COUNTERS:
        return TokenUsage(**document)
    return TokenUsage(**{name: document[name] for name in COUNTERS if name in document})


def _read(document: Document, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _from_field(name, document[name]) for name in names if name in document}


def _from_field(name: str, value: Any) -> Any:
    if name in _MONEY:
        return decode(value)
    if name in _TIMES:
        return timedelta(microseconds=value)
    read = _READERS.get(name)
    return value if read is None else read(value)


def _evidence_document(evidence: PriceEvidence) -> Document:
    sources = {name: value for name in _SOURCES if (value := getattr(evidence, name)) is not None}
    return {"prices": evidence.prices.to_document(), **sources}


def _evidence(document: Document) -> PriceEvidence:
    sources = {name: document[name] for name in _SOURCES if name in document}
    return PriceEvidence(prices=UnitPrices.from_document(document["prices"]), **sources)


def _state(value: str) -> CallState:
    """Read a state; one of a later build is unresolved: not pending here, and its cost is not known to be final."""
    return CallState(value) if value in _STATES else CallState.UNRESOLVED


def _cost_source(value: str) -> CostSource | None:
    return CostSource(value) if value in _COST_SOURCES else None


_READERS: dict[str, Callable[[Any], Any]] = {
    "usage": usage_from_document,
    "evidence": _evidence,
    "state": _state,
    "cost_source": _cost_source,
    "fallback_models": tuple,
}
