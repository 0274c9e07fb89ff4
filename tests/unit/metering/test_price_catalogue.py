from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.pricing.catalogue import Catalogue, EndpointPrices
from godoty_service.pricing.unit_prices import UnitPrices

NOON = datetime(2026, 8, 22, 12, tzinfo=UTC)


def _entry(name: str, prompt: str = "1", **more: Any) -> dict[str, Any]:
    return {"id": name, "canonical_slug": name, "pricing": {"prompt": prompt, "completion": "2"}, **more}


def _catalogue(*entries: Any) -> Catalogue:
    return Catalogue.parse({"data": list(entries)}, fetch_time=NOON)


def _id(catalogue: Catalogue, name: str, requested: str | tuple[str, ...] = ()) -> str | None:
    found = catalogue.find(name, requested=requested)
    return None if found is None else found.id


def test_every_entry_is_parsed(any_listing: Catalogue) -> None:
    """Each model of each listing is found by its id (an alias: its target) and is priced or known to be unpriced."""
    for name, model in any_listing.models.items():
        assert _id(any_listing, name) in {name, model.alias_target}
        assert model.prices.unpriced_keys or None not in (model.prices.prompt, model.prices.completion)


def test_entry(listing: Catalogue) -> None:
    """The fields of an entry that a call needs: names, limits, prices to the last of 22 decimals."""
    model = listing.models["google/gemini-3.7-flash"]

    assert model.canonical_slug == "google/gemini-3.7-flash-20260813"
    assert model.context_length == 1048576
    assert model.max_completion_tokens == 65536
    assert model.supports_max_tokens
    assert model.prices.input_cache_write == Decimal("0.0000000208333333333333")
    assert listing.fetch_time == datetime(2026, 8, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("served", "requested", "expected"),
    [
        ("openai/gpt-4o-mini", (), "openai/gpt-4o-mini"),
        ("anthropic/claude-4.5-haiku-20251001", (), "anthropic/claude-haiku-4.5"),
        ("anthropic/claude-4.5-haiku-20251001", "anthropic/claude-haiku-4.5:batch", None),
        ("anthropic/claude-4.5-haiku-20251001", "anthropic/claude-haiku-4.5", "anthropic/claude-haiku-4.5"),
        ("anthropic/claude-4.5-haiku-20251001:batch", (), "anthropic/claude-haiku-4.5:batch"),
        ("anthropic/claude-4.5-haiku-20251001", "anthropic/claude-haiku-4.5:nitro", "anthropic/claude-haiku-4.5"),
        ("anthropic/claude-4.5-haiku-20251001:nitro", (), "anthropic/claude-haiku-4.5"),
        ("google/gemini-2.5-flash", "google/gemini-2.5-flash:batch", "google/gemini-2.5-flash"),
        ("google/gemini-2.5-flash", "openai/gpt-4o-mini", "google/gemini-2.5-flash"),
        (
            "google/gemini-2.5-flash",
            ("google/gemini-2.5-flash:batch", "google/gemini-2.5-flash"),
            "google/gemini-2.5-flash",
        ),
        ("google/gemini-3.7-flash-20260813", (), "google/gemini-3.7-flash"),
        ("google/gemini-3.7-flash-20260813:free", (), None),
        ("z-ai/glm-5.2-20260616", ("openai/gpt-4o", "z-ai/glm-5.2:free"), None),
        ("z-ai/glm-5.2-20260616", ("z-ai/glm-5.2", "z-ai/glm-5.2:free"), None),
        ("z-ai/glm-5.2:free", "z-ai/glm-5.2:free", "z-ai/glm-5.2:free"),
        ("z-ai/glm-5.2", "z-ai/glm-5.2:free", "z-ai/glm-5.2"),
        ("z-ai/glm-5.2", ("z-ai/glm-5.2:free", "z-ai/glm-5.2"), "z-ai/glm-5.2"),
        ("z-ai/glm-5.2-20260616", (), "z-ai/glm-5.2"),
        ("qwen/qwen-plus-2025-07-28", "qwen/qwen-plus-2025-07-28:thinking", "qwen/qwen-plus-2025-07-28"),
        ("openai/gpt-4o-mini:nitro", (), "openai/gpt-4o-mini"),
        ("openai/gpt-4o-mini:floor", (), "openai/gpt-4o-mini"),
        ("openai/gpt-4o-mini:exacto", (), "openai/gpt-4o-mini"),
        ("openai/gpt-4o-mini:online", (), "openai/gpt-4o-mini"),
        ("z-ai/glm-5.2:free:nitro", (), "z-ai/glm-5.2:free"),
        ("openai/gpt-4o-mini:free", (), None),
        ("openai/gpt-4o-mini:gratis:nitro", (), None),
        ("unknown/nothing", (), None),
        ("unknown/nothing", "openai/gpt-4o", None),
        (":nitro", (), None),
        ("", (), None),
        ("~openai/gpt-mini-latest", (), "openai/gpt-5.4-mini"),
        ("~openai/gpt-mini-latest:nitro", (), "openai/gpt-5.4-mini"),
        ("openai/gpt-5.4-mini-20260317", "~openai/gpt-mini-latest", "openai/gpt-5.4-mini"),
    ],
)
def test_names(listing: Catalogue, served: str, requested: str | tuple[str, ...], expected: str | None) -> None:
    """An id is priced as itself; a slug as the plain model, and not at all if a variant of it was requested."""
    assert expected == _id(listing, served, requested)
    assert listing.knows(served) == (_id(listing, served) is not None)


@pytest.mark.parametrize(
    ("served", "requested", "expected"),
    [
        ("anthropic/claude-haiku-4.5", (), "anthropic/claude-haiku-4.5"),
        ("anthropic/claude-4.5-haiku-20251001", (), "anthropic/claude-haiku-4.5"),
        ("anthropic/claude-4.5-haiku-20251001", "anthropic/claude-haiku-4.5:batch", "anthropic/claude-haiku-4.5:batch"),
        ("anthropic/claude-4.5-haiku-20251001:batch", (), "anthropic/claude-haiku-4.5:batch"),
        ("anthropic/claude-4.5-haiku-20251001:online", (), "anthropic/claude-haiku-4.5"),
        ("anthropic/claude-4.5-haiku-20251001", "openai/gpt-4o:free", "anthropic/claude-haiku-4.5"),
        ("z-ai/glm-5.2-20260616", ("openai/gpt-4o", "z-ai/glm-5.2:free"), "z-ai/glm-5.2:free"),
        ("google/gemini-2.5-flash", "google/gemini-2.5-flash:batch", "google/gemini-2.5-flash"),
        ("openai/gpt-4o-mini:nitro", (), "openai/gpt-4o-mini"),
        ("~openai/gpt-mini-latest", (), "openai/gpt-5.4-mini"),
        ("unknown/nothing-20260101", "openai/gpt-4o", None),
        ("", (), None),
    ],
)
def test_one_name_for_a_model(
    listing: Catalogue, served: str, requested: str | tuple[str, ...], expected: str | None
) -> None:
    """Every name of a model leads to its listed id; of several ids of one slug, the requested one wins."""
    assert expected == listing.listed_name(served, requested=requested)


def test_every_entry_has_its_own_name(any_listing: Catalogue) -> None:
    """An id is its own name (an alias has its target's), and no dated slug is ever a name."""
    for name, model in any_listing.models.items():
        assert any_listing.listed_name(name) in {name, model.alias_target}
        assert any_listing.listed_name(model.canonical_slug) in any_listing.models


def test_slug_with_a_requested_variant_at_the_plain_price_is_priced() -> None:
    """The price is the same for both that may have served."""
    same = [_entry("x/y", canonical_slug="x/s"), _entry("x/y:batch", canonical_slug="x/s")]

    assert _id(_catalogue(*same), "x/s", "x/y:batch") == "x/y"
    assert _catalogue(*same).listed_name("x/s", requested="x/y:batch") == "x/y:batch"


def test_slug_whose_plain_model_is_not_listed_is_unknown_for_a_plain_request() -> None:
    """A request for a model that is no longer listed is not priced as its free variant."""
    catalogue = _catalogue(_entry("x/y:free", "0", canonical_slug="x/y-2026"))

    assert _id(catalogue, "x/y-2026", "x/y") is None
    assert _id(catalogue, "x/y-2026", "x/y:free") == "x/y:free"


def test_listed_variant_has_its_own_entry(old_listing: Catalogue) -> None:
    """A variant that has an entry, as :exacto once had, is not its base."""
    assert _id(old_listing, "qwen/qwen3-coder:exacto") == "qwen/qwen3-coder:exacto"
    assert _id(old_listing, "qwen/qwen3-coder-480b-a35b-07-25") == "qwen/qwen3-coder"


def test_online_variant_has_uncounted_fees(listing: Catalogue) -> None:
    """`:online` searches through a plugin without a counter, also if the base model's name is returned."""
    found = [
        listing.find("openai/gpt-4o-mini:online"),
        listing.find("openai/gpt-4o-mini", requested="openai/gpt-4o-mini:online"),
        listing.find("openai/gpt-4o-mini"),
    ]

    assert [model and model.prices.uncounted_fees for model in found] == [True, True, False]


def test_models_that_search_unasked_have_uncounted_fees(listing: Catalogue, old_listing: Catalogue) -> None:
    """Models whose fees no counter shows are marked, and only those."""
    marked = [
        name for each in (listing, old_listing) for name, model in each.models.items() if model.prices.uncounted_fees
    ]

    assert marked == [
        "perplexity/sonar",
        "perplexity/sonar-deep-research",
        "openai/gpt-4o-search-preview",
        "openai/o3-deep-research",
    ]


def test_searching_model_without_a_fee_is_priced() -> None:
    """If no fee for searches is listed, the tokens are the whole price, for any author."""
    model = _catalogue(_entry("perplexity/offline")).find("perplexity/offline")

    assert model is not None
    assert not model.prices.uncounted_fees


def test_alias_offers_both_prices(listing: Catalogue) -> None:
    """An alias has an entry of its own, at times with other prices: a bound needs both."""
    assert [model.id for model in listing.offers("~moonshotai/kimi-latest")] == [
        "~moonshotai/kimi-latest",
        "moonshotai/kimi-k3",
    ]
    assert [model.id for model in listing.offers("openai/gpt-4o")] == ["openai/gpt-4o"]
    assert listing.offers("unknown/nothing") == ()


def test_alias_without_its_target_has_its_own_prices() -> None:
    """Its own entry has prices, which are better than none."""
    catalogue = _catalogue(_entry("~x/latest", alias_target={"slug": "x/gone"}))

    assert _id(catalogue, "~x/latest") == "~x/latest"


def test_ambiguous_slug_is_unknown() -> None:
    """Two entries of one slug with different prices and no distinction: no guess."""
    same = [_entry("x/a", canonical_slug="x/slug"), _entry("x/b", canonical_slug="x/slug")]
    other = [_entry("x/a", canonical_slug="x/slug"), _entry("x/b", "9", canonical_slug="x/slug")]

    assert _id(_catalogue(*same), "x/slug") == "x/a"
    assert _id(_catalogue(*other), "x/slug") is None
    assert _id(_catalogue(*other), "x/slug", "x/b") == "x/b"


def test_slug_with_one_variant_is_that_variant() -> None:
    """If only `:free` is listed, no other model can have served under its slug."""
    catalogue = _catalogue(_entry("x/y:free", "0", canonical_slug="x/y-2026"))

    assert _id(catalogue, "x/y-2026") == "x/y:free"
    assert _id(catalogue, "x/y-2026:batch") is None


def test_models_that_ignore_max_tokens_are_marked(listing: Catalogue) -> None:
    """A model that does not list the parameter does not honour it."""
    ignoring = {name for name, model in listing.models.items() if not model.supports_max_tokens}

    assert ignoring == {"openrouter/bodybuilder", "sakana/fugu-ultra"}


def test_hash_covers_the_fields_that_calls_need() -> None:
    """Order and descriptions do not change the hash; a limit does, and a price in its last digit."""
    one, other = _entry("x/one"), _entry("x/other", "1.10")
    first = _catalogue(one, other).hash

    assert first == _catalogue({**other, "pricing": {"completion": "2", "prompt": "1.1"}}, {**one, "name": "One"}).hash
    assert first != _catalogue(one, _entry("x/other", "1.1000000000000000000001")).hash
    assert first != _catalogue(one).hash
    assert first != _catalogue(one, {**other, "context_length": 8192}).hash
    assert len(first) == 64


def test_malformed_entry_is_omitted() -> None:
    """One broken entry does not invalidate the whole listing."""
    catalogue = _catalogue(_entry("x/one"), {"id": "x/priceless"}, None, {"pricing": {}}, _entry("x/odd", "free"))

    assert list(catalogue.models) == ["x/one", "x/odd"]
    assert catalogue.models["x/odd"].prices.unpriced_keys == frozenset({"prompt"})


@pytest.mark.parametrize("body", ["[]", "{}", '{"error": {"code": 429}}', '{"data": {}}', "<html>", b"\xff"])
def test_body_without_listing_is_rejected(body: str | bytes) -> None:
    """An error page is not an empty catalogue."""
    with pytest.raises(ValueError):  # noqa: PT011 - some texts are json's
        Catalogue.parse(body, fetch_time=NOON)
    with pytest.raises(ValueError):  # noqa: PT011 - some texts are json's
        EndpointPrices.parse(body)


def test_endpoints() -> None:
    """Each provider's own prices are found by its name or tag; a name with two prices has none."""
    endpoints = EndpointPrices.parse(
        '{"data": {"id": "z-ai/glm", "endpoints": ['
        '{"provider_name": "DeepInfra", "tag": "deepinfra/fp8", "context_length": 8192, "max_completion_tokens": 4096,'
        ' "pricing": {"prompt": "1", "completion": "2", "discount": 0.5}, "supported_parameters": ["max_tokens"]},'
        '{"provider_name": "DeepInfra", "tag": "deepinfra/fp4", "context_length": 8192, "max_completion_tokens": null,'
        ' "pricing": {"prompt": "0.5", "completion": "2"}, "supported_parameters": ["temperature"]},'
        '{"provider_name": "Novita", "tag": "novita", "pricing": {"prompt": "3", "completion": "4"}}, {}]}}'
    )

    assert len(endpoints.endpoints) == 3
    assert endpoints.model_id == "z-ai/glm"
    assert endpoints.for_provider("Novita") == UnitPrices(prompt=Decimal(3), completion=Decimal(4))
    assert endpoints.for_provider("deepinfra/fp4") == UnitPrices(prompt=Decimal("0.5"), completion=Decimal(2))
    assert endpoints.for_provider("DeepInfra") is None
    assert endpoints.for_provider("Unlisted") is None
    assert endpoints.endpoints[0].prices.discount == Decimal("0.5")
    assert [entry.supports_max_tokens for entry in endpoints.endpoints] == [True, False, True]
    assert [entry.max_completion_tokens for entry in endpoints.endpoints] == [4096, None, None]


def test_endpoints_of_a_searching_model_are_marked() -> None:
    """A model that searches unasked does so at every provider."""
    entry = {"provider_name": "Perplexity", "pricing": {"prompt": "1", "completion": "1", "web_search": "0.005"}}
    prices = EndpointPrices.parse({"data": {"id": "perplexity/sonar", "endpoints": [entry]}}).for_provider("Perplexity")

    assert prices is not None
    assert prices.uncounted_fees
