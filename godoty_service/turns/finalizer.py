"""Writes a turn's end: a complete history, the agent's state and the session's totals, and releases the session."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from strands.types.content import ContentBlock, Message, Messages

from godoty_service.actions.action import Step
from godoty_service.attachments.blocks import user_content
from godoty_service.errors import GodotyError, SessionLost
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.session_totals import (
    SessionTotalsUpdater,
    session_totals_from_document,
    session_totals_to_document,
)
from godoty_service.ledger.totals import SessionTotals
from godoty_service.metering.meter import TurnMeter
from godoty_service.sessions import history_repair
from godoty_service.sessions.agent_states import METRICS_KEY
from godoty_service.sessions.lease_holders import LeaseHolders
from godoty_service.sessions.session import Claim, HistorySummary
from godoty_service.sessions.store import SessionStore
from godoty_service.sessions.strands_session_manager import MongoSessionManager
from godoty_service.turns.event_log.events import StopReason, TurnFinished
from godoty_service.turns.session_metrics import state_metrics, totals_with


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the agent's loop ended.

    Attributes:
        stop_reason: Why it ended, if without an error.
        error: The error that it ended with.
        refused: A limit or the database refused the turn before its first request: it changes nothing.
        state: The agent's state.
        summary: The replacement of the session's oldest messages.
        cycle_durations: The durations of the finished cycles.
    """

    stop_reason: StopReason
    error: GodotyError | None
    refused: bool
    state: dict[str, Any]
    summary: HistorySummary | None
    cycle_durations: tuple[timedelta, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnEnd:
    """The end of a turn, which its log does not have yet.

    Attributes:
        finished: The turn's last event; None: it failed.
        error: The error that it failed with.
    """

    finished: TurnFinished | None
    error: GodotyError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFinalizer:
    """The end of one turn.

    Attributes:
        sessions: Stores the session.
        leases: Releases it.
        ledger: Stores its entries.
        totals_updater: Updates its totals if the turn cannot.
        claim: The acquired session.
        manager: Stores its messages.
        meter: Counted the turn's calls.
        totals: The session's totals before the turn.
        state: The agent's state.
        summary: The replacement of the session's oldest messages.
        partial_text: The text of an answer that was interrupted.
        note: The note that ends the history if the agent did not.
        refused: The turn was refused, or the database failed, before its first request: it adds no message. One that
            goes on with answers has perhaps run tools: the session waits as before, with what they did to the state.
        waiting: The step whose actions the turn leaves open: the history ends with its calls; None: it leaves none.
        results: What is known of the tool calls with which the history ends, by id; the others were not run.
    """

    sessions: SessionStore
    leases: LeaseHolders
    ledger: Ledger
    totals_updater: SessionTotalsUpdater
    claim: Claim
    manager: MongoSessionManager
    meter: TurnMeter
    totals: SessionTotals
    state: dict[str, Any]
    summary: HistorySummary | None
    partial_text: str
    note: str
    refused: bool
    waiting: Step | None = None
    results: Mapping[str, ContentBlock] = field(default_factory=dict)

    async def write(self) -> SessionTotals:
        """Write the turn's end, once; return the session's totals.

        Raises:
            SessionLost: Another turn has taken the session over.
            StorageError: It could not be written. The lease is released without it once the turn has ended.
        """
        if self.refused:
            return await (self._undo() if self.waiting is None else self._finish(self.waiting.message))
        try:
            await self.manager.append(self._missing(), state=self.state)
            return await self._finish(self.manager.last_number)
        except SessionLost:
            # An entry that was inserted after the takeover has a number above those that the next turn has read.
            session = self.claim.session
            await self.totals_updater.refresh(session.tenant_id, session.uid)
            raise

    async def _undo(self) -> SessionTotals:
        """Restore the session as it was before the turn, or delete it if the turn created it.

        A void entry of the turn retains its number, so that the session's numbers have no gap, and the totals include
        it.
        """
        session = self.claim.session
        has_entry = bool(self.meter.entries) or self.meter.has_uncertain_insert
        self.leases.undo_begin(self.claim.turn_id, totals_stale=has_entry)
        await self.leases.release(session)
        if has_entry:
            await self.totals_updater.refresh(session.tenant_id, session.uid)
        return self.totals

    async def _finish(self, message_count: int) -> SessionTotals:
        """Store the totals of all the session's entries and release it, in one write."""
        session = self.claim.session
        totals = await totals_with(self.ledger, session, self.totals, self.meter.entries)
        revision = session.totals_revision
        while not await self.sessions.finish(
            session,
            message_count=message_count,
            state={**self.state, METRICS_KEY: state_metrics(totals)},
            state_number=self.manager.states.number_of(self.state),
            summary=self.summary,
            totals=session_totals_to_document(totals),
            totals_revision=revision,
            totals_stale=self.meter.has_uncertain_insert,
            waiting_step=self.waiting.step_id if self.waiting is not None else "",
        ):
            found = await self.sessions.read_totals(session.tenant_id, session.uid)
            if found is None or not await self.sessions.holds(session):
                raise SessionLost("The session was taken over by another turn.", retry_after=1.0)
            revision = found[1]
            totals = await self._with_all_entries(session_totals_from_document(found[0]))
        self.leases.released(self.claim.turn_id)
        return totals

    async def _with_all_entries(self, base: SessionTotals) -> SessionTotals:
        """Return totals with every entry that the ledger has after them, by any writer."""
        session = self.claim.session
        return base.apply(
            await self.ledger.entries_after(session.tenant_id, session.uid, after=base.last_number, also=base.open)
        )

    def _missing(self) -> Messages:
        """Return the messages that the history lacks: the user's text if the agent did not add it, and an end."""
        if self.waiting is not None:
            return []
        lease = self.claim.session.lease
        request: Messages = []
        if not self.manager.added and lease is not None and not lease.answers:
            request = [Message(role="user", content=user_content(lease.text, lease.attachments))]
        return [
            *request,
            *history_repair.missing_messages(
                [*self.manager.history, *request],
                partial_text=self.partial_text,
                note=self.note,
                results=self.results,
                otherwise=history_repair.NOT_RUN,
            ),
        ]
