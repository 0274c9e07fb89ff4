"""Answers what is known of a tenant's turns, running or ended, whichever server runs them.

A turn's record has its request, its log has its end, the ledger has its cost. Nothing is stored for these answers only.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from godoty_service.clock import from_milliseconds
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.errors import TurnNotFound
from godoty_service.ids import time_of_id
from godoty_service.ledger.entries import CallPurpose, Entry, ModelCall
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.totals import Totals, totals_of_entries
from godoty_service.sessions.holders import SessionHolder, SessionHolders
from godoty_service.turns.event_log.events import StopReason, TurnFinished
from godoty_service.turns.event_log.store import EventLogStore, LogEnd
from godoty_service.turns.recovery import Recovery
from godoty_service.turns.turn import Turn
from godoty_service.turns.turn_store import TurnRecord, TurnStore
from godoty_service.users.references import UserReferences

_BATCH = 100  # turns that are read together
_MAX_BATCHES = 10  # of one page


class TurnState(StrEnum):
    """The state of a turn."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSummary:
    """A turn without its events.

    Attributes:
        stop_reason: Why it ended; None: it has not ended, or failed.
        error_reason: The reason of the error that it failed with.
        model: The model that its request named.
        agent: The name of its agent; empty: it has made no model call.
        agent_version: The number of the agent's version; None: likewise, or an earlier build ran it.
        user: The end user of its session.
        totals: Its cost and usage up to now.
        end_time: The time of its end; None: it has not ended, or an earlier build stored its end.
        output_json: The value of a turn with an output schema; None: there is none, or it is one of a list.
    """

    turn_id: str
    session_id: str
    state: TurnState
    stop_reason: StopReason | None
    error_reason: str | None
    model: str | None
    agent: str
    agent_version: int | None
    user: str | None
    request_id: str | None
    totals: Totals
    create_time: datetime
    end_time: datetime | None
    output_json: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPage:
    """Turns, newest first.

    Attributes:
        turns: The turns.
        next: The id after which the list continues, if it was not read to its end; None: there is no more.
    """

    turns: list[TurnSummary]
    next: str | None


class TurnListing:
    """Reads turns by tenant. A turn whose server has died is ended as its readers would end it."""

    def __init__(
        self,
        *,
        turn_store: TurnStore,
        event_logs: EventLogStore,
        holders: SessionHolders,
        ledger: Ledger,
        replicas: ReplicaHeartbeats,
        recovery: Recovery,
        users: UserReferences,
    ) -> None:
        """Initialize the listing.

        Args:
            turn_store: The turns' records.
            event_logs: Their logs.
            holders: The turns that hold sessions.
            ledger: The ledger.
            replicas: The servers that are alive.
            recovery: Ends turns that no server runs.
            users: The end users' names.
        """
        self._turn_store = turn_store
        self._event_logs = event_logs
        self._holders = holders
        self._ledger = ledger
        self._replicas = replicas
        self._recovery = recovery
        self._users = users

    async def get(self, tenant_id: str, turn_id: str, *, here: Mapping[str, Turn]) -> TurnSummary:
        """Return a turn.

        Args:
            tenant_id: The tenant.
            turn_id: The turn.
            here: The turns that this server runs.

        Raises:
            TurnNotFound: The tenant has no such turn, or its log has expired.
        """
        records = await self._turn_store.find_all(tenant_id, [turn_id])
        found = await self._summaries(tenant_id, records, here, with_output=True)
        if not found:
            raise TurnNotFound("There is no such turn.", metadata={"turn_id": turn_id})
        return found[0]

    async def page(
        self,
        tenant_id: str,
        *,
        session_id: str | None,
        state: TurnState | None,
        before: str | None,
        limit: int,
        here: Mapping[str, Turn],
    ) -> TurnPage:
        """Return the newest turns of a tenant.

        Args:
            tenant_id: The tenant.
            session_id: Only turns of this session.
            state: Only turns in this state; the turns that wait cannot be listed alone.
            before: Only turns that are older than this one.
            limit: The most turns to return.
            here: The turns that this server runs.
        """
        turns: list[TurnSummary] = []
        for _ in range(_MAX_BATCHES):
            size = min(_BATCH, limit - len(turns))
            if state is TurnState.RUNNING:
                ids = await self._holders.turn_ids(tenant_id, session_id=session_id, before=before, limit=size)
                records = await self._turn_store.find_all(tenant_id, ids)
            else:
                records = await self._turn_store.page(tenant_id, session_id=session_id, before=before, limit=size)
                ids = [each.turn_id for each in records]
            found = await self._summaries(tenant_id, records, here)
            turns += (each for each in found if state in (None, each.state))
            if len(ids) < size:
                return TurnPage(turns=turns, next=None)
            before = ids[-1]
            if len(turns) >= limit:
                break
        return TurnPage(turns=turns, next=before)

    async def _summaries(
        self,
        tenant_id: str,
        records: Sequence[TurnRecord],
        here: Mapping[str, Turn],
        *,
        with_output: bool = False,
    ) -> list[TurnSummary]:
        """Return these turns in their order, without those that never began."""
        if not records:
            return []
        ended = await self._ends(tenant_id, records, here, with_output=with_output)
        unended = [each for each in records if each.turn_id not in ended]
        # After the ends: a turn that has ended has all its entries.
        entries, holders = await asyncio.gather(
            self._entries(tenant_id, [each.turn_id for each in records]),
            self._holders.of_sessions(tenant_id, {each.session_id for each in records}),
        )
        waiting = await self._waiting(tenant_id, unended, holders, here)
        names = await self._users.names(tenant_id, (each.user_reference for each in holders.values()))
        return [
            _summary(
                each,
                end=ended.get(each.turn_id),
                waiting=each.turn_id in waiting,
                user=_user_of(holders.get(each.session_id), names),
                entries=entries.get(each.turn_id, []),
            )
            for each in records
            if each in unended or ended[each.turn_id] is not None
        ]

    async def _waiting(
        self,
        tenant_id: str,
        unended: Sequence[TurnRecord],
        holders: Mapping[str, SessionHolder],
        here: Mapping[str, Turn],
    ) -> set[str]:
        """Return those of these turns that wait for their session: another turn holds it, and they have no log."""
        found: set[str] = set()
        elsewhere: list[str] = []
        for each in unended:
            turn, holder = here.get(each.turn_id), holders.get(each.session_id)
            if turn is not None and not turn.started and (holder is None or holder.turn_id != each.turn_id):
                found.add(each.turn_id)
            elif turn is None and holder is not None and holder.turn_id not in (None, each.turn_id):
                elsewhere.append(each.turn_id)
        begun = await self._event_logs.begun(tenant_id, elsewhere) if elsewhere else {}
        return found | (set(elsewhere) - begun.keys())

    async def _ends(
        self, tenant_id: str, records: Sequence[TurnRecord], here: Mapping[str, Turn], *, with_output: bool
    ) -> dict[str, LogEnd | None]:
        """Return how those of these turns ended that have ended; None: it never began."""
        ended: dict[str, LogEnd | None] = {}
        turn_ids = [each.turn_id for each in records]
        ended.update(await self._event_logs.ends(tenant_id, turn_ids, with_output=with_output))
        elsewhere: list[TurnRecord] = []
        for each in records:
            turn = here.get(each.turn_id)
            if each.turn_id in ended:
                continue
            if turn is None:
                elsewhere.append(each)
            elif turn.log.ended:  # its end is not stored yet
                ended[each.turn_id] = _end_in_memory(turn, with_output=with_output)
        if elsewhere:
            ended.update(await self._end_dead(tenant_id, elsewhere))
        return ended

    async def _end_dead(self, tenant_id: str, records: Sequence[TurnRecord]) -> dict[str, LogEnd | None]:
        """End those of these turns whose servers do not run them, and return how they ended; None: it never began.

        A turn of this server that is not among those that it runs does not run.
        """
        others = {each.replica_id for each in records} - {self._replicas.replica_id}
        alive = await self._replicas.alive(others) if others else set()
        dead = [each for each in records if each.replica_id not in alive]
        never_began: set[str] = set()
        for each in dead:
            try:
                await self._recovery.end(each)
            except TurnNotFound:
                never_began.add(each.turn_id)
        found = await self._event_logs.ends(tenant_id, [each.turn_id for each in dead]) if dead else {}
        return {**found, **dict.fromkeys(never_began)}

    async def _entries(self, tenant_id: str, turn_ids: Sequence[str]) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = defaultdict(list)
        for each in await self._ledger.of_turns(tenant_id, turn_ids):
            found[each.turn_id].append(each)
        return found


def _end_in_memory(turn: Turn, *, with_output: bool) -> LogEnd | None:
    """Return how a turn of this server has ended; None: it was refused."""
    last, error = turn.log.last, turn.log.error
    if last is None:
        return None
    finished = last if isinstance(last, TurnFinished) and error is None else None
    return LogEnd(
        stop_reason=finished.stop_reason if finished is not None else None,
        error_reason=error.reason if error is not None else None,
        time=turn.log.end_time,
        output_json=finished.output_json if finished is not None and with_output else None,
    )


def _user_of(holder: SessionHolder | None, names: Mapping[str, str]) -> str | None:
    """Return the name of the end user of a session; None: it has none, or the user is being erased."""
    if holder is None or holder.user_reference is None:
        return holder.user if holder is not None else None
    return names.get(holder.user_reference)


def _summary(
    record: TurnRecord, *, end: LogEnd | None, waiting: bool, user: str | None, entries: list[Entry]
) -> TurnSummary:
    time = end.time if end is not None else None
    unended = TurnState.WAITING if waiting else TurnState.RUNNING
    # The agent's own first call: a summary may precede it, and agents that it calls make calls of their own.
    own = (each for each in entries if isinstance(each, ModelCall) and each.purpose in (CallPurpose.AGENT, None))
    first = min(own, key=lambda each: each.number, default=None)
    return TurnSummary(
        turn_id=record.turn_id,
        session_id=record.session_id,
        state=TurnState.ENDED if end is not None else unended,
        stop_reason=end.stop_reason if end is not None else None,
        error_reason=end.error_reason if end is not None else None,
        model=record.model,
        agent=first.agent if first is not None else "",
        agent_version=first.agent_version if first is not None else None,
        user=user,
        request_id=record.request_id,
        totals=totals_of_entries(entries),
        create_time=time_of_id(record.turn_id),
        end_time=from_milliseconds(time) if time is not None else None,
        output_json=end.output_json if end is not None else None,
    )
