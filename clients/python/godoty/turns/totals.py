"""Sums of the totals of several turns."""

from __future__ import annotations

import dataclasses
from decimal import Context, Decimal
from typing import Any

from godoty.types import TokenUsage, Totals

_EXACT = Context(prec=100)  # the program's own context may round


def added(so_far: Totals | None, totals: Totals) -> Totals:
    """Return totals with those of one more turn; an amount that is unknown of one is unknown of both."""
    if so_far is None:
        return totals
    return Totals(
        **{
            each.name: _added(getattr(so_far, each.name), getattr(totals, each.name))
            for each in dataclasses.fields(Totals)
        }
    )


def _added(one: Any, other: Any) -> Any:
    if isinstance(one, TokenUsage):
        names = [each.name for each in dataclasses.fields(TokenUsage)]
        return TokenUsage(**{name: _reported(getattr(one, name), getattr(other, name)) for name in names})
    if one is None or other is None:
        return None
    return _EXACT.add(one, other) if isinstance(one, Decimal) else one + other


def _reported(one: int | None, other: int | None) -> int | None:
    """Return the sum of numbers of tokens, of which one or both may not have been reported."""
    return None if one is None and other is None else (one or 0) + (other or 0)
