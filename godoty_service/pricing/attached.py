"""What the images and documents of a request can cost at most, as tokens and fees. No I/O.

Providers count an image as tokens by rules of their own; where a family publishes one, its ceiling counts, else the
model's whole context. A document counts as the whole context: how much text is in it is not known before it is parsed.
No prompt has more tokens than the context, so that is the ceiling of all of them together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Final

from godoty_service.pricing import money
from godoty_service.pricing.catalogue import CatalogueModel

# US dollars a page, by the parser of documents that the request pins: as OpenRouter bills it (recorded: 0.002 for one
# page read by Mistral's OCR). The others have no fee; what they read counts as input tokens.
PAGE_FEES: Final = {"cloudflare-ai": Decimal(0), "native": Decimal(0), "mistral-ocr": Decimal("0.002")}

_UNKNOWN_CONTEXT: Final = 10_000_000  # tokens: above every context length that was ever listed
_GPT_4O_MINI: Final = 2_833 + 8 * 5_667  # at most 8 tiles of an image
_OPENAI: Final = 20_000  # 10,000 patches at the dearest multiplier; tiles are at most 1,445
_ANTHROPIC: Final = 5_000  # 4,784 for the models with high resolution, 1,568 for the others
_XAI: Final = 7 * 256  # six tiles and the whole
_GEMINI_TILE: Final = 258
_GEMINI_3: Final = 2_240  # at the highest resolution
_GEMINI_UNITS: Final = (256, 768)  # sides of a tile in pixels, at least and at most


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedInput:
    """What a request carries beside text, as its bound counts it.

    Attributes:
        tokens: The most tokens of all of it.
        images: The number of images.
        fees: US dollars, beside the tokens.
    """

    tokens: int = 0
    images: int = 0
    fees: Decimal = money.ZERO


NOTHING_ATTACHED: Final = AttachedInput()


def attached_input(
    models: Iterable[CatalogueModel], *, images: Sequence[tuple[int, int]], pages: Sequence[int], parser: str
) -> AttachedInput:
    """Return what images and documents count for a request that any of some models may serve.

    Args:
        models: Every entry that may serve.
        images: Width and height of each image, in pixels.
        pages: The pages of each document.
        parser: The parser of documents that the request pins.
    """
    listed = tuple(models)
    tokens = max((_tokens(model, images, pages) for model in listed), default=_UNKNOWN_CONTEXT)
    fees = money.multiply(PAGE_FEES[parser], sum(pages)) if pages else money.ZERO
    return AttachedInput(tokens=tokens, images=len(images), fees=fees)


def _tokens(model: CatalogueModel, images: Sequence[tuple[int, int]], pages: Sequence[int]) -> int:
    context = model.context_length or _UNKNOWN_CONTEXT
    if pages:
        return context
    return min(context, sum(image_tokens(model.id, *each) or context for each in images))


def image_tokens(model: str, width: int, height: int) -> int | None:
    """Return the most tokens that a model's family counts for an image; None: the family publishes no rule.

    Args:
        model: The id of the model.
        width: Pixels.
        height: Pixels.
    """
    author, _, name = model.lstrip("~").partition("/")
    match author:
        case "openai":
            return _GPT_4O_MINI if name.startswith("gpt-4o-mini") else _OPENAI
        case "anthropic":
            return _ANTHROPIC
        case "x-ai":
            return _XAI
        case "google" if name.startswith("gemini"):
            least, most = _GEMINI_UNITS
            unit = min(max(int(min(width, height) / 1.5), least), most)
            tiles = ceil(width / unit) * ceil(height / unit) + 1  # and the whole
            return max(_GEMINI_3, tiles * _GEMINI_TILE)
    return None
