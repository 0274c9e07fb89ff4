"""The errors of forks and imports.

GodotyError
├── ForkPointRefused   the session cannot be forked at a message
├── SessionExists      the id of the new session is that of another one
└── SessionTooLarge    the session has more messages than are copied
"""

from godoty_service.errors import GodotyError, QuotaExceeded


class ForkPointRefused(GodotyError):
    """The session cannot be forked at the message."""

    reason = "FORK_POINT_REFUSED"

    @classmethod
    def of(cls, session_id: str, number: int) -> "ForkPointRefused":
        """Return the error for a message."""
        text = f"Message {number} is in the middle of a tool call: fork at the user's words, or after an answer."
        return cls(text, metadata={"session_id": session_id, "number": str(number)})


class SessionExists(GodotyError):
    """The tenant has a session with the id of the new one."""

    reason = "SESSION_EXISTS"

    @classmethod
    def of(cls, session_id: str) -> "SessionExists":
        """Return the error for an id."""
        return cls(f"There is a session {session_id} already.", metadata={"session_id": session_id})


class SessionTooLarge(QuotaExceeded):
    """The session has more messages, or names more attachments, than are copied."""

    reason = "SESSION_TOO_LARGE"

    @classmethod
    def of(cls, limit: int, what: str = "messages") -> "SessionTooLarge":
        """Return the error for the most messages or attachments of a copy."""
        text = f"A session with more than {limit:,} {what} is not copied."
        return cls(text, quota=f"{what}/copy", metadata={"limit": str(limit)})
