"""Columns of amounts: exact where they fit, and marked where they are rounded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal

ROUNDED = "~"
BELOW = "<"

_EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)  # amounts have at most 34 digits


def column(amounts: Sequence[Decimal | None], most: int) -> list[str]:
    """Return the texts of a column, all of the same width, with the decimal points below one another.

    An amount with more decimals than fit is rounded, and marked by "~"; one that would be 0 is "<" and the smallest
    amount that the column shows. None is "unknown".

    Args:
        amounts: The amounts.
        most: The width of the column, unless a whole number needs more.
    """
    known = [each for each in amounts if each is not None]
    whole = max((len(str(abs(int(each)))) + (each < 0) for each in known), default=1)
    needed = max((_decimals(each) for each in known), default=0)
    decimals = needed if _width(whole, needed) <= most else max(most - whole - 2, 2)  # beside the point, and the mark
    texts = ["unknown" if each is None else _text(each, min(decimals, needed)) for each in amounts]
    after = max((len(text.partition(".")[2]) for text in texts), default=0)
    return _right(text + " " * _missing(text, after) for text in texts)


def is_marked(text: str) -> bool:
    """Return whether a text of a column is not the exact amount."""
    return text.lstrip()[:1] in {ROUNDED, BELOW}


def add(first: Decimal, second: Decimal) -> Decimal:
    """Return an exact sum."""
    return _EXACT.add(first, second)


def _text(amount: Decimal, decimals: int) -> str:
    if _decimals(amount) <= decimals:
        return f"{_plain(amount):f}"
    rounded = _EXACT.quantize(amount, Decimal(1).scaleb(-decimals))
    if rounded == 0:
        return f"{BELOW}{Decimal(1).scaleb(-decimals):f}"
    return f"{ROUNDED}{rounded:f}"


def _missing(text: str, decimals: int) -> int:
    """Return the number of spaces in place of the decimals that a text does not have, and of its point."""
    has = len(text.partition(".")[2])
    return decimals - has + (1 if decimals and not has else 0)


def _width(whole: int, decimals: int) -> int:
    return whole + decimals + bool(decimals)


def _decimals(amount: Decimal) -> int:
    exponent = _plain(amount).as_tuple().exponent
    return max(-exponent, 0) if isinstance(exponent, int) else 0


def _plain(amount: Decimal) -> Decimal:
    """Return an amount without zeros at its end."""
    return _EXACT.create_decimal(amount).normalize(_EXACT)


def _right(texts: Iterable[str]) -> list[str]:
    found = list(texts)
    width = max((len(each) for each in found), default=0)
    return [each.rjust(width) for each in found]
