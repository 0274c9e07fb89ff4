"""A session as a value, and the lease that one turn at a time holds on it."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from godoty_service.errors import FieldViolation, InvalidRequest
from godoty_service.ledger.entries import FIRST_AGENT
from godoty_service.users.references import EndUser


class OtherEndUser(InvalidRequest):
    """The session belongs to another end user, whose reference is `owner`; None: it has the name alone."""

    def __init__(self, owner: str | None) -> None:
        text = "the session belongs to another end user"
        super().__init__(f"user: {text}", violations=[FieldViolation(field="user", description=text)])
        self.owner = owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right of one turn or deletion to write to a session.

    Attributes:
        turn_id: The turn, or the deletion.
        replica_id: The server that runs it; its heartbeat shows whether it is alive. Empty: no server runs it.
        text: The user's text, stored here so that it is durable with the lease; empty: a deletion.
        request_id: The id of the turn's request; None: it has none.
        model: The model that the request names; it becomes the session's when the turn ends.
        user: The name of the end user that the request names; likewise. Builds of schema 1 store and read it.
        user_reference: The reference of that end user.
        attachments: The content blocks of what the text carries.
        answers: The turn goes on with answers to actions: the text is none of the user's.
        predecessors: The dead turns from which the session was taken over, the oldest first; their messages may not be
            complete yet.
    """

    turn_id: str
    replica_id: str
    text: str
    request_id: str | None = None
    model: str | None = None
    user: str | None = None
    user_reference: str | None = None
    attachments: tuple[dict[str, Any], ...] = ()
    answers: bool = False
    predecessors: "tuple[Lease, ...]" = ()

    @property
    def deletes(self) -> bool:
        """Whether it is held to delete the session: no turn's text is empty."""
        return not self.text


@dataclass(frozen=True, slots=True)
class SessionAgent:
    """The agent with which a session begins.

    Attributes:
        name: Its name.
        version: The version that the session's turns take; None: the newest one.
    """

    name: str = FIRST_AGENT
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySummary:
    """The messages that the model sees in place of a session's oldest messages.

    Attributes:
        head: The replacement: a summary, or nothing.
        after: The number of the last message that is replaced.
    """

    head: list[dict[str, Any]]
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOrigin:
    """What a session was forked from.

    Attributes:
        uid: The generated id of that session.
        session_id: The caller's id, which another session may have by now.
        number: The number of the last message that was copied.
    """

    uid: str
    session_id: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A conversation, without its messages.

    Attributes:
        uid: The generated id. `session_id` is the caller's, and can be used again after a deletion.
        user: The name of the end user; None: it is not stored here, or there is none.
        user_reference: The reference of the end user; None: there is none, or schema 1 stored the name alone.
        message_count: The number of the last message when the last turn ended.
        state: The agent's state.
        summary: The replacement of the oldest messages; None: there is none.
        totals: The document of the session's totals; `totals_revision` counts its writes.
        fence: The number of leases so far. Each write of a turn is filtered by the fence of its own lease.
        totals_stale: The ledger may have entries that the totals do not include, although no turn is running.
        agent: The name of the agent, with which it began.
        agent_version: The version of the agent with which it began; None: with the newest, which its turns take.
        state_number: The number of the message that stores the agent's state; 0: it is empty; None: no message does.
        origin: What it was forked from; None: nothing.
        waiting_step: The step whose actions its last turn has left open; empty: it has left none.
    """

    uid: str
    tenant_id: str
    session_id: str
    user: str | None
    user_reference: str | None
    model: str
    message_count: int
    state: dict[str, Any]
    summary: HistorySummary | None
    totals: dict[str, Any] | None
    totals_revision: int
    fence: int
    lease: Lease | None
    totals_stale: bool
    create_time: datetime
    update_time: datetime
    agent: str = FIRST_AGENT
    agent_version: int | None = None
    state_number: int | None = None
    origin: SessionOrigin | None = None
    waiting_step: str = ""

    def as_requested(self) -> "Session":
        """Return the session with the model and the end user that its leases name, the newest lease first.

        The document gets them when a turn ends: an acquisition that is undone has changed nothing.
        """
        session = self
        for lease in (*self.lease.predecessors, self.lease) if self.lease is not None else ():
            session = replace(
                session,
                model=lease.model or session.model,
                user=lease.user or session.user,
                user_reference=lease.user_reference or session.user_reference,
            )
        return session

    def belongs_to(self, user: EndUser) -> bool:
        """Return whether it belongs to an end user, or to none yet."""
        return self.user_reference in (user.reference, None) and self.user in (user.name, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A session whose lease a turn has acquired.

    Attributes:
        session: The session with the lease.
        created: The session was created with the lease.
        taken_from: The lease of a dead server's turn from which the session was taken over.
        names_user: The turn gives the session its end user, which it had not before.
        had_name: The session had the name of its end user alone, as schema 1 stores it.
    """

    session: Session
    created: bool
    taken_from: Lease | None
    names_user: bool = False
    had_name: bool = False

    @property
    def turn_id(self) -> str:
        """The turn that has the lease."""
        return self.session.lease.turn_id if self.session.lease is not None else ""
