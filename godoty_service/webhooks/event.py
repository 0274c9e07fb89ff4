"""Events that webhooks deliver: their ids, which follow from what they report, and their bodies. No I/O."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from godoty_service.clock import milliseconds_of


class EventType(StrEnum):
    """The type of an event."""

    TURN_FINISHED = "turn.finished"
    TURN_ACTION_REQUIRED = "turn.action_required"
    BUDGET_THRESHOLD = "budget.threshold"
    CALL_UNRESOLVED = "call.unresolved"
    WEBHOOK_DISABLED = "webhook.disabled"


_RANKS = {each: rank for rank, each in enumerate(EventType)}  # of events of the same time
_MOST_OF_A_TIME = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEvent:
    """An event.

    Attributes:
        event_id: Its id: the same whenever and by whichever server the event is derived.
        event_type: Its type.
        tenant_id: The tenant.
        time: When it happened.
        data: What the body reports.
        turn_id: The turn that it concerns; None: none.
        session_id: The session of that turn.
        user_reference: The reference of the session's end user, by which an erasure finds it; not in the body.
        webhook: The webhook that it concerns; empty: none.
    """

    event_id: str
    event_type: EventType
    tenant_id: str
    time: datetime
    data: Mapping[str, Any] = field(default_factory=dict)
    turn_id: str | None = None
    session_id: str | None = None
    user_reference: str | None = None
    webhook: str = ""

    @property
    def order(self) -> int:
        """The place among the events of its turn and session: by time, then as the types are declared."""
        return milliseconds_of(self.time) * _MOST_OF_A_TIME + _RANKS[self.event_type]

    @property
    def body(self) -> str:
        """The body of the request, as JSON."""
        fields = {
            "id": self.event_id,
            "type": self.event_type.value,
            "timestamp": timestamp(self.time),
            "data": {"tenant_id": self.tenant_id, **self.data},
        }
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def event_id_of(tenant_id: str, event_type: EventType, *source: str) -> str:
    """Return the id of an event.

    Args:
        tenant_id: The tenant.
        event_type: The type.
        source: What identifies the fact that it reports, within the tenant and the type.
    """
    text = json.dumps([tenant_id, event_type.value, *source])
    return f"evt_{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def timestamp(time: datetime) -> str:
    """Return a time as RFC 3339 has it, in UTC with milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
