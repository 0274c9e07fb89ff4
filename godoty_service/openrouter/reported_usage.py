"""Merges the usage objects of one answer: a stream may report several of them."""

from decimal import Decimal, DecimalException
from typing import Any

_LARGEST = 10**12  # more of anything is an error of the provider
_LARGEST_AMOUNT = 10**6  # USD; the same
_MOST_FIELDS = 64
_DEEPEST = 4


def merged(known: dict[str, Any] | None, reported: Any) -> dict[str, Any] | None:
    """Return what is known after a usage object: its known values replace earlier ones, its unknown ones do not.

    Null, an empty object and a value of another type are unknown; an object without any known value changes nothing.
    """
    if not isinstance(reported, dict):
        return known
    result = _merge(known or {}, reported, _DEEPEST)
    return dict.fromkeys(list(reported)[:_MOST_FIELDS]) | result if result else known


def without_cost(usage: dict[str, Any]) -> dict[str, Any]:
    """Return the counters of a usage object alone."""
    return {name: value for name, value in usage.items() if name not in ("cost", "cost_details")}


def _merge(known: dict[str, Any], reported: dict[str, Any], depth: int) -> dict[str, Any]:
    result = dict(known)
    for name, value in reported.items():
        if name not in result and len(result) >= _MOST_FIELDS:
            break
        before = result.get(name)
        if isinstance(value, dict):
            part = _merge(before if isinstance(before, dict) else {}, value, depth - 1) if depth else {}
            if part:
                result[name] = part
        elif _is_known(name, value) and not (_is_number(before) and not _is_number(value)):
            result[name] = value
    return result


def _is_known(name: str, value: Any) -> bool:
    if _is_number(value):
        if not 0 <= value <= (_LARGEST_AMOUNT if name == "cost" else _LARGEST):
            return False  # before it is made an integer: 1e999999999 has as many digits
        return bool("cost" in name or value == int(value))  # no counter has fractions
    return isinstance(value, bool) or (isinstance(value, str) and "cost" in name and _is_amount(value))


def _is_amount(text: str) -> bool:
    """Return whether a text is an amount, as some gateways write it."""
    try:
        return 0 <= Decimal(text) <= _LARGEST_AMOUNT
    except DecimalException:
        return False


def _is_number(value: Any) -> bool:
    """Return whether a value is a finite number, and no binary fraction: no amount is one."""
    if isinstance(value, Decimal):
        return value.is_finite()
    return isinstance(value, int) and not isinstance(value, bool)
