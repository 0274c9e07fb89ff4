"""Exact numbers in JSON: a Decimal is read and written digit for digit, never through a float."""

import json
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation
from typing import Any

# Wide enough for a price of 26 decimals times any token count; rounding would be a bug, so it raises.
EXACT = Context(prec=80, traps=[Inexact, InvalidOperation, DivisionByZero])


def loads(text: str | bytes) -> Any:
    """Parse JSON with every fractional number as a Decimal."""
    return json.loads(text, parse_float=Decimal)


def dumps(value: Any) -> str:
    """JSON text, compact, in which each Decimal is an exact number."""
    if isinstance(value, Decimal):
        return number(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(key))}:{dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(dumps(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def number(value: Decimal) -> str:
    """A JSON number without trailing zeros; small ones get an exponent (2.4E-7), as OpenRouter's do."""
    return str(EXACT.normalize(value)) if value else "0"


def plain(value: Decimal) -> str:
    """A decimal string without exponent and without trailing zeros: "0.0000105", "0", "100"."""
    return format(EXACT.normalize(value), "f") if value else "0"
