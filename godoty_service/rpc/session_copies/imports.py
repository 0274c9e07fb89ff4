"""Reads a session from lines of JSON (`SessionRecord`)."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Final, NoReturn

from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import attachment_pb2
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import session_record_pb2 as record_pb
from google.protobuf.json_format import Parse, ParseError

from godoty_service.agents.definitions import AgentReference
from godoty_service.attachments.attachment import Attachment
from godoty_service.attachments.blocks import text_of
from godoty_service.citations import CitationCollector
from godoty_service.errors import InvalidRequest
from godoty_service.rpc.agents.fields import read_agent
from godoty_service.rpc.conversations import codec
from godoty_service.rpc.session_copies.exports import FORMAT
from godoty_service.rpc.validation import LENGTHS, MODEL_ID, Violations
from godoty_service.session_copies.imported_attachments import AttachmentPiece
from godoty_service.session_copies.imports import NAMED, ImportedMessage

_MAX_BYTES: Final = 64 * 1024 * 1024  # of all lines, without those with bytes of attachments
_MAX_MESSAGE: Final = 1024 * 1024  # bytes of a message's blocks
_MAX_STATE: Final = 256 * 1024  # characters of the agent's state
_MAX_BLOCKS: Final = 1_000  # of a message
_MAX_DEPTH: Final = 20  # of a record
_LARGE: Final = 8 * 1024  # characters of a line that is parsed in a thread
_MAX_ID: Final = 128  # characters of the id of an attachment
_ROLES: Final = {session_pb.ROLE_USER: "user", session_pb.ROLE_ASSISTANT: "assistant"}


class SessionImport:
    """An import that is being received.

    Attributes:
        session_id: The id of the new session; None: not given.
        user: The name of its end user; None: there is none.
        agent: Its agent; None: the default.
        model: Its model; None: not given.
    """

    def __init__(self, requests: AsyncIterator[pb.ImportSessionRequest]) -> None:
        self._requests = requests
        self._records = self._read()
        self._line = 0
        self._bytes = 0  # of all lines, without those with bytes of attachments
        self._state: list[str] = []
        self._state_size = 0
        self._next: session_pb.Message | None = None
        self._content: list[session_pb.ContentBlock] = []
        self._index = -1  # of the last block
        self._texts: list[str] = []  # of the last block, piece by piece
        self._size = 0  # bytes of the message's blocks
        self._citations = CitationCollector()
        self.session_id: str | None = None
        self.user: str | None = None
        self.agent: AgentReference | None = None
        self.model: str | None = None
        self._count, self._ended = 0, False
        self._parsed_state: dict[str, Any] = {}

    async def begin(self) -> None:
        """Read the first line.

        Raises:
            InvalidRequest: It is none, or a field of the request is invalid.
        """
        async for record in self._records:
            if record.WhichOneof("record") != "begin" or record.begin.format != FORMAT:
                self._refuse(f"must be `begin` with the format {FORMAT}")
            session = record.begin.session
            if self.agent is None and session.agent:
                version = f"@{session.agent_version}" if session.HasField("agent_version") else ""
                violations = Violations()
                self.agent = read_agent("lines", f"{session.agent}{version}", violations)
                if violations.found:
                    self._refuse("has an agent that cannot be one")
            if session.model:
                self.model = session.model if MODEL_ID.fullmatch(session.model) else None
            self.user = self.user or session.user or None
            if self.user is not None and len(self.user) > LENGTHS["user"]:
                self._refuse(f"has an end user of more than {LENGTHS['user']} characters")
            return
        raise InvalidRequest.of("lines", "must be sent")

    async def contents(self) -> AsyncGenerator[ImportedMessage | AttachmentPiece, None]:
        """Yield the messages, and the pieces of attachments, as they arrive.

        Raises:
            InvalidRequest: A line is none of an export, or lines are missing.
        """
        async for record in self._records:
            if self._ended:
                self._refuse("follows the end")
            kind = record.WhichOneof("record")
            if kind in ("message", "attachment_data") and self._next is not None:
                yield self._message()
            if kind == "attachment_data":
                yield self._attachment_piece(record.attachment_data)
            else:
                self._add(record)
        if not self._ended:
            raise InvalidRequest.of("lines", "must have an `end`: the export is not complete")
        if self._next is not None:
            yield self._message()

    @property
    def state(self) -> Mapping[str, Any]:
        """The agent's state."""
        return self._parsed_state

    async def _read(self) -> AsyncIterator[record_pb.SessionRecord]:
        """Yield the records of all lines."""
        first = True
        async for request in self._requests:
            if first:
                self._read_fields(request)
                first = False
            self._bytes += len(request.lines.encode())
            if len(request.lines.encode()) > LENGTHS["lines"]:
                raise InvalidRequest.of("lines", f"must have at most {LENGTHS['lines']:,} bytes of UTF-8 in a request")
            if not request.lines.strip():
                raise InvalidRequest.of("lines", "must not be blank")
            for line in request.lines.split("\n"):
                if line.strip():
                    self._line += 1
                    record = await self._parse(line)
                    # In base64: they have a limit of their own.
                    self._bytes -= len(record.attachment_data.data) * 4 // 3
                    yield record
            if self._bytes > _MAX_BYTES:
                raise InvalidRequest.of("lines", f"must have at most {_MAX_BYTES:,} bytes, without attachments")

    def _read_fields(self, request: pb.ImportSessionRequest) -> None:
        violations = Violations()
        violations.check_caller_id("session_id", request.session_id)
        violations.check_length("user", request.user)
        self.agent = read_agent("agent", request.agent, violations) if request.agent else None
        violations.raise_if_any()
        self.session_id = request.session_id or None
        self.user = request.user or None

    async def _parse(self, line: str) -> record_pb.SessionRecord:
        """Return the record of a line; the event loop does not wait for a long one."""
        if len(line) > _LARGE:
            return await asyncio.to_thread(self._parse_now, line)
        return self._parse_now(line)

    def _parse_now(self, line: str) -> record_pb.SessionRecord:
        record = record_pb.SessionRecord()
        try:
            Parse(line, record, ignore_unknown_fields=True, max_recursion_depth=_MAX_DEPTH)
        except (ParseError, RecursionError, ValueError):
            self._refuse("is no SessionRecord as protobuf JSON")
        return record

    def _add(self, record: record_pb.SessionRecord) -> None:
        """Add what a record has; one of a later version has nothing that is known."""
        match record.WhichOneof("record"):
            case "message":
                self._begin_message(record.message)
            case "citation":
                self._cite(record.citation)
            case "content":
                self._add_content(record.content)
            case "state_json":
                self._add_state(record.state_json)
            case "end":
                self._end(record.end)
            case "begin":
                self._refuse("must not be `begin`")

    def _begin_message(self, message: session_pb.Message) -> None:
        if message.role not in _ROLES:
            self._refuse("has no role")
        self._count += 1
        self._next, self._content, self._index, self._size, self._texts = message, [], -1, 0, []
        self._citations = CitationCollector()

    def _cite(self, citation: session_pb.Citation) -> None:
        fields = {name: getattr(citation, name) for name in ("url", "title", "content", "start_index", "end_index")}
        self._citations.add([{"type": "url_citation", "url_citation": fields}])

    def _add_content(self, piece: record_pb.SessionContentPiece) -> None:
        """Add a block to the message, or a part of its last block."""
        if self._next is None or piece.block_index < self._index:
            self._refuse("belongs to no message, or to an earlier block")
        text = codec.text_of(piece.block) if piece.block.WhichOneof("block") else ""
        self._size += piece.block.ByteSize()
        if self._size > _MAX_MESSAGE:
            self._refuse(f"makes a message of more than {_MAX_MESSAGE:,} bytes")
        if piece.block_index > self._index:
            if len(self._content) >= _MAX_BLOCKS:
                self._refuse(f"makes a message of more than {_MAX_BLOCKS:,} blocks")
            self._end_block()
            self._content.append(piece.block)
            self._index, self._texts = piece.block_index, [text]
            return
        if piece.block.WhichOneof("block") != self._content[-1].WhichOneof("block"):
            self._refuse("is of another kind than the piece before")
        self._texts.append(text)

    def _end_block(self) -> None:
        """Join the pieces of the last block."""
        if len(self._texts) > 1:
            codec.set_text(self._content[-1], "".join(self._texts))
        self._texts = []

    def _add_state(self, piece: str) -> None:
        self._state.append(piece)
        self._state_size += len(piece)
        if self._state_size > _MAX_STATE:
            self._refuse(f"makes a state of more than {_MAX_STATE:,} characters")

    def _end(self, end: record_pb.SessionExportEnd) -> None:
        """Check that the export is complete, and read its state."""
        if end.message_count != self._count:
            self._refuse(f"says {end.message_count} messages, and there were {self._count}")
        self._ended = True
        try:
            state = json.loads("".join(self._state) or "{}")
        except (ValueError, RecursionError):
            state = None
        if not isinstance(state, dict):
            self._refuse("ends an export whose state is no JSON object")
        self._parsed_state = state

    def _attachment_piece(self, piece: record_pb.SessionAttachmentData) -> AttachmentPiece:
        if not 0 < len(piece.attachment.attachment_id) <= _MAX_ID:
            self._refuse("has bytes of no attachment")
        return AttachmentPiece(attachment_id=piece.attachment.attachment_id, data=piece.data)

    def _message(self) -> ImportedMessage:
        assert self._next is not None  # noqa: S101 - its callers have checked it
        self._end_block()
        content = [block for each in self._content if (block := self._block(each)) is not None]
        role, self._next = _ROLES[self._next.role], None
        return ImportedMessage(role=role, content=content, size=self._size, citations=self._citations.take())

    def _block(self, block: session_pb.ContentBlock) -> dict[str, Any] | None:
        """Return a content block as Strands has it; None: it is one that this build does not know."""
        match block.WhichOneof("block"):
            case "text":
                return {"text": block.text}
            case "reasoning":
                return {"reasoningContent": {"reasoningText": {"text": block.reasoning}}}
            case "tool_use":
                use = block.tool_use
                return {"toolUse": {"toolUseId": use.tool_call_id, "name": use.name, "input": self._input(use)}}
            case "tool_result":
                return {"toolResult": _result(block.tool_result)}
            case "attachment":
                return {NAMED: _attachment(block.attachment)}
        return None

    def _input(self, use: session_pb.ToolUse) -> dict[str, Any]:
        try:
            value = json.loads(use.input_json or "{}")
        except (ValueError, RecursionError):
            self._refuse("ends a message with a tool call whose input is no JSON")
        return value if isinstance(value, dict) else {}

    def _refuse(self, what: str) -> NoReturn:
        """Refuse the line that was read last.

        Raises:
            InvalidRequest: Always.
        """
        raise InvalidRequest.of("lines", f"line {self._line} {what}")


def _result(result: session_pb.ToolResult) -> dict[str, Any]:
    """Return the result of a tool: its text, with the attachments where their names are in it."""
    content: list[dict[str, Any]] = []
    rest = result.output
    for each in map(_attachment, result.attachments[:_MAX_BLOCKS]):
        before, found, after = rest.partition(text_of(each))
        if found:
            rest = after.removeprefix("\n")
            if before.strip():
                content.append({"text": before.removesuffix("\n")})
            content.append({NAMED: each})
    if rest.strip() or not content:
        content.append({"text": rest})
    succeeded = result.status == session_pb.TOOL_CALL_STATUS_SUCCESS
    status = "success" if succeeded else "error"
    return {"toolUseId": result.tool_call_id, "status": status, "content": content}


def _attachment(attachment: attachment_pb2.Attachment) -> Attachment:
    """Return the attachment that a line names; what the tenant has by this id is looked up."""
    return Attachment(
        attachment_id=attachment.attachment_id[:_MAX_ID], media_type=attachment.media_type[:_MAX_ID], size=0
    )
