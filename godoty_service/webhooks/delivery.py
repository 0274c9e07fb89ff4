"""A delivery: an event for one webhook, and what has become of it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class DeliveryState(StrEnum):
    """What has become of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    NOT_SENT = "not_sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery.

    Attributes:
        delivery_id: Its id, which sorts by creation.
        tenant_id: The tenant.
        webhook: The name of the webhook.
        webhook_uid: The generated id of the webhook.
        event_id: The event.
        event_type: The event's type, perhaps one of a later build.
        order: The place of the event among those of its turn and session.
        turn_id: The turn that it concerns; None: none.
        session_id: The session of that turn.
        user_reference: The reference of the session's end user.
        body: The body of the request.
        state: What has become of it.
        attempts: How many attempts were made since it was created, or delivered anew.
        next_time: When the next attempt is due.
        deadline: When it is attempted for the last time.
        create_time: When it was created.
        last_time: The time of the last attempt; None: there was none.
        last_status: The HTTP status of the last answer; None: there was none.
        last_error: Why the last attempt failed; empty: it did not.
    """

    delivery_id: str
    tenant_id: str
    webhook: str
    webhook_uid: str
    event_id: str
    event_type: str
    order: int
    turn_id: str | None
    session_id: str | None
    user_reference: str | None
    body: str
    state: DeliveryState
    attempts: int = 0
    next_time: datetime
    deadline: datetime
    create_time: datetime
    last_time: datetime | None = None
    last_status: int | None = None
    last_error: str = ""

    @property
    def group(self) -> str:
        """Deliveries of the same group are delivered in their order: those of a turn."""
        return self.turn_id or self.event_id

    @property
    def lane(self) -> str:
        """Deliveries of the same lane are not sent side by side: those of a session."""
        return self.session_id or self.group


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The outcome of an attempt.

    Attributes:
        status: The HTTP status of the answer; None: there was none.
        error: Why it failed; empty: it had success.
    """

    status: int | None = None
    error: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether the endpoint has taken the event."""
        return not self.error
