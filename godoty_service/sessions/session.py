"""A session, as a value, and the lease that one turn at a time holds on it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who is at work on a session.

    Attributes:
        turn_id: The turn.
        replica_id: The server that runs it; its heartbeat tells whether it lives.
        text: What the user said: it rides here, so that it is durable with the claim.
        request_id: The id of the request that made the turn, if it has one.
        model: The model that the request names; the session has it once the turn has ended.
        user: The end user that the request names, likewise.
        before: The turns that it took the session over from, one from the other: it may not have closed them yet.
    """

    turn_id: str
    replica_id: str
    text: str
    request_id: str | None = None
    model: str | None = None
    user: str | None = None
    before: "tuple[Lease, ...]" = ()

    @property
    def deletes(self) -> bool:
        """It is held to delete the session: no turn's text is blank."""
        return not self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the model sees in place of a session's oldest messages.

    Attributes:
        head: The messages in their place: a summary.
        after: The number of the last message that they stand for.
    """

    head: list[dict[str, Any]]
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A conversation, without its messages.

    Attributes:
        uid: Our id. `session_id` is the caller's, who may use it again after a deletion.
        message_count: The number of the last message, as of the last turn that ended well.
        state: The agent's state.
        context: What stands for the oldest messages, where they were summed up.
        fold: The metering room's fold of the session's entries, as it wrote it; `fold_revision` counts its writes.
        fence: How often the session was claimed. Each write of a turn carries the number it claimed with.
        unfolded: There may be entries that the fold does not know, though no turn is running.
    """

    uid: str
    tenant_id: str
    session_id: str
    user: str | None
    model: str
    message_count: int
    state: dict[str, Any]
    context: Context | None
    fold: dict[str, Any] | None
    fold_revision: int
    fence: int
    lease: Lease | None
    unfolded: bool
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A session that a turn has claimed.

    Attributes:
        session: As it is with the claim.
        created: The claim made it.
        taken_from: The lease of a dead server's turn that it was taken over from.
    """

    session: Session
    created: bool
    taken_from: Lease | None

    @property
    def turn_id(self) -> str:
        """The turn that has the lease."""
        return self.session.lease.turn_id if self.session.lease is not None else ""
