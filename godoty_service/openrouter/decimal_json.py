"""Decodes JSON with exact decimal fractions."""

import json
from decimal import Decimal, DecimalException
from typing import Any


def loads(data: bytes) -> Any:
    """Decode JSON with fractions as Decimal; a number that Decimal cannot hold (NaN, a huge exponent) becomes None.

    Raises:
        ValueError: The data is not JSON.
    """
    return json.loads(data, parse_float=_decimal, parse_constant=lambda _: None)


def loads_or_none(data: bytes) -> Any:
    """Decode JSON as `loads` does; return None if the data is not JSON or is nested too deeply."""
    try:
        return loads(data)
    except (ValueError, RecursionError):
        return None


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except DecimalException:
        return None
