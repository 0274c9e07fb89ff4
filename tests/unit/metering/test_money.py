from decimal import Decimal, Inexact

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.pricing import money

amounts = st.decimals(
    min_value=Decimal(-(10**12)), max_value=Decimal(10**12), allow_nan=False, allow_infinity=False, places=22
)


@given(amounts)
def test_format_and_parse_round_trip(amount: Decimal) -> None:
    """A formatted amount parses to the same amount, in plain notation without trailing zeros."""
    text = money.format_usd(amount)

    assert text is not None
    assert amount == money.parse(text)
    assert text == money.format_usd(money.parse(text))
    assert not set(text) - set("-0123456789.")
    assert "." not in text or text[-1] not in "0."


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Decimal("0.0000105"), "0.0000105"),
        (Decimal("1.05E-5"), "0.0000105"),
        (Decimal("2.5000"), "2.5"),
        (Decimal("3.000"), "3"),
        (Decimal(100), "100"),
        (Decimal("1E+3"), "1000"),
        (Decimal("0E-10"), "0"),
        (Decimal("-0.00"), "0"),
        (Decimal("-0.10"), "-0.1"),
        (None, None),
    ],
)
def test_format(amount: Decimal | None, text: str | None) -> None:
    """Amounts are plain: no exponent, no trailing zeros, no negative zero; unknown stays unknown."""
    assert text == money.format_usd(amount)


@pytest.mark.parametrize(
    ("value", "amount"),
    [("0.0000105", "0.0000105"), ("1e-7", "0.0000001"), (7, "7"), (Decimal("0.1"), "0.1"), ("-1", "-1"), (".5", "0.5")],
)
def test_parse(value: str | int | Decimal, amount: str) -> None:
    """Text, whole numbers and decimals are parsed exactly."""
    assert Decimal(amount) == money.parse(value)


def test_parse_keeps_unknown() -> None:
    """A missing amount is not zero."""
    assert money.parse(None) is None


@pytest.mark.parametrize("value", [0.1, 0.0, float("nan"), True, b"1", [1]])
def test_parse_rejects_floats(value: object) -> None:
    """A float has lost digits already, and a bool is no amount."""
    with pytest.raises(TypeError):
        money.parse(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value", ["", " 1", "1_000", "NaN", "Infinity", "0x10", "1,5", "٣", "1e99999", Decimal("NaN"), Decimal("-Infinity")]
)
def test_parse_rejects_malformed_amounts(value: str | Decimal) -> None:
    """NaN, infinities and loose spellings are no amounts."""
    with pytest.raises(ValueError, match="amount"):
        money.parse(value)


@pytest.mark.parametrize("value", ["0." + "1" * 35, 10**34 + 1])
def test_more_than_34_digits_are_rejected(value: str | int) -> None:
    """An amount that the database cannot store is rejected, never rounded."""
    with pytest.raises(ValueError, match="34 digits"):
        money.parse(value)


def test_rounding_raises() -> None:
    """A result of more than 34 digits raises."""
    with pytest.raises(Inexact):
        money.add(Decimal(10**20), Decimal("0.0000000000000000000001"))
    with pytest.raises(Inexact):
        money.multiply(Decimal("0.1234567890123456789012345678901234"), 11)


def test_22nd_decimal_is_exact() -> None:
    """A sum that the default context of 28 digits would round keeps its last decimal."""
    summed = money.add(Decimal(1234567), Decimal("0.0000000208333333333333"))

    assert money.format_usd(summed) == "1234567.0000000208333333333333"
    assert money.subtract(summed, Decimal(1234567)) == Decimal("0.0000000208333333333333")
    assert money.total([Decimal("0.1")] * 3) == Decimal("0.3")
    assert money.total([]) == Decimal(0)


def test_loads_parses_fractions_as_decimals() -> None:
    """A number with a fraction or exponent becomes a Decimal, digit for digit; a whole one stays int."""
    document = money.loads(b'{"cost": 0.0076509169000000005, "tiny": 9e-7, "count": 12, "deep": [{"x": 0.10}]}')

    assert document == {
        "cost": Decimal("0.0076509169000000005"),
        "tiny": Decimal("9E-7"),
        "count": 12,
        "deep": [{"x": Decimal("0.10")}],
    }
    assert type(document["count"]) is int


@pytest.mark.parametrize("body", ['{"cost": NaN}', "[Infinity]", "-Infinity", "{", "1e9999999999999999999"])
def test_loads_rejects_python_extensions_of_json(body: str) -> None:
    """NaN and Infinity carry no money."""
    with pytest.raises(ValueError):  # noqa: PT011 - the texts are json's
        money.loads(body)


@pytest.mark.parametrize("value", [-1, Decimal("-0.1"), "NaN", "-1", "", True, None, {}, Decimal("NaN")])
def test_malformed_charge_is_unknown(value: object) -> None:
    """A negative amount or a word is no charge: it is unknown, never zero."""
    assert money.parse_charge(value) is None
