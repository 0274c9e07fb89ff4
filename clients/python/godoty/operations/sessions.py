"""Sessions: conversations, their messages and their cost."""

from __future__ import annotations

from godoty.calls import Call, Pages, Stream
from godoty.codec import all_from, from_message
from godoty.types import ContentBlock, Fork, Message, Session, SessionMetrics
from godoty.v1 import agent_service_pb2 as pb


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


def delete(session_id: str) -> Call[None]:
    """Delete a session's conversation; its ledger entries remain."""
    return Call("AgentService.DeleteSession", pb.DeleteSessionRequest(session_id=session_id), lambda _: None)
