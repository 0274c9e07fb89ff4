"""The sandbox counts images and files as their models' authors publish, and bills the parser's fee."""

import base64
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from openrouter_sandbox.conversation import Conversation
from openrouter_sandbox.media import InvalidMedia, Media, file_fee, media_tokens, take_media
from tests.support.media import gif, pdf, png


def url(data: bytes, kind: str) -> str:
    """Return a data URL."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def message(data: bytes, kind: str) -> dict[str, Any]:
    """Return a message with an image or a file."""
    if kind == "application/pdf":
        return {"role": "user", "content": [{"type": "file", "file": {"file_data": url(data, kind), "filename": "a"}}]}
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url(data, kind)}}]}


def test_media_are_taken_out_of_messages() -> None:
    """A mark with the hash remains, so that what is left is text."""
    messages = [message(png(30, 20), "image/png"), message(gif(7, 9), "image/gif"), message(pdf(3), "application/pdf")]
    found = take_media([{"role": "user", "content": "hello"}, *messages])

    assert [(each.kind, each.width, each.height, each.pages) for each in found] == [
        ("image", 30, 20, 0),
        ("image", 7, 9, 0),
        ("file", 0, 0, 3),
    ]
    assert messages[0]["content"][0]["image_url"]["url"] == found[0].mark
    assert len(str(messages)) < 700


def test_provider_that_ignores_a_parameter_gets_the_media() -> None:
    """They are taken once, from the request as it came."""
    conversation = Conversation({"messages": [message(png(30, 20), "image/png")], "seed": 1})
    without = conversation.without(frozenset({"seed"}))

    assert "seed" not in without.body
    assert without.media == conversation.media != []


@pytest.mark.parametrize(
    "broken",
    [
        lambda: message(gif(7, 9), "image/png"),
        lambda: message(b"no document", "application/pdf"),
        lambda: message(png(), "image/tiff"),
        lambda: {"content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]},
        lambda: {"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,*"}}]},
    ],
)
def test_media_that_a_provider_refuses(broken: Callable[[], dict[str, Any]]) -> None:
    """Another type than stated, no data URL, no base64."""
    with pytest.raises(InvalidMedia):
        take_media([broken()])


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        ("openai/gpt-4o", (1024, 1024), 765),
        ("openai/gpt-4o", (2048, 4096), 1105),
        ("openai/gpt-4o-mini", (512, 512), 8500),
        ("anthropic/claude-haiku-4.5", (1000, 1000), 1334),
        ("anthropic/claude-haiku-4.5", (8000, 8000), 1568),
        ("google/gemini-2.5-flash", (768, 768), 1290),
    ],
)
def test_images_count_as_published(model: str, size: tuple[int, int], tokens: int) -> None:
    """By tiles, by pixels, with the most that a family counts."""
    image = Media(kind="image", sha256="", size=1, width=size[0], height=size[1])

    assert media_tokens(model, [image]) == tokens


def test_ocr_has_a_fee_for_each_page() -> None:
    """If it is pinned, or if nothing is and the model reads no files by itself."""
    files = [Media(kind="file", sha256="", size=1, pages=pages) for pages in (3, 4)]
    pinned = {"plugins": [{"id": "file-parser", "pdf": {"engine": "mistral-ocr"}}]}
    free = {"plugins": [{"id": "file-parser", "pdf": {"engine": "cloudflare-ai"}}]}

    assert file_fee(pinned, files, reads_files=True) == Decimal("0.014")
    assert file_fee({}, files, reads_files=False) == Decimal("0.014")
    assert file_fee({}, files, reads_files=True) == file_fee(free, files, reads_files=False) == 0
