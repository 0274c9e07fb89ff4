"""Writes a session as lines of JSON (`SessionRecord`)."""

from collections.abc import AsyncGenerator, Iterator
from datetime import datetime
from typing import Final

from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import session_record_pb2 as record_pb
from google.protobuf.json_format import MessageToJson

from godoty_service.aio.byte_limiter import ByteLimiter
from godoty_service.ledger.totals import SessionTotals
from godoty_service.rpc.agent_codec import message_pieces, pieces
from godoty_service.rpc.metering_codec import timestamp, totals_message
from godoty_service.sessions.agent_states import state_text
from godoty_service.sessions.messages import MessageStore, StoredMessage
from godoty_service.sessions.session import Session
from godoty_service.sessions.store import missing_session

FORMAT: Final = 1
# Bytes of text in one line: JSON escapes a byte by six at most, so that a line has 256 KiB.
_PIECE: Final = 32 * 1024
_PAGE: Final = 100  # messages that are read together
_PAGE_BYTES: Final = 128 * 1024  # of them, unless one is larger: a caller that reads slowly has them in memory


class SessionExport:
    """Exports the messages of sessions that were read."""

    def __init__(self, messages: MessageStore, limiter: ByteLimiter) -> None:
        """Create it.

        Args:
            messages: The messages.
            limiter: Limits the bytes of messages that are in memory.
        """
        self._messages = messages
        self._limiter = limiter

    async def lines(
        self, session: Session, shown: session_pb.Session, totals: SessionTotals, *, time: datetime
    ) -> AsyncGenerator[pb.ExportSessionResponse, None]:
        """Yield the lines of a session.

        Args:
            session: The session.
            shown: The session as callers see it.
            totals: Its totals.
            time: The current time.

        Raises:
            SessionNotFound: It was deleted meanwhile.
        """
        count = shown.message_count = session.message_count
        begin = record_pb.SessionExportBegin(
            format=FORMAT, export_time=timestamp(time), session=shown, totals=totals_message(totals.current())
        )
        yield _line(record_pb.SessionRecord(begin=begin))
        number = 0
        while number < count:
            found, _ = await self._messages.page(
                session.tenant_id, session.uid, after=number, limit=min(_PAGE, count - number), most_bytes=_PAGE_BYTES
            )
            async with self._limiter.hold(sum(each.size for each in found)):
                for message in await self._messages.load(session.tenant_id, session.uid, found):
                    for record in _message_records(message):
                        yield _line(record)
                    number += 1
            if not found or found[-1].number != number:
                raise missing_session(session.session_id)
        state = state_text(session.state)
        for piece in pieces(state, _PIECE) if state != "{}" else ():
            yield _line(record_pb.SessionRecord(state_json=piece))
        yield _line(record_pb.SessionRecord(end=record_pb.SessionExportEnd(message_count=count)))


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
