"""Images and PDF files in a request: what they count as tokens, and the fee of the parser that reads files.

Tokens follow the rules that the authors of the models publish, as far as they matter for a bill; for other authors an
image counts 1,000 tokens. A file counts 400 tokens a page.
"""

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Any

from openrouter_sandbox.decimal_json import EXACT

_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,")
_PAGE = re.compile(rb"/Type\s*/Page\b(?!s)")
_PAGE_TOKENS = 400
_OTHER_IMAGE = 1_000  # tokens
_OCR_FEE = Decimal("0.002")  # USD a page
_MAGIC = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff", "image/gif": b"GIF8", "image/webp": b"RIFF"}


class InvalidMedia(ValueError):
    """An image or a file that a provider refuses."""


@dataclass(frozen=True)
class Media:
    """An image or a file of a request.

    Attributes:
        kind: "image" or "file", as models list their inputs.
        sha256: The hash of its bytes.
        size: Its bytes.
        width: Pixels of an image.
        height: Pixels of an image.
        pages: Pages of a file.
    """

    kind: str
    sha256: str
    size: int
    width: int = 0
    height: int = 0
    pages: int = 0

    @property
    def mark(self) -> str:
        """What stands in place of its data URL in the logged request."""
        return f"data:(sha256 {self.sha256}, {self.size} bytes)"


def take_media(messages: Iterable[Mapping[str, Any]]) -> list[Media]:
    """Return the images and files of messages, in which a mark replaces each of their data URLs.

    Raises:
        InvalidMedia: One of them cannot be read.
    """
    found: list[Media] = []
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            place, key = _place(part)
            if place is not None:
                found.append(_read(place[key]))
                place[key] = found[-1].mark
    return found


def media_tokens(model: str, media: Iterable[Media]) -> int:
    """Return the prompt tokens of images and files for a model."""
    return sum(each.pages * _PAGE_TOKENS if each.kind == "file" else _image_tokens(model, each) for each in media)


def file_fee(body: Mapping[str, Any], media: Iterable[Media], *, reads_files: bool) -> Decimal:
    """Return the fee for the files of a request: of Mistral's OCR, which reads them unless the request pins another.

    Args:
        body: The request.
        media: Its images and files.
        reads_files: The model reads files by itself, and so does by default.
    """
    plugins = [each for each in body.get("plugins") or () if each.get("id") == "file-parser"]
    engine = (plugins[0].get("pdf") or {}).get("engine") if plugins else None
    if (engine or ("native" if reads_files else "mistral-ocr")) != "mistral-ocr":
        return Decimal(0)
    return EXACT.multiply(_OCR_FEE, sum(each.pages for each in media))


def _place(part: Any) -> tuple[dict[str, Any] | None, str]:
    if isinstance(part, dict) and part.get("type") == "image_url":
        return part["image_url"], "url"
    if isinstance(part, dict) and part.get("type") == "file":
        return part["file"], "file_data"
    return None, ""


def _read(url: Any) -> Media:
    stated = _URL.match(url) if isinstance(url, str) else None
    if stated is None:
        raise InvalidMedia("the sandbox reads data URLs with base64 alone")
    try:
        data = base64.b64decode(url[stated.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidMedia("invalid base64") from None
    kind, sha256, size = stated[1], hashlib.sha256(data).hexdigest(), len(data)
    if kind == "application/pdf":
        if not data.startswith(b"%PDF-"):
            raise InvalidMedia("not a PDF")
        return Media(kind="file", sha256=sha256, size=size, pages=max(1, len(_PAGE.findall(data))))
    if not data.startswith(_MAGIC.get(kind, b"\0none")):
        raise InvalidMedia(f"not an image of the type {kind}")
    width, height = _size(kind, data)
    return Media(kind="image", sha256=sha256, size=size, width=width, height=height)


def _size(kind: str, data: bytes) -> tuple[int, int]:
    if kind == "image/png":
        return struct.unpack(">II", data[16:24])
    if kind == "image/gif":
        return struct.unpack("<HH", data[6:10])
    return 1024, 1024


def _image_tokens(model: str, image: Media) -> int:
    width, height, author = image.width, image.height, model.split("/", maxsplit=1)[0]
    if author == "openai":
        scale = min(1.0, 2048 / max(width, height), 768 / min(width, height))
        tiles = ceil(width * scale / 512) * ceil(height * scale / 512)
        return 2833 + 5667 * tiles if model.startswith("openai/gpt-4o-mini") else 85 + 170 * tiles
    if author == "anthropic":
        return min(1568, ceil(width * height / 750))
    if author == "google":
        unit = min(max(int(min(width, height) / 1.5), 256), 768)
        return 258 * (ceil(width / unit) * ceil(height / unit) + 1)
    return _OTHER_IMAGE
