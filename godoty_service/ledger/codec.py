"""Converts ledger entries and token usage to MongoDB documents and back."""

from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from decimal import Decimal
from typing import Any

from godoty_service.ledger.entries import Adjustment, CallPurpose, CostSource, Entry, ModelCall
from godoty_service.ledger.states import CallState, decode_state
from godoty_service.mongo.collection import Document
from godoty_service.pricing import money
from godoty_service.pricing.token_usage import COUNTERS, TokenUsage
from godoty_service.pricing.unit_prices import PriceEvidence, UnitPrices

_MONEY = frozenset({"cost", "catalogue_cost", "upper_bound", "upstream_cost", "tool_fees", "bound", "new_cost"})
_DURATIONS = frozenset({"time_to_first_token", "duration"})
_CALL_FIELDS = tuple(field.name for field in fields(ModelCall))
_ADJUSTMENT_FIELDS = tuple(field.name for field in fields(Adjustment))
_COUNTERS = frozenset(COUNTERS)
_COSTS = frozenset({"cost", "cost_source"})
_COST_SOURCES = frozenset(CostSource)
_PURPOSES = frozenset(CallPurpose)
_SOURCES = tuple(field.name for field in fields(PriceEvidence) if field.name != "prices")


def entry_to_document(entry: Entry) -> Document:
    """Encode an entry, without its unknown fields."""
    names, key = (_CALL_FIELDS, "call_id") if isinstance(entry, ModelCall) else (_ADJUSTMENT_FIELDS, "entry_id")
    document = {name: to_field(name, value) for name in names if (value := getattr(entry, name)) is not None}
    document["_id"] = document.pop(key)
    document["kind"] = "call" if isinstance(entry, ModelCall) else "adjustment"
    return document


def new_entry_document(entry: Entry) -> Document:
    """Encode an entry for insertion, with the marks of its pending work.

    `rollup_state`: it is not rolled up yet (`usage/entries.py`). `unapplied`: its session's totals or its tenant's
    budget may lack it (`metering/adjustments.py`). An adjustment belongs to the period of its call's start.
    """
    document = entry_to_document(entry)
    if isinstance(entry, Adjustment):
        document["start_time"] = entry.start_time
        return document | {"rollup_state": "ready", "unapplied": True}
    return document | {"rollup_state": "pending" if entry.counts.open else "ready"}


def entry_from_document(document: Document) -> Entry:
    """Decode an entry."""
    if document["kind"] == "adjustment":
        return Adjustment(entry_id=document["_id"], **_fields(document, _ADJUSTMENT_FIELDS))
    return call_from_document(document)


def call_from_document(document: Document) -> ModelCall:
    """Decode an entry that is a call."""
    if decode_state(document["state"]) != document["state"]:  # of a later build: its cost is not known to be final
        document = {name: value for name, value in document.items() if name not in _COSTS}
    return ModelCall(call_id=document["_id"], **_fields(document, _CALL_FIELDS))


def to_field(name: str, value: Any) -> Any:
    """Encode one field: money as Decimal128, durations in microseconds."""
    encode = _ENCODERS.get(type(value))
    return value if encode is None else encode(name, value)


def usage_to_document(usage: TokenUsage) -> Document:
    """Encode counters, without the unreported ones."""
    return {name: count for name in COUNTERS if (count := getattr(usage, name)) is not None}


def usage_from_document(document: Document) -> TokenUsage:
    """Decode counters; those of a later build are ignored."""
    if document.keys() <= _COUNTERS:
        return TokenUsage(**document)
    return TokenUsage(**{name: document[name] for name in COUNTERS if name in document})


def _fields(document: Document, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _from_field(name, document[name]) for name in names if name in document}


def _from_field(name: str, value: Any) -> Any:
    if name in _MONEY:
        return money.from_decimal128(value)
    if name in _DURATIONS:
        return timedelta(microseconds=value)
    decode = _DECODERS.get(name)
    return value if decode is None else decode(value)


def _evidence_document(evidence: PriceEvidence) -> Document:
    sources = {name: value for name in _SOURCES if (value := getattr(evidence, name)) is not None}
    return {"prices": evidence.prices.to_document(), **sources}


def _evidence(document: Document) -> PriceEvidence:
    sources = {name: document[name] for name in _SOURCES if name in document}
    return PriceEvidence(prices=UnitPrices.from_document(document["prices"]), **sources)


def _cost_source(value: str) -> CostSource | None:
    return CostSource(value) if value in _COST_SOURCES else None


def _purpose(value: str) -> CallPurpose | None:
    return CallPurpose(value) if value in _PURPOSES else None


def _encode_money(name: str, value: Decimal) -> Any:
    return money.to_decimal128(value) if name in _MONEY else value


def _encode_duration(name: str, value: timedelta) -> Any:
    return value // timedelta(microseconds=1) if name in _DURATIONS else value


_ENCODERS: dict[type, Callable[[str, Any], Any]] = {
    Decimal: _encode_money,
    timedelta: _encode_duration,
    TokenUsage: lambda _, usage: usage_to_document(usage),
    PriceEvidence: lambda _, evidence: _evidence_document(evidence),
    CallState: lambda _, state: state.value,
    CostSource: lambda _, source: source.value,
    CallPurpose: lambda _, purpose: purpose.value,
    tuple: lambda _, values: list(values),
}
_DECODERS: dict[str, Callable[[Any], Any]] = {
    "usage": usage_from_document,
    "evidence": _evidence,
    "state": decode_state,
    "cost_source": _cost_source,
    "purpose": _purpose,
    "fallback_models": tuple,
}
