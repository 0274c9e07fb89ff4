"""Exact US dollars: one decimal context, and the only conversions into and out of it.

Money is a `Decimal`, unknown is `None`, and a float raises TypeError: it no longer holds the digits that were billed.
"""

import json
import re
import struct
from collections.abc import Iterable
from decimal import (
    Clamped,
    Context,
    Decimal,
    DecimalException,
    DivisionByZero,
    FloatOperation,
    Inexact,
    InvalidOperation,
    Overflow,
    Underflow,
)
from functools import reduce
from typing import Any, NoReturn

from bson.decimal128 import Decimal128

# The range of BSON's Decimal128: 34 digits and its exponents. An amount outside it raises instead of being rounded;
# Python's default of 28 digits would drop the 22nd decimal of a sum in silence.
MONEY = Context(
    prec=34,
    Emin=-6143,
    Emax=6144,
    clamp=0,
    traps=[Inexact, InvalidOperation, DivisionByZero, Overflow, Underflow, Clamped, FloatOperation],
)

ZERO = Decimal(0)

# The bounds of every amount that enters, from any source. No call costs a million dollars or is charged in finer
# fractions than these, and sums of such amounts stay below 10^9 USD, which is what 34 digits hold at 25 decimals.
MAX_USD = Decimal(10**6)
MAX_DECIMALS = 25
AMOUNT_RULE = f"at most {MAX_USD:,} USD and at most {MAX_DECIMALS} decimals"

_PLAIN = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)

# Decimal128 in the binary integer form of IEEE 754-2008: a sign, 14 bits of exponent, 113 bits of coefficient.
_DIGITS = 34
_BIAS = 6176
_SIGN = 1 << 63
_SPECIAL = 0x6000000000000000  # infinities, NaN, and a form of zero that no driver writes
_HIGH_BITS = (1 << 49) - 1
_LOW_BITS = (1 << 64) - 1
_EXPONENT_BITS = (1 << 14) - 1


def parse(value: str | Decimal | int | None) -> Decimal | None:
    """Parse an amount or a unit price; `None` stays `None`.

    Raises:
        TypeError: The value is a float or a bool, which never carry money.
        ValueError: The value is NaN, an infinity, a text that is no plain number, or has more than 34 digits.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | Decimal | int):
        raise TypeError(f"money is text, Decimal or int, never {type(value).__name__}")
    if isinstance(value, Decimal) and not value.is_finite():
        raise ValueError(f"not an amount: {value}")
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise ValueError(f"not an amount: {value[:60]!r}")
    try:
        return MONEY.create_decimal(value)
    except DecimalException as error:
        raise ValueError("an amount of more than 34 digits") from error


def is_bounded(amount: Decimal) -> bool:
    """Return whether an amount is finite, at most `MAX_USD` either way and no finer than `MAX_DECIMALS` decimals."""
    if not amount.is_finite() or abs(amount) > MAX_USD:
        return False
    try:
        finest = MONEY.scaleb(amount, MAX_DECIMALS)
        return finest == finest.to_integral_value()
    except DecimalException:
        return False


def read_amount(text: str) -> Decimal:
    """Parse an amount from user input: a decimal in plain notation, within `is_bounded`.

    Raises:
        ValueError: The text is no such amount; the error states the rule.
    """
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"not an amount: {text[:60]!r}; write a plain decimal such as 0.0125, {AMOUNT_RULE}")
    try:
        amount = MONEY.create_decimal(text)
    except DecimalException:
        amount = None
    if amount is None or not is_bounded(amount):
        raise ValueError(f"not an amount: {text[:60]!r}; it must be {AMOUNT_RULE}")
    return amount


def parse_charge(value: Any) -> Decimal | None:
    """Parse an amount from a provider's response; a negative or malformed one is unknown, never zero.

    Raises:
        TypeError: The value is a float: the body must be parsed with `loads`.
    """
    if isinstance(value, float):
        raise TypeError("money was parsed through a float: read the body with money.loads")
    if isinstance(value, bool) or not isinstance(value, str | Decimal | int):
        return None
    try:
        amount = parse(value)
    except ValueError:
        return None
    return amount if amount is not None and amount >= ZERO else None


def format_usd(amount: Decimal | None) -> str | None:
    """Format an amount in plain notation, no exponent, no trailing zeros: "0.0000105", "0"; unknown is `None`.

    Raises:
        ValueError: The amount is NaN or an infinity.
    """
    if amount is None:
        return None
    if not amount.is_finite():
        raise ValueError(f"not an amount: {amount}")
    if amount.is_zero():
        return "0"
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def add(left: Decimal, right: Decimal) -> Decimal:
    """Return the exact sum of two amounts; raise `decimal.Inexact` if it has more than 34 digits."""
    return MONEY.add(left, right)


def subtract(left: Decimal, right: Decimal) -> Decimal:
    """Return the exact difference; raise `decimal.Inexact` if it has more than 34 digits."""
    return MONEY.subtract(left, right)


def multiply(unit_price: Decimal, quantity: int) -> Decimal:
    """Return the exact price of a quantity; raise `decimal.Inexact` if it has more than 34 digits."""
    return MONEY.multiply(unit_price, Decimal(quantity))


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Return the exact sum of amounts, 0 for none; raise `decimal.Inexact` if it has more than 34 digits."""
    return reduce(MONEY.add, amounts, ZERO)


def to_decimal128(amount: Decimal) -> Decimal128:
    """Encode an amount for BSON with exactly its digits, in a third of the time that bson takes.

    Raises:
        decimal.DecimalException: The amount has more than 34 digits.
    """
    _, digits, exponent = amount.as_tuple()
    if not isinstance(exponent, int) or len(digits) > _DIGITS or not -_BIAS <= exponent <= MONEY.Etop():
        return Decimal128(amount)  # encodes what is special, and raises for what does not fit
    coefficient = abs(int(amount.scaleb(-exponent, MONEY)))
    high = (_SIGN if amount.is_signed() else 0) | (exponent + _BIAS) << 49 | coefficient >> 64
    return Decimal128.from_bid(struct.pack("<QQ", coefficient & _LOW_BITS, high))


def from_decimal128(stored: Decimal128) -> Decimal:
    """Decode an amount from BSON with exactly its digits, in a seventh of the time that bson takes."""
    low, high = struct.unpack("<QQ", stored.bid)
    if high & _SPECIAL == _SPECIAL:
        return stored.to_decimal()
    coefficient = (high & _HIGH_BITS) << 64 | low
    amount = Decimal(coefficient).scaleb(((high >> 49) & _EXPONENT_BITS) - _BIAS, MONEY)
    return amount.copy_negate() if high & _SIGN else amount


def loads(body: str | bytes) -> Any:
    """Parse JSON so that a number with a fraction or an exponent is a Decimal; whole numbers stay int.

    Raises:
        ValueError: The body is not JSON (`json.JSONDecodeError` is one), has NaN or Infinity, or is nested deeper than
            Python parses.
    """
    try:
        return json.loads(body, parse_float=_decimal, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except DecimalException as error:
        raise ValueError(f"a number out of every range: {text[:60]}") from error


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"not JSON: {text}")
