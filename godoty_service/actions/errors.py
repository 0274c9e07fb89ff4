"""The errors of actions, beside those of `godoty_service/errors.py`.

GodotyError
├── ActionNotFound    the tenant has no such action, or the session has another
├── ActionDecided     the action has another answer
├── ActionClosed      no answer can reach the action any more
├── ActionExpired     no answer came in time
└── ReviewerOnly      the key lacks the scope approve
"""

from godoty_service.errors import GodotyError


class ActionNotFound(GodotyError):
    """The tenant has no such action, or the session that the request names has another."""

    reason = "ACTION_NOT_FOUND"

    @classmethod
    def of(cls, action_id: str) -> "ActionNotFound":
        """Return the error for an id."""
        return cls(f"There is no action {action_id}.", metadata={"action_id": action_id})


class ActionDecided(GodotyError):
    """The action has another answer, or one of another key or user."""

    reason = "ACTION_DECIDED"

    @classmethod
    def of(cls, action_id: str, *, key_id: str) -> "ActionDecided":
        """Return the error for an action that a key has answered."""
        text = f"The action {action_id} was answered before, by the API key {key_id}: that answer counts."
        return cls(text, metadata={"action_id": action_id, "api_key_id": key_id})


class ActionClosed(GodotyError):
    """No answer can reach the action any more."""

    reason = "ACTION_CLOSED"

    @classmethod
    def of(cls, action_id: str, *, turn_id: str = "") -> "ActionClosed":
        """Return the error for an action, with the turn that has gone on; empty: none has."""
        text = f"The action {action_id} is closed: its session has gone on without this answer."
        return cls(text, metadata={"action_id": action_id, **({"turn_id": turn_id} if turn_id else {})})


class ActionExpired(GodotyError):
    """No answer to the action came in time."""

    reason = "ACTION_EXPIRED"

    @classmethod
    def of(cls, action_id: str) -> "ActionExpired":
        """Return the error for an action."""
        text = f"The action {action_id} has expired: no answer came in time, so it counts as denied."
        return cls(text, metadata={"action_id": action_id})


class ReviewerOnly(GodotyError):
    """The action is for reviewers, and the key lacks their scope."""

    reason = "REVIEWER_ONLY"

    @classmethod
    def of(cls, action_id: str) -> "ReviewerOnly":
        """Return the error for an action."""
        text = f"The action {action_id} needs an API key of the scope approve."
        return cls(text, metadata={"action_id": action_id})
