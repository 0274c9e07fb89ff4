"""Amounts as BSON's Decimal128 and back, ten times faster than bson does it: a session's metrics hold fifty of them.

The form is the binary integer one of IEEE 754-2008: a sign, 14 bits of exponent, 113 bits of coefficient.
"""

import struct
from decimal import Decimal

from bson.decimal128 import Decimal128

from godoty_service.metering.money import MONEY

_BIAS = 6176
_SIGN = 1 << 63
_UNUSUAL = 0x6000000000000000  # infinities, NaN, and a form of zero that nobody writes
_HIGH_BITS = (1 << 49) - 1
_LOW_BITS = (1 << 64) - 1
_DIGITS = 34


def encode(amount: Decimal) -> Decimal128:
    """Write an amount, digit by digit as it is.

    Raises:
        decimal.DecimalException: It has more than 34 digits.
    """
    _, digits, exponent = amount.as_tuple()
    if not isinstance(exponent, int) or len(digits) > _DIGITS or not -_BIAS <= exponent <= MONEY.Etop():
        return Decimal128(amount)  # it says what is wrong
    coefficient = abs(int(amount.scaleb(-exponent, MONEY)))
    high = (_SIGN if amount.is_signed() else 0) | (exponent + _BIAS) << 49 | coefficient >> 64
    return Decimal128.from_bid(struct.pack("<QQ", coefficient & _LOW_BITS, high))


def decode(stored: Decimal128) -> Decimal:
    """Read an amount, with the digits that it was written with."""
    low, high = struct.unpack("<QQ", stored.bid)
    if high & _UNUSUAL == _UNUSUAL:
        return stored.to_decimal()
    coefficient = (high & _HIGH_BITS) << 64 | low
    amount = Decimal(coefficient).scaleb(((high >> 49) & 0x3FFF) - _BIAS, MONEY)
    return amount.copy_negate() if high & _SIGN else amount
