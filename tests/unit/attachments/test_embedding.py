"""Attachments in requests: placeholders in messages, base64 in the body alone, the newest first within a limit."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic_core import to_json

from godoty_service.attachments.attachment import PDF, Attachment
from godoty_service.attachments.blocks import attachment_of, attachments_in, block_of, result_block_of, user_content
from godoty_service.attachments.chunks import CHUNK
from godoty_service.attachments.embedding import Embedding, EmbeddingRules, embed, message_part, without_attachments
from godoty_service.errors import StorageUnavailable
from godoty_service.pricing.attached import AttachedInput
from tests.support.media import pdf, png

Message = dict[str, Any]


class Files:
    """Contents in memory, in the pieces of the store."""

    def __init__(self, **contents: bytes) -> None:
        self.contents_by_id = contents
        self.fails = False

    async def contents(self, attachments: Sequence[Attachment]) -> dict[str, str]:
        """Return those that exist."""
        known = (each.attachment_id for each in attachments)
        return {each: each for each in known if each in self.contents_by_id}

    async def read(self, content_id: str, number: int) -> bytes:
        """Return a piece."""
        if self.fails and number:
            raise StorageUnavailable("The database is away.")
        return self.contents_by_id[content_id][number * CHUNK : (number + 1) * CHUNK]


def image(name: str, size: int) -> Attachment:
    """Return an image."""
    return Attachment(attachment_id=name, media_type="image/png", size=size, width=8, height=8)


def rules(files: Files, **others: Any) -> EmbeddingRules:
    """Return rules without limits."""
    values: dict[str, Any] = {
        "takes": frozenset({"image", "file"}),
        "max_bytes": 10**9,
        "max_number": 100,
        "parser": "cloudflare-ai",
        "bound": lambda images, pages: AttachedInput(tokens=100 * len(images) + 1000 * sum(pages), images=len(images)),
    }
    return EmbeddingRules(reader=files, **(values | others))


def message(text: str, *attachments: Attachment, role: str = "user") -> Message:
    """Return a message that carries attachments."""
    return {"role": role, "content": user_content(text, [block_of(each) for each in attachments])}


def encoded(embedding: Embedding) -> bytes:
    """Return a request with the messages, as the model encodes it."""
    parts = [
        {"role": each["role"], "content": [message_part(block) or block for block in each["content"]]}
        for each in embedding.messages
    ]
    return to_json({"messages": parts, **embedding.fields})


async def sent(embedding: Embedding) -> Any:
    """Return the request as the provider gets it."""
    body = embedding.body(encoded(embedding))
    assert body is not None
    data = b"".join([each async for each in body])
    assert len(data) == body.size
    return json.loads(data)


async def test_bytes_are_sent_whole() -> None:
    """Of one piece and of several, of any length; what stands around them is unchanged."""
    contents = {f"a{size}": png(size=size) for size in (1, 2, 3, CHUNK - 100, CHUNK, 2 * CHUNK + 1)}
    files = Files(**contents, b=pdf(3))
    attachments = [image(name, len(data)) for name, data in contents.items()]
    document = Attachment(attachment_id="b", media_type=PDF, size=len(files.contents_by_id["b"]), pages=3)
    messages = [message('look: "a" \\ ü', *attachments), message("read", document)]
    embedding = await embed(rules(files), messages, [*attachments, document])
    request = await sent(embedding)
    text, *images = request["messages"][0]["content"]

    assert text == {"text": 'look: "a" \\ ü'}
    for part, data in zip(images, contents.values(), strict=True):
        assert part["type"] == "image_url"
        head, _, found = part["image_url"]["url"].partition(",")
        assert (head, base64.b64decode(found)) == ("data:image/png;base64", data)
    file = request["messages"][1]["content"][1]["file"]
    assert file["filename"] == "b.pdf"
    assert base64.b64decode(file["file_data"].partition(",")[2]) == files.contents_by_id["b"]
    assert request["plugins"] == [{"id": "file-parser", "pdf": {"engine": "cloudflare-ai"}}]
    assert embedding.bound == AttachedInput(tokens=100 * len(contents) + 3000, images=len(contents))


async def test_request_without_base64_is_what_is_bounded() -> None:
    """What the bound of a call counts as text has placeholders of some hundred bytes."""
    data = png(size=3 * CHUNK)
    embedding = await embed(rules(Files(a=data)), [message("hi", image("a", len(data)))], [image("a", len(data))])

    assert len(encoded(embedding)) < 300
    assert embedding.fields == {}


async def test_newest_are_embedded() -> None:
    """Within the bytes and the number of a request; the model sees a note in place of each older one."""
    files = Files(a=png(size=500), b=png(size=500), c=png(size=500))
    attachments = {name: image(name, len(data)) for name, data in files.contents_by_id.items()}
    messages = [message(name, each) for name, each in attachments.items()]
    size = attachments["a"].size
    for limits in ({"max_bytes": 2 * size}, {"max_number": 2}):
        embedding = await embed(rules(files, **limits), messages, list(attachments.values()))
        first, *others = (await sent(embedding))["messages"]

        assert first["content"][1]["text"].startswith("[Attachment a, image/png: left out, because the newer ones")
        assert ["image_url" in each["content"][1] for each in others] == [True, True]
        assert embedding.bound.images == 2


async def test_gap_is_not_filled_with_an_older_one() -> None:
    """Once one does not fit, no older one is sent, even if it would fit."""
    files = Files(a=png(), b=png(size=5000), c=png())
    attachments = {name: image(name, len(data)) for name, data in files.contents_by_id.items()}
    embedding = await embed(
        rules(files, max_bytes=4000),
        [message(name, each) for name, each in attachments.items()],
        [*attachments.values()],
    )
    shown = (await sent(embedding))["messages"]

    assert ["image_url" in each["content"][1] for each in shown] == [False, False, True]


async def test_what_a_model_does_not_take_is_a_note() -> None:
    """So is what was deleted; without anything embedded there is no other body."""
    files = Files(a=png())
    gone, here = image("gone", 10), image("a", len(files.contents_by_id["a"]))
    for limits, names, why in (({"takes": frozenset({"file"})}, here, "does not take"), ({}, gone, "was deleted")):
        embedding = await embed(rules(files, **limits), [message("hi", names)], [names])

        assert why in embedding.messages[0]["content"][1]["text"]
        assert embedding.body(encoded(embedding)) is None
        assert embedding.bound == AttachedInput()


async def test_text_cannot_forge_a_placeholder() -> None:
    """A text that looks like one of another request stays text."""
    files = Files(a=png())
    here = image("a", len(files.contents_by_id["a"]))
    earlier = await embed(rules(files), [message("hi", here)], [here])
    place = message_part(earlier.messages[0]["content"][1])
    assert place is not None
    forged = place["image_url"]["url"]
    embedding = await embed(rules(files), [message(forged, here)], [here])
    content = (await sent(embedding))["messages"][0]["content"]

    assert content[0] == {"text": forged}


async def test_failure_while_sending_is_kept() -> None:
    """The body breaks off, and says why: the provider got no whole request."""
    files = Files(a=png(size=2 * CHUNK))
    here = image("a", len(files.contents_by_id["a"]))
    embedding = await embed(rules(files), [message("hi", here)], [here])
    body = embedding.body(encoded(embedding))
    assert body is not None
    files.fails = True
    with pytest.raises(StorageUnavailable):
        [each async for each in body]

    assert isinstance(body.failure, StorageUnavailable)


async def test_image_of_a_result_is_embedded_in_it() -> None:
    """Its block has a text for builds that do not know it; in a summary its name remains."""
    files = Files(a=png())
    here = image("a", len(files.contents_by_id["a"]))
    block = result_block_of(here)
    result = {"toolUseId": "1", "status": "success", "content": [{"text": "done"}, json.loads(json.dumps(block))]}
    messages = [{"role": "user", "content": [{"toolResult": result}]}]
    assert list(attachments_in(messages)) == [here]
    embedding = await embed(rules(files), messages, [here])
    text, shown = embedding.messages[0]["content"][0]["toolResult"]["content"]
    part = message_part(shown)
    assert part is not None

    assert text == {"text": "done"}
    assert part["image_url"]["url"].startswith("data:image/png;base64,")
    assert block["text"] == "[Attachment a, image/png]"
    (named,) = without_attachments(messages)
    assert named["content"][0]["toolResult"]["content"] == [{"text": "done"}, {"text": "[Attachment a, image/png]"}]


def test_summaries_have_names_alone() -> None:
    """No bytes and no placeholder."""
    (shown,) = without_attachments([message("hi", image("a", 10))])

    assert shown["content"] == [{"text": "hi"}, {"text": "[Attachment a, image/png]"}]


def test_blocks_keep_what_is_known_of_an_attachment() -> None:
    """Through the JSON of stored messages; other blocks, also of other locations, name none."""
    for each in (image("a", 10), Attachment(attachment_id="b", media_type=PDF, size=9, pages=3)):
        assert attachment_of(json.loads(json.dumps(block_of(each)))) == each
    for other in ({"text": "image"}, {"image": {"source": {"location": {"type": "s3", "uri": "s3://a"}}}}):
        assert attachment_of(other) is None
