"""Puts attachments into the requests to a model: as placeholders in the messages, and as base64 in the body.

The bytes are read while the body is sent, piece by piece: a request has one piece in memory, and
neither the messages nor the bound of the call ever have base64 in them. A second attempt reads them again.
"""

import base64
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from godoty_service.attachments.attachment import IMAGE, Attachment
from godoty_service.attachments.blocks import attachment_of, attachments_in, left_out, text_of, with_texts
from godoty_service.attachments.chunks import count
from godoty_service.errors import GodotyError
from godoty_service.pricing.attached import NOTHING_ATTACHED, AttachedInput

_SOURCE: Final = "embedded"  # of an image or a document that is about to be formatted: the URL with a placeholder
Message = Mapping[str, Any]


class Reader(Protocol):
    """Reads the attachments of one tenant."""

    async def contents(self, attachments: Sequence[Attachment]) -> dict[str, str]:
        """Return where the bytes of those attachments are that exist, by id."""

    async def read(self, content_id: str, number: int) -> bytes:
        """Return a piece of a content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRules:
    """What the requests to some models may carry.

    Attributes:
        reader: Reads the bytes.
        takes: The inputs that each of the models takes, such as "image".
        max_bytes: Bytes of all attachments of a request: the newest ones are embedded.
        max_number: Their number.
        parser: The parser of documents that the request pins.
        bound: Returns what images, by their width and height, and documents, by their pages, count at most.
    """

    reader: Reader
    takes: frozenset[str]
    max_bytes: int
    max_number: int
    parser: str
    bound: Callable[[Sequence[tuple[int, int]], Sequence[int]], AttachedInput]


class EmbeddedBody:
    """The body of a request with attachments.

    Attributes:
        size: Its bytes.
        failure: Why the bytes could not be read while it was sent: it was never complete. None: they could.
    """

    def __init__(self, parts: list[bytes | tuple[str, Attachment]], reader: Reader) -> None:
        self._parts = parts
        self._reader = reader
        self.size = sum(len(each) if isinstance(each, bytes) else base64_length(each[1].size) for each in parts)
        self.failure: GodotyError | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for part in self._parts:
                if isinstance(part, bytes):
                    yield part
                    continue
                content_id, attachment = part
                for number in range(count(attachment.size)):
                    # At most 768 KiB: a millisecond; each but the last is a multiple of three bytes.
                    yield base64.b64encode(await self._reader.read(content_id, number))
        except GodotyError as error:
            self.failure = error
            raise


class Embedding:
    """The attachments of one request: which are embedded, and where in its body.

    Attributes:
        messages: The messages, with a placeholder or a note in place of each attachment.
        bound: What the embedded ones count at most.
    """

    def __init__(self, rules: EmbeddingRules, messages: Sequence[Message], contents: Mapping[str, str]) -> None:
        """Choose the attachments to embed.

        Args:
            rules: What the request may carry.
            messages: The messages.
            contents: Where the bytes are, by the id of an attachment.
        """
        self._rules = rules
        self._key = secrets.token_hex(16)  # no text of a message can have it
        self._embedded: list[tuple[str, Attachment]] = []
        self._left = (rules.max_number, rules.max_bytes)
        self.messages = [self._message(each, contents) for each in reversed(messages)][::-1]
        images = [(each.width, each.height) for _, each in self._embedded if each.input == IMAGE]
        pages = [each.pages for _, each in self._embedded if each.input != IMAGE]
        self.bound = rules.bound(images, pages) if self._embedded else NOTHING_ATTACHED
        self._has_documents = bool(pages)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the request beside its messages: the parser of documents, which has a price."""
        if not self._has_documents:
            return {}
        return {"plugins": [{"id": "file-parser", "pdf": {"engine": self._rules.parser}}]}

    def body(self, encoded: bytes) -> EmbeddedBody | None:
        """Return the body of an encoded request; None: nothing is embedded in it."""
        if not self._embedded:
            return None
        first, *rest = encoded.split(f"{self._key}-".encode())  # a hundred times as fast as a regular expression
        parts: list[bytes | tuple[str, Attachment]] = [first]
        for each in rest:
            number, _, text = each.partition(b"-")
            parts += [self._embedded[int(number)], text]
        return EmbeddedBody(parts, self._rules.reader)

    def _message(self, message: Message, contents: Mapping[str, str]) -> dict[str, Any]:
        content = [self._block(each, contents) for each in reversed(message["content"])][::-1]
        return {**message, "content": content}

    def _block(self, block: Mapping[str, Any], contents: Mapping[str, str]) -> Mapping[str, Any]:
        if "toolResult" in block:
            result = block["toolResult"]
            content = [self._block(each, contents) for each in reversed(result["content"])][::-1]
            return {"toolResult": {**result, "content": content}}
        attachment = attachment_of(block)
        if attachment is None:
            return block
        number, size = self._left
        if attachment.input not in self._rules.takes:
            return {"text": left_out(attachment, "the model does not take it")}
        if attachment.attachment_id not in contents:
            return {"text": left_out(attachment, "it was deleted")}
        if not number or attachment.size > size:
            self._left = (0, 0)  # older ones are left out as well: the model sees the newest without a gap
            return {"text": left_out(attachment, "the newer ones are as many, or as large, as a request may have")}
        self._left = (number - 1, size - attachment.size)
        place = f"{self._key}-{len(self._embedded)}-"
        self._embedded.append((contents[attachment.attachment_id], attachment))
        url = f"data:{attachment.media_type};base64,{place}"
        return {"image" if attachment.input == IMAGE else "document": {_SOURCE: (attachment, url)}}


async def replace_attachments(
    messages: Any, rules: Callable[[], EmbeddingRules] | None
) -> tuple[Any, Embedding | None]:
    """Return messages with placeholders or notes in place of attachments, and those that are embedded.

    Args:
        messages: The messages.
        rules: Returns what the request may carry; None: texts alone, as for a summary.

    Raises:
        StorageUnavailable: It could not be read where the bytes are.
    """
    attachments = list(attachments_in(messages))
    if not attachments:
        return messages, None
    if rules is None:
        return without_attachments(messages), None
    embedding = await embed(rules(), messages, attachments)
    return embedding.messages, embedding


async def embed(rules: EmbeddingRules, messages: Sequence[Message], attachments: Sequence[Attachment]) -> Embedding:
    """Return the attachments of a request.

    Args:
        rules: What the request may carry.
        messages: The messages.
        attachments: Those that the messages name.

    Raises:
        StorageUnavailable: It could not be read which of them exist.
    """
    wanted = [each for each in attachments if each.input in rules.takes]
    return Embedding(rules, messages, await rules.reader.contents(wanted) if wanted else {})


def without_attachments(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages with notes in place of attachments, for a summary of their texts."""
    return [{**each, "content": with_texts(each["content"], text_of)} for each in messages]


def message_part(block: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the part of a chat message for a block with a placeholder; None: it is another block."""
    source = block.get("image") or block.get("document") or {}
    if _SOURCE not in source:
        return None
    attachment, url = source[_SOURCE]
    if attachment.input == IMAGE:
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "file", "file": {"filename": f"{attachment.attachment_id}.pdf", "file_data": url}}


def base64_length(size: int) -> int:
    """Return the length in base64 of this many bytes."""
    return -(-size // 3) * 4
