"""JSON with money in it: every digit is kept."""

import json
from decimal import Decimal, DecimalException
from typing import Any


def loads(data: bytes) -> Any:
    """Parse JSON; a fraction is a Decimal, and what no Decimal holds (NaN, an absurd exponent) is None.

    Raises:
        ValueError: It is not JSON.
    """
    return json.loads(data, parse_float=_decimal, parse_constant=lambda _: None)


def loads_or_none(data: bytes) -> Any:
    """Parse JSON as `loads` does; what is not JSON, or is nested too deeply, is None."""
    try:
        return loads(data)
    except (ValueError, RecursionError):
        return None


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except DecimalException:
        return None
