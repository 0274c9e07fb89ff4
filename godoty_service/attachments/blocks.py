"""How messages name attachments: as content blocks of Strands with a location, and never with bytes.

A block has all that a reader of the message, and the bound of a model call, need to know of the attachment. A build
that does not know the location leaves the block out of what it sends.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from godoty_service.attachments.attachment import IMAGE, PDF, Attachment

Block = dict[str, Any]

_LOCATION: Final = "godoty"
_FORMATS: Final = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/webp": "webp",
    "image/gif": "gif",
    PDF: "pdf",
}
_KINDS: Final = ("image", "document")
_IN_RESULT: Final = "attachment"
_DETAILS: Final = ("media_type", "size", "width", "height", "pages")


def block_of(attachment: Attachment) -> Block:
    """Return the content block that names an attachment."""
    details = {name: value for name in _DETAILS if (value := getattr(attachment, name))}
    source = {"location": {"type": _LOCATION, "uri": attachment.attachment_id, **details}}
    form = _FORMATS[attachment.media_type]
    if attachment.input == IMAGE:
        return {"image": {"format": form, "source": source}}
    return {"document": {"format": form, "name": attachment.attachment_id, "source": source}}


def result_block_of(attachment: Attachment) -> Block:
    """Return the content block of a tool's result that names an attachment.

    Builds that do not know it show and send its text; Strands would require an image of a result to have bytes.
    """
    return {"text": text_of(attachment), _IN_RESULT: block_of(attachment)}


def attachment_of(block: Mapping[str, Any]) -> Attachment | None:
    """Return the attachment that a content block names; None: it names none."""
    if _IN_RESULT in block:
        return attachment_of(block[_IN_RESULT])
    for kind in _KINDS:
        if kind in block:
            location = block[kind].get("source", {}).get("location") or {}
            if location.get("type") != _LOCATION:
                return None
            details = {name: location[name] for name in _DETAILS if name in location}
            return Attachment(attachment_id=location["uri"], **details)
    return None


def attachments_in(messages: Iterable[Mapping[str, Any]]) -> Iterator[Attachment]:
    """Yield the attachments that messages name, in order, also in the results of tools."""
    for message in messages:
        for block in message["content"]:
            if "text" in block:
                continue
            for each in block["toolResult"]["content"] if "toolResult" in block else (block,):
                if (found := attachment_of(each)) is not None:
                    yield found


def text_of(attachment: Attachment) -> str:
    """Return the text that names an attachment where there is only text."""
    return f"[Attachment {attachment.attachment_id}, {attachment.media_type}]"


def left_out(attachment: Attachment, why: str) -> str:
    """Return the text that a model sees in place of an attachment."""
    return f"[Attachment {attachment.attachment_id}, {attachment.media_type}: left out, because {why}.]"


def with_texts(content: Iterable[Mapping[str, Any]], text: Callable[[Attachment], str]) -> list[Any]:
    """Return the content of a message, or of a tool's result, with a text in place of each attachment."""
    found: list[Any] = []
    for block in content:
        if "toolResult" in block:
            result = block["toolResult"]
            found.append({"toolResult": {**result, "content": with_texts(result["content"], text)}})
        else:
            attachment = attachment_of(block)
            found.append(block if attachment is None else {"text": text(attachment)})
    return found


def user_content(text: str, blocks: Iterable[Block]) -> list[Any]:
    """Return the content of a user's message: its text, then what it carries."""
    return [{"text": text}, *blocks]
