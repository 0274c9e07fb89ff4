"""JSON with exact decimal numbers: a Decimal is parsed and written digit by digit, never through a float."""

import json
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation
from typing import Any

# 80 digits hold a price of 26 decimals times any token count. Rounding would be a bug, so Inexact raises.
EXACT = Context(prec=80, traps=[Inexact, InvalidOperation, DivisionByZero])


def loads(text: str | bytes) -> Any:
    """Parse JSON with every fractional number as a Decimal."""
    return json.loads(text, parse_float=Decimal)


def dumps(value: Any) -> str:
    """Return compact JSON text with each Decimal as an exact number."""
    if isinstance(value, Decimal):
        return json_number(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(key))}:{dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(dumps(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def json_number(value: Decimal) -> str:
    """Return a JSON number without trailing zeros; small numbers have an exponent (2.4E-7), as OpenRouter's do."""
    return str(EXACT.normalize(value)) if value else "0"


def plain_decimal(value: Decimal) -> str:
    """Return a decimal string without exponent or trailing zeros: "0.0000105", "0", "100"."""
    return format(EXACT.normalize(value), "f") if value else "0"
