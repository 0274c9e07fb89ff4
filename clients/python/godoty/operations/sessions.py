"""Sessions: conversations, their messages and their cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from godoty.calls import Call, Pages, Stream
from godoty.codec import all_from, from_message
from godoty.types import ContentBlock, Fork, Message, Session, SessionMetrics
from godoty.v1 import agent_service_pb2 as pb

_IMPORT_BYTES = 256 * 1024  # of the lines of one request
_IMPORT_TIMEOUT = 150.0  # seconds; servers allow two minutes for the requests


def get(session_id: str) -> Call[Session]:
    """Return a session, without its messages."""
    request = pb.GetSessionRequest(session_id=session_id)
    return Call("AgentService.GetSession", request, lambda response: from_message(Session, response.session))


def list_sessions(*, user: str = "", page_size: int = 0) -> Pages[Session]:
    """Yield the tenant's sessions, most recently used first.

    Args:
        user: Only sessions of this end user; empty for all.
        page_size: Number of sessions per page; 0 for the server's default.
    """
    request = pb.ListSessionsRequest(user=user, page_size=page_size)
    return Pages("AgentService.ListSessions", request, lambda page: all_from(Session, page.sessions))


def messages(session_id: str, *, page_size: int = 0) -> Pages[Message]:
    """Yield the messages of a session, oldest first; a very large one is truncated (`ContentBlock.truncated`).

    Args:
        session_id: The session.
        page_size: Number of messages per page; 0 for the server's default.
    """
    request = pb.ListMessagesRequest(session_id=session_id, page_size=page_size)
    return Pages("AgentService.ListMessages", request, lambda page: all_from(Message, page.messages))


def read_message(session_id: str, number: int) -> Stream[tuple[int, ContentBlock]]:
    """Yield the content of one message in pieces, also of one that `messages` truncates.

    Each is the index of its block with a part of it: the parts' texts make the block's text, all else is the same in
    each part.
    """
    request = pb.ReadMessageRequest(session_id=session_id, number=number)

    def pieces(response: pb.ReadMessageResponse) -> tuple[tuple[int, ContentBlock], ...]:
        if not response.HasField("content"):
            return ()
        return ((response.block_index, from_message(ContentBlock, response.content)),)

    return Stream("AgentService.ReadMessage", request, pieces)


def metrics(session_id: str) -> Call[SessionMetrics]:
    """Return the cost and usage of a session, exact to the last decimal."""
    request = pb.GetSessionMetricsRequest(session_id=session_id)
    return Call("AgentService.GetSessionMetrics", request, lambda response: from_message(SessionMetrics, response))


def fork(session_id: str, *, fork_session_id: str = "", number: int = 0) -> Call[Fork]:
    """Make a session of another one's messages up to a point; its totals start at 0.

    Args:
        session_id: The session; it does not change.
        fork_session_id: The id of the new one; empty for a generated id.
        number: The last message that it has; that of a user's message: it ends before it, and `next_message` is that
            message. 0 for all messages.
    """
    request = pb.ForkSessionRequest(session_id=session_id, fork_session_id=fork_session_id, number=number)
    return Call("AgentService.ForkSession", request, lambda response: from_message(Fork, response))


def export(session_id: str) -> Stream[str]:
    """Yield a session as lines of JSON, each a `SessionRecord` as protobuf JSON, without its line end."""
    request = pb.ExportSessionRequest(session_id=session_id)
    return Stream("AgentService.ExportSession", request, lambda response: (response.line,))


def import_(lines: Iterable[str], *, session_id: str = "", user: str = "", agent: str = "") -> Call[Session]:
    """Make a session of the lines that `export` has yielded, perhaps of another tenant or server; its totals are 0.

    Args:
        lines: The lines, with or without line ends; an open file is such.
        session_id: The id of the new session, not in use; empty for a generated id.
        user: The tenant's end user; empty for that of the export.
        agent: The agent, by name or name@version; empty for that of the export.
    """
    first = pb.ImportSessionRequest(session_id=session_id, user=user, agent=agent)
    return Call(
        "AgentService.ImportSession",
        _import_requests(lines, first),
        lambda response: from_message(Session, response.session),
        timeout=_IMPORT_TIMEOUT,
    )


def delete(session_id: str) -> Call[None]:
    """Delete a session's conversation; its ledger entries remain."""
    return Call("AgentService.DeleteSession", pb.DeleteSessionRequest(session_id=session_id), lambda _: None)


def _import_requests(lines: Iterable[str], request: pb.ImportSessionRequest) -> Iterator[pb.ImportSessionRequest]:
    """Yield requests with as many lines each as one takes, the first of which is given without its lines."""
    whole: list[str] = []
    size = 0
    for line in lines:
        text = line.rstrip("\r\n")
        length = len(text.encode()) + 1
        if whole and size + length > _IMPORT_BYTES:
            request.lines = "\n".join(whole)
            yield request
            request, whole, size = pb.ImportSessionRequest(), [], 0
        if text:
            whole.append(text)
            size += length
    request.lines = "\n".join(whole)
    yield request
