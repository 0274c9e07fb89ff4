"""Malformed listings: bodies that are no listing, entries that are no models, and the bounds of both."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.pricing.catalogue import MAX_BODY, MAX_ENTRIES, Catalogue, EndpointPrices

NOON = datetime(2026, 8, 22, 12, tzinfo=UTC)


def _entry(name: Any, **more: Any) -> dict[str, Any]:
    return {"id": name, "pricing": {"prompt": "1", "completion": "2"}, **more}


def _catalogue(*entries: Any) -> Catalogue:
    return Catalogue.parse(json.dumps({"data": entries}), fetch_time=NOON)


@pytest.mark.parametrize("name", [5, 1.5, True, None, "", ["x"], {"x": 1}, "x" * 300, "a b", "a\ud800", "a\x00b"])
def test_entry_without_a_valid_id_is_omitted(name: Any) -> None:
    """An id is a text of at most 256 printable characters: the ledger and the metrics use it."""
    assert list(_catalogue(_entry(name), _entry("x/y")).models) == ["x/y"]


@pytest.mark.parametrize("slug", [5, None, "", ["x"], {"x": 1}, "x" * 300, "\ud800"])
def test_entry_without_a_valid_slug_is_found_by_its_id(slug: Any) -> None:
    """An invalid canonical slug does not exclude the model."""
    (model,) = _catalogue(_entry("x/y", canonical_slug=slug, alias_target={"slug": slug})).models.values()

    assert (model.canonical_slug, model.alias_target) == ("x/y", None)


def test_id_listed_twice_with_different_prices_has_no_price() -> None:
    """It is unknown which of them is charged; equal entries count as one."""
    other = _entry("x/y") | {"pricing": {"prompt": "0", "completion": "0"}}
    twice, same = _catalogue(_entry("x/y"), other, _entry("x/y")), _catalogue(_entry("x/y"), _entry("x/y"))

    assert twice.models["x/y"].prices.prompt is None
    assert {"prompt", "completion"} <= twice.models["x/y"].prices.unpriced_keys
    assert same.models["x/y"].prices.prompt == Decimal(1)
    assert [len(each.by_slug["x/y"]) for each in (twice, same)] == [1, 1]


@pytest.mark.parametrize("read", [lambda body: Catalogue.parse(body, fetch_time=NOON), EndpointPrices.parse])
@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"data": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"data": ' + " " * MAX_BODY + "[]}",
        json.dumps({"data": [1] * (MAX_ENTRIES + 1)}),
        json.dumps({"data": {"endpoints": [1] * (MAX_ENTRIES + 1)}}),
        '{"data": [' + "9" * 5000 + "]}",
    ],
    ids=["open", "deep", "long", "many-models", "many-endpoints", "digits"],
)
def test_body_out_of_bounds_is_rejected(read: Any, body: str) -> None:
    """Nesting, length and number of entries are bounded; beyond them is a ValueError, as for any other non-listing."""
    with pytest.raises(ValueError):  # noqa: PT011 - some texts are json's
        read(body)
