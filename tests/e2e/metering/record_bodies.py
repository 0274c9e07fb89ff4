"""Malformed bodies of generation records, and the cost that each of them states nevertheless."""

from decimal import Decimal
from itertools import product

from openrouter_sandbox.billing.malformed import MALFORMED

COST = Decimal("0.0025")

_NESTED = "[" * 5_000 + "]" * 5_000
_SHALLOW = "[" * 200 + "]" * 200
_VALUES = (
    *("null", "true", "-1", "1.5", "1e400", "1e-400", "123456789012345678901234567890", '""', '"soon"', "[]", "{}"),
    *('"\\ud800"', '"\\u0000"', f'"{"x" * 100_000}"', '[{"a": [1]}]', '{"": {"$set": 1, "a.b": 2}}', _SHALLOW),
)
_NAMES = (
    *("model", "provider_name", "finish_reason", "is_byok", "upstream_inference_cost", "usage", "id", "$where"),
    *("native_tokens_prompt", "native_tokens_completion", "native_tokens_cached", "native_tokens_reasoning"),
)


def stating_nothing() -> list[bytes]:
    """Return bodies that state no cost."""
    wrong_data = [f'{{"data": {value}}}' for value in (*_VALUES, _NESTED)]
    wrong_whole = [*_VALUES, _NESTED, "NaN", "{", "[1,", '{"data"', "9" * 5_000, f'{{"data": {{"model": {_NESTED}}}}}']
    # A record's `usage` is its cost, too: 1.5 would be one.
    wrong_cost = [f'{{"data": {{"total_cost": {value}, "usage": null}}}}' for value in _VALUES if value != "1.5"]
    bodies = [body.encode() for body in (*wrong_data, *wrong_whole, *wrong_cost)]
    return [*bodies, b"\xff\xfe\x00", b"\x00", *(body for body, _ in MALFORMED.values())]


def stating_a_cost() -> list[bytes]:
    """Return bodies that state a cost of `COST`, with another field that is wrong."""
    wrong = product(_NAMES, _VALUES)
    return [f'{{"data": {{"total_cost": {COST}, "{name}": {value}}}}}'.encode() for name, value in wrong]


def stating_a_cost_beside_wrong_fields() -> list[bytes]:
    """Return bodies that state a cost of `COST`, half of whose other fields are wrong in the same way."""
    halves = product((_NAMES[::2], _NAMES[1::2]), _VALUES)
    wrong = (", ".join(f'"{name}": {value}' for name in names) for names, value in halves)
    return [f'{{"data": {{"total_cost": {COST}, {fields}}}}}'.encode() for fields in wrong]
