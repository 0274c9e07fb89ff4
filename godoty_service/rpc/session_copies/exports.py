"""Writes a session as lines of JSON (`SessionRecord`)."""

from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from contextlib import aclosing
from typing import Final

from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import session_record_pb2 as record_pb
from google.protobuf.json_format import MessageToJson

from godoty_service.aio.byte_limiter import ByteLimiter
from godoty_service.attachments.attachment import Attachment
from godoty_service.attachments.attachments import Attachments
from godoty_service.attachments.blocks import attachments_in
from godoty_service.attachments.chunks import count
from godoty_service.attachments.errors import AttachmentNotFound
from godoty_service.clock import Clock
from godoty_service.errors import StorageUnavailable
from godoty_service.ledger.totals import SessionTotals
from godoty_service.rpc.conversations.attachment_codec import attachment_message
from godoty_service.rpc.conversations.codec import message_pieces, pieces
from godoty_service.rpc.metering_codec import timestamp, totals_message
from godoty_service.sessions.agent_states import state_text
from godoty_service.sessions.messages import MessageStore, StoredMessage
from godoty_service.sessions.session import Session
from godoty_service.sessions.store import missing_session

FORMAT: Final = 1
ATTACHMENT_PIECE: Final = 128 * 1024  # bytes of an attachment in one line: base64 makes 171 KiB of them
# Bytes of text in one line: JSON escapes a byte by six at most, so that a line has 256 KiB.
_PIECE: Final = 32 * 1024
_PAGE: Final = 100  # messages that are read together
_PAGE_BYTES: Final = 128 * 1024  # of them, unless one is larger: a caller that reads slowly has them in memory


class SessionExport:
    """Exports the messages of sessions that were read."""

    def __init__(self, messages: MessageStore, attachments: Attachments, limiter: ByteLimiter, *, clock: Clock) -> None:
        """Create it.

        Args:
            messages: The messages.
            attachments: What they name.
            limiter: Limits the bytes of messages that are in memory.
            clock: Returns the current time.
        """
        self._messages = messages
        self._attachments = attachments
        self._limiter = limiter
        self._clock = clock

    async def lines(
        self,
        session: Session,
        shown: session_pb.Session,
        totals: SessionTotals,
        request: pb.ExportSessionRequest,
    ) -> AsyncGenerator[pb.ExportSessionResponse, None]:
        """Yield the lines of a session.

        Args:
            session: The session.
            shown: The session as callers see it.
            totals: Its totals.
            request: Says whether the lines carry the bytes of attachments.

        Raises:
            SessionNotFound: It was deleted meanwhile.
        """
        length = shown.message_count = session.message_count
        begin = record_pb.SessionExportBegin(
            format=FORMAT, export_time=timestamp(self._clock()), session=shown, totals=totals_message(totals.current())
        )
        yield _line(record_pb.SessionRecord(begin=begin))
        number, carried = 0, set[str]()
        while number < length:
            found, _ = await self._messages.page(
                session.tenant_id, session.uid, after=number, limit=min(_PAGE, length - number), most_bytes=_PAGE_BYTES
            )
            async with self._limiter.hold(sum(each.size for each in found), owner=session.tenant_id):
                messages = await self._messages.load(session.tenant_id, session.uid, found)
                named = _named(messages, carried) if request.include_attachments else []
                for message in () if named else messages:
                    for record in _message_records(message):
                        yield _line(record)
                    number += 1
            messages = []  # not in memory while attachments are sent, as they do not count any more
            for attachment in named:
                async with aclosing(self._attachment_records(session.tenant_id, attachment)) as records:
                    async for record in records:
                        yield _line(record)
            carried.update(each.attachment_id for each in named)
            if not named and (not found or found[-1].number != number):
                raise missing_session(session.session_id)
        state = state_text(session.state)
        for piece in pieces(state, _PIECE) if state != "{}" else ():
            yield _line(record_pb.SessionRecord(state_json=piece))
        yield _line(record_pb.SessionRecord(end=record_pb.SessionExportEnd(message_count=length)))

    async def _attachment_records(
        self, tenant_id: str, attachment: Attachment
    ) -> AsyncGenerator[record_pb.SessionRecord, None]:
        """Yield the records of the bytes of an attachment; none if it is deleted.

        Raises:
            StorageUnavailable: It is just being deleted.
        """
        try:
            stored = await self._attachments.store.get(tenant_id, attachment.attachment_id)
        except AttachmentNotFound:
            return
        shown, chunks = attachment_message(stored.attachment), self._attachments.store.chunks
        for number in range(count(stored.attachment.size)):
            chunk = await chunks.read(tenant_id, stored.content_id, number)
            if chunk is None:
                raise StorageUnavailable("The bytes of an attachment are missing.")
            for start in range(0, len(chunk), ATTACHMENT_PIECE):
                piece = chunk[start : start + ATTACHMENT_PIECE]
                yield record_pb.SessionRecord(
                    attachment_data=record_pb.SessionAttachmentData(attachment=shown, data=piece)
                )


def _named(messages: Sequence[StoredMessage], carried: Collection[str]) -> list[Attachment]:
    """Return the attachments that messages name, each once, without those that were carried."""
    found = attachments_in({"content": each.content} for each in messages)
    return [*{each.attachment_id: each for each in found if each.attachment_id not in carried}.values()]


def _message_records(message: StoredMessage) -> Iterator[record_pb.SessionRecord]:
    """Yield the records of a message."""
    for piece in message_pieces(message, size=_PIECE):
        if piece.HasField("message"):
            citations = list(piece.message.citations)
            del piece.message.citations[:]
            yield record_pb.SessionRecord(message=piece.message)
            for each in citations:
                yield record_pb.SessionRecord(citation=each)
        if piece.HasField("content"):
            content = record_pb.SessionContentPiece(block_index=piece.block_index, block=piece.content)
            yield record_pb.SessionRecord(content=content)


def _line(record: record_pb.SessionRecord) -> pb.ExportSessionResponse:
    text = MessageToJson(record, preserving_proto_field_name=True, indent=None, ensure_ascii=False)
    return pb.ExportSessionResponse(line=text)
