"""Exact US dollars: one decimal context, and the only ways in and out of it.

Money is `Decimal`, unknown is `None`, and a float is refused wherever it turns up: a float has already lost
what was billed.
"""

import json
import re
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
from typing import Any, NoReturn

# What BSON's Decimal128 holds: 34 digits and its exponents. Whatever does not fit raises instead of being
# rounded; Python's default of 28 digits would drop the 22nd decimal of a sum in silence.
MONEY = Context(
    prec=34,
    Emin=-6143,
    Emax=6144,
    clamp=0,
    traps=[Inexact, InvalidOperation, DivisionByZero, Overflow, Underflow, Clamped, FloatOperation],
)

ZERO = Decimal(0)

# The bounds of every amount that enters, from whichever source. No call costs a million dollars or is charged in finer
# fractions than these, and sums of such amounts stay below 10^9 USD, which is what 34 digits hold at 25 decimals.
MAX_USD = Decimal(10**6)
MAX_DECIMALS = 25
AMOUNT_RULE = f"at most {MAX_USD:,} USD and at most {MAX_DECIMALS} decimals"

_PLAIN = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def parse(value: str | Decimal | int | None) -> Decimal | None:
    """Read an amount or a unit price; `None` stays `None`.

    Raises:
        TypeError: for a float or a bool, which never carry money.
        ValueError: for NaN, an infinity, a text that is no plain number, or more than 34 digits.
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
    """Read an amount that a person or a client states: a decimal in plain notation, within `is_bounded`.

    Raises:
        ValueError: It is not; the text says what it must be.
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
    """Read an amount that somebody else states: what is negative or no number is unknown, never zero.

    Raises:
        TypeError: for a float: the body it came from must be read with `loads`.
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
    """Write an amount in plain notation, no exponent, no trailing zeros: "0.0000105", "0"; unknown is `None`.

    Raises:
        ValueError: for NaN or an infinity.
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
    """Add two amounts exactly; raises `decimal.Inexact` where 34 digits do not hold the sum."""
    return MONEY.add(left, right)


def subtract(left: Decimal, right: Decimal) -> Decimal:
    """Subtract exactly; raises `decimal.Inexact` where 34 digits do not hold the difference."""
    return MONEY.subtract(left, right)


def multiply(unit_price: Decimal, quantity: int) -> Decimal:
    """Price a quantity exactly; raises `decimal.Inexact` where 34 digits do not hold the product."""
    return MONEY.multiply(unit_price, Decimal(quantity))


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Add up amounts exactly; nothing is 0."""
    result = ZERO
    for amount in amounts:
        result = add(result, amount)
    return result


def loads(body: str | bytes) -> Any:
    """Parse JSON so that a number with a fraction or an exponent is a Decimal; whole numbers stay int.

    Raises:
        ValueError: for what is not JSON (`json.JSONDecodeError` is one), NaN and Infinity included, or nested
            deeper than Python reads.
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
