"""The ends of turns of which webhooks are to be notified, in the last chunks of their logs.

The last chunk has the end in its field `outbox` from its insertion on, if the tenant has webhooks (`Wants`). So no end
is stored without it, and none is in it that is not stored. It is removed once the deliveries are stored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from godoty_service.clock import from_milliseconds
from godoty_service.errors import GodotyError
from godoty_service.ledger.totals import Totals
from godoty_service.mongo.collection import Collection, Document
from godoty_service.turns.event_log.codec import totals_from_log, totals_to_log
from godoty_service.turns.event_log.events import Event, TurnFinished, TurnStarted

Wants = Callable[[str], bool]  # returns whether a tenant is notified of its turns

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PENDING: Document = {"outbox.time": {"$gt": EPOCH}}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTurn:
    """The end of a turn.

    Attributes:
        turn_id: The turn.
        tenant_id: The tenant.
        session_id: The session.
        agent: The name of the agent; empty: unknown.
        agent_version: The number of its version; None: unknown.
        user_reference: The reference of the session's end user; None: there is none.
        time: The time of the end.
        stop_reason: The value of the `StopReason`, perhaps of a later build; None: the turn failed.
        error_reason: The reason of the error that it failed with.
        turn_totals: The turn's totals; None: only the ledger has them.
        session_totals: The session's totals; None: likewise.
        action_ids: The actions that are open.
    """

    turn_id: str
    tenant_id: str
    session_id: str
    agent: str = ""
    agent_version: int | None = None
    user_reference: str | None = None
    time: datetime
    stop_reason: str | None = None
    error_reason: str | None = None
    turn_totals: Totals | None = None
    session_totals: Totals | None = None
    action_ids: tuple[str, ...] = ()

    def to_document(self) -> Document:
        """Return what the last chunk of the log has of it, beside the ids of the turn and the tenant."""
        totals = {"turn_totals": self.turn_totals, "session_totals": self.session_totals}
        return {
            "time": self.time,
            "session_id": self.session_id,
            "agent": self.agent,
            "agent_version": self.agent_version,
            "user_reference": self.user_reference,
            "stop_reason": self.stop_reason,
            "error_reason": self.error_reason,
            **({"action_ids": list(self.action_ids)} if self.action_ids else {}),
            **{name: totals_to_log(each) for name, each in totals.items() if each is not None},
        }


def ended_turn(
    ids: tuple[str, str, str],
    last: Event | None,
    *,
    agent: tuple[str, int | None] = ("", None),
    user_reference: str | None,
    time: int,
    error: GodotyError | None,
) -> EndedTurn:
    """Return the end of a turn.

    Args:
        ids: The ids of the turn, its tenant and its session.
        last: The last event of its log.
        agent: The agent's name and version.
        user_reference: The reference of the session's end user.
        time: The time of the end in milliseconds since 1970.
        error: The error that it failed with.
    """
    finished = last if isinstance(last, TurnFinished) and error is None else None
    return EndedTurn(
        turn_id=ids[0],
        tenant_id=ids[1],
        session_id=ids[2],
        agent=agent[0],
        agent_version=agent[1],
        user_reference=user_reference,
        time=from_milliseconds(time),
        stop_reason=finished.stop_reason.value if finished is not None else None,
        error_reason=error.reason if error is not None else None,
        turn_totals=finished.turn_totals if finished is not None else None,
        session_totals=finished.session_totals if finished is not None else None,
        action_ids=tuple(each.call_id for each in finished.actions) if finished is not None else (),
    )


def agent_of(events: Sequence[Event]) -> tuple[str, int | None]:
    """Return the name and the version of the agent that a log names; empty and None: it does not."""
    started = next((each for each in events if isinstance(each, TurnStarted)), None)
    return ("", None) if started is None else (started.agent, started.agent_version)


class TurnOutbox:
    """The ends that are pending. `EventLogStore` owns the collection."""

    def __init__(self, chunks: Collection) -> None:
        """Create it.

        Args:
            chunks: `turn_logs`.
        """
        self._chunks = chunks

    async def pending(self, *, limit: int) -> list[EndedTurn]:
        """Return some pending ends, the earliest first."""
        fields = {"turn_id": 1, "tenant_id": 1, "outbox": 1}
        found = await self._chunks.find(PENDING, sort=[("outbox.time", 1)], limit=limit, fields=fields)
        return [_from_document(each) for each in found]

    async def remove(self, turns: Sequence[EndedTurn]) -> None:
        """Remove ends whose deliveries are stored."""
        # The tenant and the end identify the chunk by an index; a turn has one last chunk, or a tombstone after it.
        query = {"tenant_id": {"$in": [*{each.tenant_id for each in turns}]}, "ended": True}
        turn_ids = {"turn_id": {"$in": [each.turn_id for each in turns]}}
        await self._chunks.update_many({**query, **turn_ids}, {"$unset": {"outbox": ""}})

    async def forget_user(self, tenant_id: str, user_reference: str) -> None:
        """Remove the pending ends of an end user's turns."""
        query = {**PENDING, "tenant_id": tenant_id, "outbox.user_reference": user_reference}
        await self._chunks.update_many(query, {"$unset": {"outbox": ""}})


def _from_document(document: Document) -> EndedTurn:
    found: dict[str, Any] = document["outbox"]
    turn, session = found.get("turn_totals"), found.get("session_totals")
    return EndedTurn(
        turn_id=document["turn_id"],
        tenant_id=document["tenant_id"],
        session_id=found["session_id"],
        agent=found.get("agent") or "",
        agent_version=found.get("agent_version"),
        user_reference=found.get("user_reference"),
        time=found["time"],
        stop_reason=found.get("stop_reason"),
        error_reason=found.get("error_reason"),
        turn_totals=totals_from_log(turn) if turn is not None else None,
        session_totals=totals_from_log(session) if session is not None else None,
        action_ids=tuple(found.get("action_ids", ())),
    )
