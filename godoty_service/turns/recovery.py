"""Recovers turns whose server is dead: writes the end of their event logs and completes their messages.

A dead turn ends as interrupted, or with the actions that it has left open; what it cost is in the ledger. A turn that
never began has no log: its record is deleted, and a retry of its request runs it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from strands.types.content import ContentBlock, Message, Messages

from godoty_service.actions.action import StepCall
from godoty_service.actions.stores import ActionStores
from godoty_service.attachments.blocks import user_content
from godoty_service.clock import Clock, milliseconds_of, utc_now
from godoty_service.errors import SessionLost, SessionNotFound, TurnNotFound
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.totals import SessionTotals, totals_of_entries
from godoty_service.sessions import history_repair
from godoty_service.sessions.agent_states import StateAfter
from godoty_service.sessions.messages import MessageStore, StoredMessage
from godoty_service.sessions.session import Claim, Lease, Session
from godoty_service.sessions.store import SessionStore
from godoty_service.turns.event_log.events import (
    ActionRequired,
    Event,
    ModelCallFinished,
    StopReason,
    SubAgentEvent,
    TextDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnFinished,
    TurnStarted,
)
from godoty_service.turns.event_log.log import LARGEST_CHUNK, RECOVERY_SEQUENCE
from godoty_service.turns.event_log.outbox import Wants, agent_of, ended_turn
from godoty_service.turns.event_log.store import Chunk, EventLogStore
from godoty_service.turns.session_metrics import load_totals
from godoty_service.turns.turn_store import TurnRecord, TurnStore

_NEWEST_MESSAGES = 1_000  # more than the last turn of a dead server can have written
_ATTEMPTS = 10  # each failed one means that a late message of a dead server was inserted


class Recovery:
    """Ends turns that no server runs.

    Args:
        turn_store: The turns' records.
        event_logs: The turns' event logs.
        sessions: The sessions, with their totals and leases.
        messages: The sessions' messages.
        ledger: The ledger with the turns' calls.
        writer: The id of this server, as the writer of log chunks.
        clock: The current time.
        actions: The steps in which sessions wait.
        wants: Returns whether a tenant is notified of its turns.
    """

    def __init__(
        self,
        *,
        turn_store: TurnStore,
        event_logs: EventLogStore,
        sessions: SessionStore,
        messages: MessageStore,
        ledger: Ledger,
        actions: ActionStores,
        writer: str,
        clock: Clock = utc_now,
        wants: Wants = lambda _: False,
    ) -> None:
        self._turn_store = turn_store
        self._event_logs = event_logs
        self._sessions = sessions
        self._messages = messages
        self._ledger = ledger
        self._actions = actions
        self._writer = writer
        self._clock = clock
        self._wants = wants

    async def end(self, record: TurnRecord) -> None:
        """End a turn that no server runs, unless another server has ended it.

        Raises:
            TurnNotFound: It never began. Its record is deleted, and its request id may be used again.
        """
        if await self._event_logs.begun(record.tenant_id, [record.turn_id]):
            await self.interrupt(record)
            return
        if self._turn_store.is_refused(record):
            await self._turn_store.delete_refused(record)
        else:
            # First: if its server is alive after all, it reads the record after it has acquired the session.
            if await self._turn_store.abandon(record) and await self._has_begun(record):
                await self.interrupt(record)
                return
            await self._turn_store.delete_abandoned(record)
        raise TurnNotFound("The turn never began.", metadata={"turn_id": record.turn_id})

    async def _has_begun(self, record: TurnRecord) -> bool:
        """Return whether a turn without a log has written a ledger entry, a message or a lease."""
        entries = await self._ledger.of_turn(record.tenant_id, record.turn_id)
        if any(not isinstance(each, ModelCall) or each.counts.call for each in entries):
            return True
        try:
            session = await self._sessions.get(record.tenant_id, record.session_id)
        except SessionNotFound:
            return False
        holders = (*session.lease.predecessors, session.lease) if session.lease is not None else ()
        if record.turn_id in {each.turn_id for each in holders}:
            return True
        return await self._messages.has_turn(record.tenant_id, session.uid, record.turn_id)

    async def interrupt(self, record: TurnRecord) -> list[Chunk]:
        """Write a dead turn's end, unless it has one; later writes of its server collide with it.

        Returns:
            The chunks that the log had before.
        """
        while True:
            stored = await self._event_logs.read(record.tenant_id, record.turn_id, after=-1)
            if stored and stored[-1].ended:
                return stored
            if await self._event_logs.close(await self._final_chunk(record, stored)):
                return stored

    async def _final_chunk(self, record: TurnRecord, stored: Sequence[Chunk]) -> Chunk:
        """Return the last chunk of an interrupted turn's log, after those that are stored."""
        session = await self._session(record)
        session_totals = SessionTotals()
        if session is not None:
            session_totals = await load_totals(self._ledger, session, doubtful=True)
        waiting = await self._open_actions(record, session) if session is not None else ()
        now = milliseconds_of(self._clock())
        finished = TurnFinished(
            stop_reason=StopReason.ACTION_REQUIRED if waiting else StopReason.INTERRUPTED,
            turn_totals=totals_of_entries(await self._ledger.of_turn(record.tenant_id, record.turn_id)),
            session_totals=session_totals.current(),
            cycle_durations=(),
            tools=(),
            actions=tuple(replace(each, input_json="") for each in waiting),
        )
        events = (*_not_shown(waiting, stored), finished)
        last = RECOVERY_SEQUENCE + len(events)
        return Chunk(
            turn_id=record.turn_id,
            tenant_id=record.tenant_id,
            index=stored[-1].index + 1 if stored else 0,
            first=RECOVERY_SEQUENCE + 1,
            events=events,
            ended=True,
            error=None,
            writer=self._writer,
            expire_time=self._turn_store.log_expiry(),
            times=((last, now),),
            end_time=now,
            outbox=ended_turn(
                (record.turn_id, record.tenant_id, record.session_id),
                finished,
                agent=agent_of([event for chunk in stored[:1] for event in chunk.events]),
                user_reference=session.user_reference if session is not None else None,
                time=now,
                error=None,
            )
            if self._wants(record.tenant_id)
            else None,
        )

    async def _open_actions(self, record: TurnRecord, session: Session) -> tuple[StepCall, ...]:
        """Return the actions that a dead turn has left open; none: its session does not wait."""
        stores, tenant_id = self._actions, record.tenant_id
        step = await stores.steps.newest(tenant_id, session.uid)
        if step is None or step.closed or record.turn_id not in step.turn_ids:
            return ()
        if step.message != await self._messages.highest(tenant_id, session.uid):
            return ()
        calls = await stores.calls.of_step(tenant_id, step.step_id)
        return tuple(each for each in calls if each.is_open)

    async def interrupt_predecessors(self, claim: Claim) -> dict[str, "LoggedTurn"]:
        """Write the ends of the turns that a session was taken over from.

        A turn whose log has expired needs no end.

        Returns:
            What their logs show, by turn id.
        """
        logged: dict[str, LoggedTurn] = {}
        if claim.taken_from is not None:
            for each in (*claim.taken_from.predecessors, claim.taken_from):
                record = await self._turn_store.find(claim.session.tenant_id, each.turn_id)
                if record is not None:
                    chunks = await self.interrupt(record)
                    logged[each.turn_id] = logged_turn(event for chunk in chunks for event in chunk.events)
        return logged

    async def _session(self, record: TurnRecord) -> Session | None:
        """Return the session of a turn; None: it is deleted."""
        try:
            return await self._sessions.get(record.tenant_id, record.session_id)
        except SessionNotFound:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedTurn:
    """What a turn's event log shows of its answers and tools: enough to complete the messages of a dead server.

    Attributes:
        answers: The texts of the answers, in order; empty ones are omitted, the last may be incomplete.
        results: The results of the finished tool calls, by tool call id.
        begun: The tool calls of steps of several that have begun, by id; None: the log does not say.
    """

    answers: tuple[str, ...] = ()
    results: Mapping[str, ContentBlock] = field(default_factory=dict)
    begun: frozenset[str] | None = None

    def text_after(self, answers: int) -> str:
        """Return the text that follows a number of answers."""
        return "\n\n".join(self.answers[answers:])

    def known_of(self, uses: Sequence[str]) -> dict[str, ContentBlock]:
        """Return what is known of the tool calls of an answer, by id: their results, and which were not run."""
        known = {each: self.results[each] for each in uses if each in self.results}
        if self.begun is None or len(uses) <= 1:
            return known
        not_run = (each for each in uses if each not in known and each not in self.begun)
        return known | {each: history_repair.error_result(each, history_repair.NOT_RUN) for each in not_run}


def _not_shown(actions: Sequence[StepCall], stored: Sequence[Chunk]) -> Iterator[Event]:
    """Yield the events of open actions that a log lacks: its server had not stored them when it died."""
    events = (event.event if isinstance(event, SubAgentEvent) else event for each in stored for event in each.events)
    shown = {each.action.call_id for each in events if isinstance(each, ActionRequired)}
    size = 0
    for each in actions:
        size += len(each.input_json)
        if each.call_id not in shown and size < LARGEST_CHUNK // 4:  # a character takes at most four bytes
            yield SubAgentEvent(each.path, ActionRequired(each)) if each.path else ActionRequired(each)


_NOTHING_LOGGED: Mapping[str, LoggedTurn] = MappingProxyType({})


def logged_turn(events: Iterable[Event]) -> LoggedTurn:
    """Return what a turn's events show. A finished model call ends an answer."""
    answers: list[list[str]] = [[]]
    results: dict[str, ContentBlock] = {}
    begun: set[str] = set()
    stores_starts = False
    for event in events:
        match event:
            case TextDelta(text=text):
                answers[-1].append(text)
            case ModelCallFinished():
                answers.append([])
            case TurnStarted():
                stores_starts = event.stores_starts
            case ToolCallStarted(tool_call_id=tool_call_id):
                begun.add(tool_call_id)
                results.pop(tool_call_id, None)  # of a call of an earlier answer with the same id
            case ToolCallFinished(tool_call_id=tool_call_id):
                results[tool_call_id] = _result(event)
    texts = ("".join(deltas) for deltas in answers)
    return LoggedTurn(
        answers=tuple(text for text in texts if text),
        results=results,
        begun=frozenset(begun) if stores_starts else None,
    )


def _result(event: ToolCallFinished) -> ContentBlock:
    status, content = "success" if event.succeeded else "error", [*event.content] or [{"text": event.output}]
    return history_repair.result_of(event.tool_call_id, {"status": status, "content": content})


async def complete_dead_turns(
    store: MessageStore, session: Session, dead: Sequence[Lease], logged: Mapping[str, LoggedTurn] = _NOTHING_LOGGED
) -> int:
    """Insert the messages that dead turns are missing at the next numbers, so that their late messages collide.

    The missing messages are computed from the same read that yields the next number. If a late message takes that
    number first, everything is read again.

    Args:
        store: The messages.
        session: The session that was taken over.
        dead: Its dead turns, the oldest first.
        logged: What their event logs show, by turn id.

    Returns:
        The number of the session's last message.

    Raises:
        SessionLost: A turn that was considered dead is still writing.
    """
    for _ in range(_ATTEMPTS):
        stored = await store.newest(session.tenant_id, session.uid, after=session.message_count, limit=_NEWEST_MESSAGES)
        last_number = stored[-1].number if stored else session.message_count
        try:
            for turn_id, messages in missing_messages_by_turn(stored, dead, logged):
                number, last_number = last_number + 1, last_number + len(messages)
                await store.append(
                    session.tenant_id,
                    session.uid,
                    number=number,
                    turn_id=turn_id,
                    messages=messages,
                    states=_state_after(session, last_number),
                )
        except SessionLost:
            continue
        return last_number
    raise SessionLost("A turn that was considered dead is still writing.", retry_after=1.0)


def _state_after(session: Session, number: int) -> Mapping[int, StateAfter]:
    """Return the agent's state after a dead turn: what it had changed is lost."""
    return {number: StateAfter(number=session.state_number)} if session.state_number is not None else {}


def missing_messages_by_turn(
    stored: Sequence[StoredMessage], dead: Sequence[Lease], logged: Mapping[str, LoggedTurn] = _NOTHING_LOGGED
) -> list[tuple[str, Messages]]:
    """Return the messages that dead turns are missing, by turn id: the user's text, tool results, answers, an end.

    Args:
        stored: The newest messages of the session, the newest last.
        dead: Its dead turns, the oldest first. A turn wrote its first message after the turns before it had been
            completed.
        logged: What their event logs show, by turn id. A text that no message has yet is marked as interrupted.
    """
    history: Messages = [Message(role=each.role, content=each.content) for each in stored[-1:]]  # type: ignore[typeddict-item] # as written
    wrote = {each.turn_id for each in stored}
    first = max((index for index, each in enumerate(dead) if each.turn_id in wrote), default=0)
    found: list[tuple[str, Messages]] = []
    for each in dead[first:]:
        request: Messages = []
        if each.turn_id not in wrote and not each.answers:
            request = [Message(role="user", content=user_content(each.text, each.attachments))]
        turn = logged.get(each.turn_id, LoggedTurn())
        before = [*history, *request]
        uses = history_repair.tool_uses(before[-1]) if before else []
        missing: Messages = [
            *request,
            *history_repair.missing_messages(
                before,
                partial_text=turn.text_after(_answer_count(stored, each.turn_id)),
                results=turn.known_of(uses),
            ),
        ]
        if missing:
            found.append((each.turn_id, missing))
            history = missing[-1:]
    return found


def _answer_count(stored: Sequence[StoredMessage], turn_id: str) -> int:
    """Return the number of a turn's stored answers that have text."""
    own = (each for each in stored if each.turn_id == turn_id and each.role == "assistant")
    return sum(any(block.get("text") for block in each.content) for each in own)
