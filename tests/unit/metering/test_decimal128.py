"""Amounts are encoded and decoded for BSON exactly as bson itself does it."""

from decimal import Decimal, DecimalException

import pytest
from bson.decimal128 import Decimal128
from hypothesis import example, given
from hypothesis import strategies as st

from godoty_service.pricing import money

AMOUNTS = st.builds(
    lambda sign, coefficient, exponent: Decimal((sign, tuple(map(int, str(coefficient))), exponent)),
    st.integers(0, 1),
    st.integers(0, 10**34 - 1),
    st.integers(-40, 40),
)


@given(AMOUNTS)
@example(Decimal(0))
@example(Decimal("-0"))
@example(Decimal("0E-22"))
@example(Decimal("9" * 34))
@example(Decimal(f"-{'9' * 34}E-40"))
def test_every_amount_keeps_its_digits(amount: Decimal) -> None:
    """The bytes equal bson's, and digits and exponent come back."""
    written = money.to_decimal128(amount)

    assert written.bid == Decimal128(amount).bid
    assert money.from_decimal128(written).as_tuple() == written.to_decimal().as_tuple() == amount.as_tuple()


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "1E+6000", "1E-6176", "1E+6111"])
def test_special_values_are_encoded_by_bson(amount: str) -> None:
    """NaN, infinities and extreme exponents give the bytes of bson."""
    stored = Decimal128(Decimal(amount))

    assert money.to_decimal128(Decimal(amount)).bid == stored.bid
    assert str(money.from_decimal128(stored)) == str(stored.to_decimal())


@pytest.mark.parametrize("amount", ["1" * 35, "1E-6200"])
def test_amount_of_too_many_digits_raises(amount: str) -> None:
    """No amount is rounded in silence."""
    with pytest.raises(DecimalException):
        money.to_decimal128(Decimal(amount))
