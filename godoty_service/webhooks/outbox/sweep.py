"""Derives events from what is stored in any case, and stores their deliveries: one server does it for all, by a lease.

Each source is a mark in the very document that makes the event a fact (the last chunk of a turn's log, the entry that
becomes unresolved, the webhook that is switched off), or a comparison (budgets). The mark is removed after the
deliveries are stored. So whenever a server dies, what is marked is published again, under the same ids.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Final

import structlog

from godoty_service.aio.periodic import run_every
from godoty_service.budgets.thresholds import BudgetThresholds
from godoty_service.clock import Clock
from godoty_service.errors import GodotyError
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.totals import Totals, totals_of_entries
from godoty_service.ledger.unresolved_outbox import UnresolvedOutbox
from godoty_service.turns.event_log.outbox import EndedTurn, TurnOutbox
from godoty_service.webhooks.dispatch.endpoints import Endpoints
from godoty_service.webhooks.event import EventType
from godoty_service.webhooks.outbox.budget_marks import BudgetMarks
from godoty_service.webhooks.outbox.dead_turns import DeadTurns
from godoty_service.webhooks.outbox.publisher import Publisher
from godoty_service.webhooks.outbox.reports import threshold_event, turn_events, unresolved_event
from godoty_service.webhooks.store import Webhooks
from godoty_service.webhooks.subscribers import Subscribers

log = structlog.get_logger(__name__)

_BATCH: Final = 100  # facts of one read
_ROUNDS: Final = 50  # reads of a source in one sweep, so that none holds up the others
_LEASE: Final = timedelta(seconds=10)


class Outbox:
    """Publishes what the sources have."""

    def __init__(
        self,
        *,
        publisher: Publisher,
        webhooks: Webhooks,
        endpoints: Endpoints,
        subscribers: Subscribers,
        turns: TurnOutbox,
        dead_turns: DeadTurns,
        calls: UnresolvedOutbox,
        ledger: Ledger,
        thresholds: BudgetThresholds,
        marks: BudgetMarks,
        clock: Clock,
    ) -> None:
        """Create it.

        Args:
            publisher: Stores deliveries.
            webhooks: The webhooks, of which some are to be reported as off.
            endpoints: Have the lease.
            subscribers: The tenants that are notified.
            turns: The ends of turns.
            dead_turns: The turns of dead servers, which have no end yet.
            calls: The calls that became unresolved.
            ledger: Sums what turns without totals have cost.
            thresholds: The shares of budgets that are reached.
            marks: Those that were reported.
            clock: Returns the current time.
        """
        self._publisher = publisher
        self._webhooks = webhooks
        self._endpoints = endpoints
        self._subscribers = subscribers
        self._turns = turns
        self._dead_turns = dead_turns
        self._calls = calls
        self._ledger = ledger
        self._thresholds = thresholds
        self._marks = marks
        self._clock = clock

    async def run(self, interval: float) -> None:
        """Publish every `interval` seconds until cancelled."""
        try:
            await run_every(interval, self.sweep, failure="webhook_events_not_published")
        finally:
            with suppress(GodotyError):
                await self._endpoints.stop_leading()

    async def sweep(self) -> bool:
        """Publish what all sources have; return False if another server does it."""
        if not await self._endpoints.lead(_LEASE):
            return False
        for source in (self._end_dead_turns, self._ended_turns, self._unresolved, self._off, self._reached):
            await self._sweep(source)
        return True

    async def _sweep(self, source: Callable[[], Awaitable[bool]]) -> None:
        """Publish what a source has; a fault of it does not hold up the others."""
        try:
            for _ in range(_ROUNDS):
                if not await source():
                    return
        except GodotyError as error:
            log.warning("webhook_events_not_published", source=source.__name__, error=str(error))
        except Exception:
            log.exception("webhook_outbox_fault", source=source.__name__)

    async def _end_dead_turns(self) -> bool:
        return await self._dead_turns.end_some()

    async def _ended_turns(self) -> bool:
        """Publish some ends of turns; return whether there may be more."""
        ended = await self._turns.pending(limit=_BATCH)
        if ended:
            totals = await self._totals(ended)
            await self._publisher.publish(
                [event for each in ended for event in turn_events(each, totals[each.turn_id])]
            )
            await self._dead_turns.forget(ended)
            await self._turns.remove(ended)
        return len(ended) == _BATCH

    async def _totals(self, ended: Sequence[EndedTurn]) -> dict[str, Totals]:
        """Return the totals of turns: those of their ends, or what the ledger has."""
        totals = {each.turn_id: each.turn_totals or Totals() for each in ended}
        unknown: dict[str, list[str]] = {}
        for each in ended:
            if each.turn_totals is None:
                unknown.setdefault(each.tenant_id, []).append(each.turn_id)
        for tenant_id, turn_ids in unknown.items():
            entries = await self._ledger.of_turns(tenant_id, turn_ids)
            for turn_id in turn_ids:
                totals[turn_id] = totals_of_entries([each for each in entries if each.turn_id == turn_id])
        return totals

    async def _unresolved(self) -> bool:
        """Publish some calls that became unresolved; return whether there may be more."""
        calls = await self._calls.pending(limit=_BATCH)
        if calls:
            await self._publisher.publish([unresolved_event(each) for each in calls])
            await self._calls.remove(calls)
        return len(calls) == _BATCH

    async def _off(self) -> bool:
        """Report some webhooks that were switched off; return whether there may be more."""
        found = await self._webhooks.switched_off(limit=_BATCH)
        for each in found:
            await self._publisher.report_off(each)
        await self._webhooks.set_reported(found)
        return len(found) == _BATCH

    async def _reached(self) -> bool:
        """Publish the shares of budgets that were reached since the last time."""
        tenants = self._subscribers.of_type(EventType.BUDGET_THRESHOLD)
        if self._subscribers.everyone:
            tenants = await self._thresholds.tracked(limit=_BATCH)
        for start in range(0, len(tenants), _BATCH):
            await self._reached_by(tenants[start : start + _BATCH])
        return False

    async def _reached_by(self, tenants: Sequence[str]) -> None:
        marks, now = await self._marks.read(tenants), self._clock()
        for each in await self._thresholds.read(tenants):
            known = marks.get(each.tenant_id, {})
            if beyond := each.beyond(known):
                await self._publisher.publish([threshold_event(each.tenant_id, new, time=now) for new in beyond])
                await self._marks.raise_to(each.tenant_id, known, each.marks)
