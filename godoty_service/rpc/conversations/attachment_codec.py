"""Converts between attachment.proto and domain values, and checks what requests name."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import attachment_pb2

from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.attachments.attachment import Attachment, AttachmentSource, StoredAttachment
from godoty_service.errors import InvalidRequest
from godoty_service.rpc.agents.mcp_codec import check_url
from godoty_service.rpc.field_limits import FieldLimits, RequestTooLarge
from godoty_service.rpc.metering_codec import timestamp
from godoty_service.rpc.validation import BYTES, COUNTS, Decode, Violations

PIECE: Final = 64 * 1024  # bytes of one response of GetAttachment
_CONVERSE: Final = "/godoty.v1.AgentService/Converse"
_START: Final = "/godoty.v1.AgentService/StartTurn"
_REQUESTS: dict[str, Any] = {_CONVERSE: pb.ConverseRequest.DESCRIPTOR, _START: pb.StartTurnRequest.DESCRIPTOR}
_REQUEST: Final = pb.StartTurnRequest.REQUEST_FIELD_NUMBER << 3 | 2  # the tag of the turn to start
_ATTACHMENTS: Final = pb.ConverseRequest.ATTACHMENTS_FIELD_NUMBER << 3 | 2  # the tag of one attachment
_INLINE: Final = attachment_pb2.AttachmentSource.INLINE_FIELD_NUMBER << 3 | 2
_LONG: Final = ("action_results", "client_tools")
_LONG_FIELDS: Final = 128 * 1024  # bytes that these may have together
_MAX_FIELDS: Final = 128  # of a request that is looked at before it is decoded
_DELIMITED: Final = 2  # the wire type of texts, bytes and messages
_MORE: Final = 0x80  # the bit of a varint's byte that says that another follows
_SEVEN: Final = 7  # its other bits
_MAX_ID: Final = 128  # characters


class RequestLimits(FieldLimits):
    """The limits of requests, with the inline bytes of a turn's attachments apart.

    A request of a megabyte of anything else takes too long to decode.
    """

    def decoder(self, method: str, decode: Decode) -> Decode:
        """Return a decoder of a method's requests that refuses those above the limits.

        Args:
            method: Its full name.
            decode: Decodes a request of any size.
        """
        bounded = super().decoder(method, decode)
        if method not in _REQUESTS:
            return bounded
        most = self.largest(_REQUESTS[method]) - COUNTS["attachments"] * BYTES["inline"] + _LONG_FIELDS
        most -= sum(COUNTS[name] * self.largest(_field_type(name)) for name in _LONG)

        def checked(body: bytes) -> Any:
            if len(body) > most and len(body) - inline_bytes(_turn(body) if method == _START else body) > most:
                text = f"The request has {len(body):,} bytes; at most {most:,} are taken beside inline attachments."
                raise RequestTooLarge(text)
            return bounded(body)

        return checked


def _turn(body: bytes) -> bytes:
    """Return the encoded ConverseRequest at the start of an encoded StartTurnRequest; empty: there is none."""
    try:
        tag, offset = _varint(body, 0)
        size, offset = _varint(body, offset)
    except IndexError:
        return b""
    return body[offset : offset + size] if tag == _REQUEST else b""


def _field_type(name: str) -> Any:
    return _REQUESTS[_CONVERSE].fields_by_name[name].message_type


def inline_bytes(body: bytes) -> int:
    """Return the inline bytes of the attachments in an encoded ConverseRequest, without decoding the rest."""
    total = offset = 0
    try:
        for _ in range(_MAX_FIELDS):
            if offset >= len(body):
                break
            tag, offset = _varint(body, offset)
            if tag & 7 != _DELIMITED:
                _, offset = _varint(body, offset)  # fields of fixed width are none of the request's
                continue
            size, offset = _varint(body, offset)
            if tag == _ATTACHMENTS:
                inner, at = _varint(body, offset)
                length, at = _varint(body, at)
                if inner == _INLINE and at + length == offset + size <= len(body):
                    total += length
            offset += size
    except IndexError:
        return 0
    return total


def _varint(body: bytes, offset: int) -> tuple[int, int]:
    """Return a number and the offset after it.

    Raises:
        IndexError: The body ends within it.
    """
    value = shift = 0
    while True:
        byte = body[offset]
        value |= (byte & ~_MORE) << shift
        offset, shift = offset + 1, shift + _SEVEN
        if byte < _MORE or shift > 63:  # noqa: PLR2004 - of ten bytes at most
            return value, offset


def read_sources(
    sources: Sequence[attachment_pb2.AttachmentSource], rules: AddressRules, violations: Violations
) -> tuple[AttachmentSource, ...]:
    """Return what a request names as attachments; add a violation for each that is none.

    Args:
        sources: What the request has.
        rules: The addresses from which files may be fetched.
        violations: The violations.
    """
    if len(sources) > COUNTS["attachments"]:
        violations.add("attachments", f"must be at most {COUNTS['attachments']}")
        return ()
    found: list[AttachmentSource] = []
    for index, each in enumerate(sources):
        match each.WhichOneof("source"):
            case "attachment_id" if 0 < len(each.attachment_id) <= _MAX_ID:
                found.append(AttachmentSource(each.attachment_id))
            case "attachment_id":
                violations.add(f"attachments[{index}].attachment_id", f"must have 1 to {_MAX_ID} characters")
            case "inline" if each.inline:
                found.append(AttachmentSource.of_bytes(each.inline))
            case "inline":
                violations.add(f"attachments[{index}].inline", "must not be empty")
            case "url":
                check_url(f"attachments[{index}].url", each.url, rules, violations, "GODOTY_ATTACHMENT_NETWORKS")
                found.append(AttachmentSource.of_url(each.url))
            case _:
                violations.add(f"attachments[{index}]", "must have an attachment_id, inline bytes or a url")
    if sum(len(each.data or b"") for each in found) > BYTES["inline"]:
        violations.add("attachments", f"must have at most {BYTES['inline']:,} inline bytes together")
    ids = [each.attachment_id for each in found]
    if len(set(ids)) < len(ids):
        violations.add("attachments", "must not name the same attachment twice")
    return tuple(found)


def parse_attachment_id(text: str) -> str:
    """Check the id of an attachment.

    Raises:
        InvalidRequest: It cannot be an id.
    """
    violations = Violations()
    violations.check_id("attachment_id", text)
    violations.raise_if_any()
    return text


async def upload_pieces(requests: AsyncIterator[pb.UploadAttachmentRequest]) -> AsyncIterator[bytes]:
    """Yield the pieces of an upload.

    Raises:
        InvalidRequest: A piece is empty, or there is none.
    """
    begun = False
    async for request in requests:
        if not request.data:
            raise InvalidRequest.of("data", "must not be empty")
        begun = True
        yield request.data
    if not begun:
        raise InvalidRequest.of("data", "must be sent")


def upload_message(stored: StoredAttachment) -> pb.UploadAttachmentResponse:
    """Convert an attachment that was stored."""
    return pb.UploadAttachmentResponse(
        attachment=attachment_message(stored.attachment),
        expire_time=timestamp(stored.expire_time) if stored.expire_time is not None else None,
    )


def piece_messages(attachment: Attachment | None, data: bytes) -> Iterator[pb.GetAttachmentResponse]:
    """Convert bytes to responses of at most `PIECE` bytes; the first of them has the attachment, if one is given."""
    for start in range(0, len(data), PIECE):
        response = pb.GetAttachmentResponse(data=data[start : start + PIECE])
        if attachment is not None and start == 0:
            response.attachment.CopyFrom(attachment_message(attachment))
        yield response


def attachment_message(attachment: Attachment) -> attachment_pb2.Attachment:
    """Convert an attachment."""
    return attachment_pb2.Attachment(
        attachment_id=attachment.attachment_id,
        media_type=attachment.media_type,
        size_bytes=attachment.size,
        width=attachment.width,
        height=attachment.height,
        pages=attachment.pages,
    )
