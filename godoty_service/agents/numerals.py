"""Numbers as a person writes them."""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction

DIGITS = 34
_CONTEXT = Context(prec=DIGITS, rounding=ROUND_HALF_EVEN)


def write(number: Fraction | float) -> str:
    """Write a number: exactly where its decimals end, else rounded, and said to be so."""
    if isinstance(number, float):
        return f"{number:.15g}"
    if number.denominator == 1:
        return str(number.numerator)
    places = _decimal_places(number.denominator)
    if places is not None and places <= DIGITS:
        return f"{_shifted(number, places):f}"
    rounded = _CONTEXT.divide(Decimal(number.numerator), Decimal(number.denominator))
    return f"{rounded} (rounded)"


def _decimal_places(denominator: int) -> int | None:
    """Digits after the point of 1/denominator, or None when they never end."""
    twos = (denominator & -denominator).bit_length() - 1
    rest, fives = denominator >> twos, 0
    while rest % 5 == 0:
        rest //= 5
        fives += 1
    return max(twos, fives) if rest == 1 else None


def _shifted(number: Fraction, places: int) -> Decimal:
    sign, digits, _ = Decimal(number.numerator * 10**places // number.denominator).as_tuple()
    return Decimal((sign, digits, -places))
