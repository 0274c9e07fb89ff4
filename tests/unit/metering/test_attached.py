"""The bound of images and documents: above every recorded bill, by family where it is published."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from godoty_service.pricing.attached import NOTHING_ATTACHED, PAGE_FEES, AttachedInput, attached_input, image_tokens
from godoty_service.pricing.catalogue import Catalogue, CatalogueModel
from godoty_service.pricing.price_file import PriceRules
from godoty_service.pricing.server_tools import ServerToolBound
from godoty_service.pricing.token_usage import from_openrouter
from godoty_service.pricing.unit_prices import UnitPrices
from godoty_service.pricing.upper_bound import TEMPLATE_TOKENS, upper_bound

# What recordings attach, by words of their names; those that make images attach none.
_IMAGES = (
    *("can_understand_local_images", "can_understand_remote_images", "image_analysis", "describes_images"),
    *("test_image_prompt", "mixed_multimodal"),
)
_FILES = ("pdf", "file_annotation", "document_file_data", "documents_after_system", "mixed_multimodal")
_LARGE = (2_000, 1_500)  # pixels; the recordings do not say how large their images are


def attached_to(row: Any) -> tuple[int, int]:
    """Return the number of images and of documents that a recorded request has at most."""
    name = row["path"].lower()
    images = 2 if any(word in name for word in _IMAGES) else 0
    return images, 2 if any(word in name for word in _FILES) else 0


def model_of(row: Any) -> CatalogueModel:
    """Return the model that served, at the listed price; a long context."""
    prices = UnitPrices.from_listing(row["list_pricing"])
    return CatalogueModel(id=row["served_model"], canonical_slug="", prices=prices, context_length=1_000_000)


def test_bound_covers_every_recorded_bill(completions: list[Any]) -> None:
    """Of each recording with an image or a file among its inputs: the text alone counts by its bytes."""
    checked = {"image": 0, "file": 0}
    for row in completions:
        images, files = attached_to(row)
        if not images and not files:
            continue
        charge = from_openrouter(row["usage"])
        fee = "mistral-ocr" if row["verdict"] == "pdf_ocr_fee" else "native"
        attached = attached_input([model_of(row)], images=[_LARGE] * images, pages=[1] * files, parser=fee)
        bound = upper_bound(
            request_bytes=100,
            max_output_tokens=charge.usage.output_tokens,
            models=[model_of(row)],
            attached=attached,
        )

        assert bound is not None
        assert charge.cost is not None
        assert charge.cost <= bound, row["path"]
        if images:
            assert (charge.usage.input_tokens or 0) <= attached.tokens + TEMPLATE_TOKENS, row["path"]
        checked["image"] += images > 0
        checked["file"] += files > 0

    assert checked["image"] >= 16
    assert checked["file"] >= 38


def test_images_alone_cover_their_tokens(completions: list[Any]) -> None:
    """Without the margin of templates, each recorded image counts no more than its family's ceiling."""
    for row in completions:
        images, files = attached_to(row)
        if images and not files:
            tokens = from_openrouter(row["usage"]).usage.input_tokens or 0
            assert tokens <= images * (image_tokens(row["served_model"], *_LARGE) or 0), row["path"]


def test_recorded_ocr_is_the_fee_of_a_page(completions: list[Any]) -> None:
    """What the bill exceeds the tokens by is what the bound adds for a page."""
    (row,) = [each for each in completions if each["verdict"] == "pdf_ocr_fee"]
    tokens = Decimal(row["computed_prompt_completion"])

    assert Decimal(row["cost"]) - tokens == PAGE_FEES["mistral-ocr"]


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        ("openai/gpt-4o-mini", (4_000, 4_000), 2_833 + 8 * 5_667),
        ("openai/gpt-5.2", (100, 100), 20_000),
        ("~anthropic/claude-opus-latest", (8_000, 5_000), 5_000),
        ("x-ai/grok-4", (8_000, 5_000), 1_792),
        ("google/gemini-2.5-flash", (100, 100), 2_240),
        ("google/gemini-2.5-flash", (3_072, 3_072), 17 * 258),
        ("google/gemini-2.5-flash", (60_000, 600), 301 * 258),
        ("google/gemma-3-27b-it", (100, 100), None),
        ("qwen/qwen3-vl", (100, 100), None),
    ],
)
def test_family_has_a_ceiling(model: str, size: tuple[int, int], tokens: int | None) -> None:
    """By what its author publishes; None: it publishes nothing, and the context counts."""
    assert image_tokens(model, *size) == tokens


def test_context_is_the_most_that_counts() -> None:
    """No prompt is longer; of several models the dearest counts, and an unknown context is not a short one."""
    models = [
        CatalogueModel(id="qwen/a", canonical_slug="", prices=UnitPrices(), context_length=32_000),
        CatalogueModel(id="anthropic/b", canonical_slug="", prices=UnitPrices(), context_length=200_000),
    ]
    size = (1_000, 1_000)

    def tokens(*chosen: CatalogueModel, images: int = 1, pages: int = 0) -> int:
        documents = [pages] if pages else []
        return attached_input(chosen, images=[size] * images, pages=documents, parser="native").tokens

    assert tokens(models[0]) == tokens(models[0], images=9) == 32_000
    assert tokens(models[1], images=3) == 15_000
    assert tokens(*models) == 32_000
    assert tokens(*models, images=0, pages=1) == 200_000
    assert tokens(replace(models[0], context_length=None)) > 2_000_000
    assert tokens() > 2_000_000


def test_pages_cost_a_fee_and_images_their_price() -> None:
    """A fee of the parser for each page of each document, a price for each image, the dearest rate for tokens."""
    prices = UnitPrices.from_listing({"prompt": "1", "completion": "0", "image": "50", "image_token": "3"})
    model = CatalogueModel(id="x/y", canonical_slug="", prices=prices, context_length=1_000)

    def bound(attached: AttachedInput) -> Decimal | None:
        return upper_bound(request_bytes=952, max_output_tokens=16, models=[model], attached=attached)

    documents = attached_input([model], images=[], pages=[3, 4], parser="mistral-ocr")
    assert documents == AttachedInput(tokens=1_000, fees=Decimal("0.014"))
    assert bound(NOTHING_ATTACHED) == 3_000
    assert bound(documents) == Decimal("4000.014")
    assert bound(attached_input([model], images=[(9, 9)] * 2, pages=[], parser="native")) == 3 * 4_000 + 100


def test_each_answer_within_a_request_has_all_that_is_attached() -> None:
    """With server tools a request has several answers: tokens, prices of images and fees count for each of them."""
    prices = UnitPrices.from_listing({"prompt": "1", "completion": "0", "image": "50"})
    model = CatalogueModel(id="x/y", canonical_slug="", prices=prices, context_length=1_000)
    tools = ServerToolBound(answers=3)

    def bound(images: int, pages: int) -> Decimal | None:
        documents = [pages] if pages else []
        attached = attached_input([model], images=[(9, 9)] * images, pages=documents, parser="mistral-ocr")
        return upper_bound(
            request_bytes=952, max_output_tokens=16, models=[model], attached=attached, server_tools=tools
        )

    earlier = 6 * 16  # tokens of output, each twice in the answers after it
    assert bound(0, 0) == 3 * 3_000 + earlier
    assert bound(2, 0) == 3 * (4_000 + 2 * 50) + earlier
    assert bound(0, 7) == 3 * (4_000 + Decimal("0.014")) + earlier


def test_model_without_an_entry_may_take_anything() -> None:
    """An upstream without a listing, or with a pattern in it, states the inputs of none."""
    noon = datetime(2026, 11, 1, tzinfo=UTC)
    unlisted = Catalogue.unlisted(fetch_time=noon, rules=PriceRules())
    pattern = Catalogue.parse({"data": [{"id": "lab/*"}]}, fetch_time=noon)

    assert unlisted.takes("any", "image")
    assert pattern.takes("lab/model", "image")


def test_listed_models_that_take_images_have_bounds(listing: Catalogue) -> None:
    """A finite one for each model that the listing says takes images, but for those that have none without."""
    for name, abilities in listing.abilities.items():
        offers = listing.offers(name)
        plain = upper_bound(request_bytes=100, max_output_tokens=100, models=offers)
        if "image" in abilities.inputs and plain is not None:
            attached = attached_input(offers, images=[_LARGE], pages=[], parser="native")
            bound = upper_bound(request_bytes=100, max_output_tokens=100, models=offers, attached=attached)
            assert bound is not None
            assert bound >= plain
