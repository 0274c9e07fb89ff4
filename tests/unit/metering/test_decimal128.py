"""Amounts are written and read as bson itself writes and reads them."""

from decimal import Decimal, DecimalException

import pytest
from bson.decimal128 import Decimal128
from hypothesis import example, given
from hypothesis import strategies as st

from godoty_service.metering import decimal128

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
def test_every_amount_is_written_and_read_to_the_digit(amount: Decimal) -> None:
    """The same bytes as bson's, and the same digits and exponent back."""
    written = decimal128.encode(amount)

    assert written.bid == Decimal128(amount).bid
    assert decimal128.decode(written).as_tuple() == written.to_decimal().as_tuple() == amount.as_tuple()


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "1E+6000", "1E-6176", "1E+6111"])
def test_what_is_no_amount_is_left_to_bson(amount: str) -> None:
    """It is written, or refused, as bson does."""
    stored = Decimal128(Decimal(amount))

    assert decimal128.encode(Decimal(amount)).bid == stored.bid
    assert str(decimal128.decode(stored)) == str(stored.to_decimal())


@pytest.mark.parametrize("amount", ["1" * 35, "1E-6200"])
def test_what_does_not_fit_is_refused(amount: str) -> None:
    """Nothing is rounded in silence."""
    with pytest.raises(DecimalException):
        decimal128.encode(Decimal(amount))
