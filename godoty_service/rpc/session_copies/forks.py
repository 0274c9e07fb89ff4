"""Converts the requests and responses of ForkSession."""

from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import session_pb2 as session_pb

from godoty_service.rpc.conversations.attachment_codec import attachment_message
from godoty_service.rpc.conversations.codec import parse_session_id
from godoty_service.rpc.validation import Violations
from godoty_service.session_copies.forks import UserMessage


def parse_fork(request: pb.ForkSessionRequest) -> tuple[str, int | None, str | None]:
    """Return the session to fork, the message at which to fork it, and the id of the fork; None: not given.

    Raises:
        InvalidRequest: A field is invalid.
    """
    violations = Violations()
    violations.check_caller_id("fork_session_id", request.fork_session_id)
    if request.fork_session_id and request.fork_session_id == request.session_id:
        violations.add("fork_session_id", "must be another id than session_id")
    if request.number < 0:
        violations.add("number", "must not be negative")
    violations.raise_if_any()
    return parse_session_id(request.session_id), request.number or None, request.fork_session_id or None


def next_message(message: UserMessage) -> session_pb.UserMessage:
    """Convert the user's message before which a fork ends."""
    return session_pb.UserMessage(text=message.text, attachments=map(attachment_message, message.attachments))
