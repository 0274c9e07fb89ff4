"""Runs a turn that has acquired its session: prepares it, runs the agent, and finalizes it on every way out."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta
from functools import partial

import structlog
from strands.types.exceptions import EventLoopException, MaxTokensReachedException

from godoty_service.agents.definitions import McpTools
from godoty_service.agents.mcp.tools import OfferedTools
from godoty_service.aio.admission import AdmissionQueue
from godoty_service.errors import (
    CostUnbounded,
    GodotyError,
    ProviderError,
    QuotaExceeded,
    SessionLost,
    StorageError,
    TurnCancelled,
    internal_error,
)
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.totals import SessionTotals, Totals
from godoty_service.openrouter.call_limits import ModelCallsSpent
from godoty_service.pricing.money import format_usd
from godoty_service.sessions import history_repair
from godoty_service.sessions.session import Claim
from godoty_service.turns.actions.waiting import close_for_message
from godoty_service.turns.agents.failures import wrapped_error
from godoty_service.turns.agents.models import fallback_models
from godoty_service.turns.agents.output_model import OutputInvalid
from godoty_service.turns.agents.stop_reasons import NOTES, STOP_REASONS, stop_of
from godoty_service.turns.attachments import TurnAttachments
from godoty_service.turns.dependencies import TurnDependencies
from godoty_service.turns.event_log.events import StopReason, TurnFinished, TurnStarted
from godoty_service.turns.factory import Prepared, TurnFactory, agent_limits
from godoty_service.turns.finalizer import Outcome, TurnEnd, TurnFinalizer
from godoty_service.turns.history import EMPTY_HISTORY, History, load_history, summary_after_turn
from godoty_service.turns.session_metrics import load_totals
from godoty_service.turns.turn import Turn

log = structlog.get_logger(__name__)

_STARTING, _FINISHING = 4, 64  # turns at once: few start, so that they answer soon; many end, with batched writes


class ExecutionQueues:
    """Admission of this server's turns to the work before the first request and after the agent has ended.

    Attributes:
        starting: Admits turns that load their session.
        finishing: Admits turns that write their end, after those that start.
    """

    def __init__(self) -> None:
        self.starting = AdmissionQueue(_STARTING)
        self.finishing = AdmissionQueue(_FINISHING, behind=self.starting)


class TurnExecution:
    """A turn that has acquired its session."""

    def __init__(
        self,
        dependencies: TurnDependencies,
        *,
        factory: TurnFactory,
        queues: ExecutionQueues,
        turn: Turn,
        claim: Claim,
    ) -> None:
        self._dependencies = dependencies
        self._factory = factory
        self._queues = queues
        self._turn = turn
        self._claim = claim
        self._attachments = TurnAttachments(dependencies, turn, claim)
        self._start_published = False
        self._leave_starting: Callable[[], None] = lambda: None

    async def run(self) -> TurnEnd:
        """Prepare, execute and finalize the turn. No error of the turn is raised: the result has it.

        Returns:
            The end, which is not appended to the log here: the runner releases the turn's limits and its place in
            the session's queue before the readers see the end.
        """
        try:
            prepared = await self.prepare()
        except (asyncio.CancelledError, Exception) as failure:  # noqa: BLE001 - logged if it is a fault
            error = self._error_of(failure)
        else:
            try:
                return await self.finalize(prepared, await self.execute(prepared))
            finally:
                prepared.release()
        return await self._abort(error)

    async def prepare(self) -> Prepared:
        """Load the session and build the turn's agent; `_abort` undoes what a turn that fails here has attached.

        Raises:
            GodotyError: The session, or what the turn attaches to it, could not be read, or does not fit the model.
        """
        offered = await self._offered_tools()  # first: it may wait for a tenant's server, which must hold up no other
        self._leave_starting = await self._queues.starting.acquire()
        totals, history = await self._load()
        await self._attachments.begin((self._claim.session.model, *fallback_models(self._turn)))
        start, store = partial(self._publish_start, totals), self._attachments.store_image
        prepared = self._factory.prepare(
            self._turn, self._claim, totals, history, offered=offered, on_request=start, store_image=store
        )
        self._dependencies.leases.begin(self._turn.turn_id)
        return prepared

    async def _offered_tools(self) -> OfferedTools:
        """Return the MCP tools that the turn's agent may use; in the usual case they are cached."""
        entries = [each for each in self._turn.agent.definition.tools if isinstance(each, McpTools)]
        return await self._dependencies.mcp.offered(self._turn.tenant_id, entries)

    async def _load(self) -> tuple[SessionTotals, History]:
        """Load the session's totals and history, and the prices of the turn's models."""
        dependencies, claim = self._dependencies, self._claim
        models = (claim.session.model, *fallback_models(self._turn))
        if claim.created:  # nothing is stored yet
            await dependencies.oracle.prepare(models)
            return SessionTotals(), EMPTY_HISTORY
        logged = await dependencies.recovery.interrupt_predecessors(claim)
        waited, last_number = self._turn.waited, None
        if waited is not None:
            last_number = waited.step.message
        elif claim.session.waiting_step or claim.taken_from is not None:
            last_number = await close_for_message(dependencies, claim)
            if claim.taken_from is not None:
                last_number = None  # the messages of dead turns may follow
        totals, history, _ = await asyncio.gather(
            load_totals(dependencies.ledger, claim.session, doubtful=claim.taken_from is not None),
            load_history(
                dependencies.messages,
                claim,
                size=self._turn.agent.window_size,
                logged=logged,
                last_number=last_number,
            ),
            dependencies.oracle.prepare(models),
        )
        return totals, history

    def _publish_start(self, totals: SessionTotals) -> None:
        """Append the turn's start, once: when its first request is about to be sent, as it can be refused before."""
        self._leave_starting()
        if self._start_published:
            return
        self._start_published = True
        self._turn.log.append(
            TurnStarted(
                session_id=self._claim.session.session_id,
                session_created=self._claim.created,
                totals=totals.current(),
                agent=self._turn.agent.name,
                agent_version=self._turn.agent.version.version,
                stores_starts=True,
            )
        )

    async def execute(self, prepared: Prepared) -> Outcome:
        """Run the agent until it ends, fails or is cancelled. Never raises."""
        stop, error, summary = StopReason.END_TURN, None, self._claim.session.summary
        state = dict(self._claim.session.state)
        cycles: tuple[timedelta, ...] = ()
        if self._turn.waited is not None:  # it may end without a request
            self._publish_start(prepared.totals)
        try:
            try:
                stop = await self._run_agent(prepared)
                trimmed = prepared.trimmer.trimmed or (summary is not None and not summary.head)
                summary = summary_after_turn(prepared.manager, prepared.agent.messages, trimmed=trimmed)
            finally:
                state = prepared.agent.state.get()
                cycles = self._cycle_durations(prepared)
        except (asyncio.CancelledError, Exception) as failure:  # noqa: BLE001 - logged if it is a fault
            error = self._error_of(failure)
        meter = prepared.meter
        if isinstance(error, (QuotaExceeded, CostUnbounded)) and any(
            each.duration is not None for each in meter.entries
        ):
            error, stop = None, StopReason.BUDGET  # the output until then is an answer
        return Outcome(
            stop_reason=stop,
            error=error,
            refused=isinstance(error, (QuotaExceeded, CostUnbounded, StorageError)) and not meter.sent,
            state=state,
            summary=summary,
            cycle_durations=cycles,
        )

    async def _run_agent(self, prepared: Prepared) -> StopReason:
        """Run the agent's loop. Nothing is awaited between its events, so a cancel always lands inside the loop."""
        stop = StopReason.END_TURN
        try:
            async with aclosing(
                prepared.agent.stream_async(  # type: ignore[type-var] # it is an asynchronous generator
                    self._turn.prompt,
                    limits=agent_limits(
                        self._turn,
                        prepared.actions.used(),
                        default_calls=self._dependencies.defaults.max_model_calls,
                    ),
                    invocation_state=prepared.invocation,
                )
            ) as events:
                async for event in events:
                    if (result := event.get("result")) is not None:
                        stop = STOP_REASONS.get(result.stop_reason, StopReason.END_TURN)
                    else:
                        prepared.calls.on_event(event)
        except (MaxTokensReachedException, ModelCallsSpent, OutputInvalid, EventLoopException) as failure:
            stop = stop_of(failure)
        cut = stop is StopReason.MAX_OUTPUT_TOKENS and prepared.model.cut_by_budget
        return StopReason.BUDGET if cut else stop

    def _cycle_durations(self, prepared: Prepared) -> tuple[timedelta, ...]:
        """Measure and return the durations of the finished cycles; the last cycle may not have finished."""
        durations = prepared.agent.event_loop_metrics.cycle_durations
        cycles = tuple(timedelta(seconds=each) for each in durations)
        for provider, cycle in zip(prepared.calls.cycle_providers, cycles, strict=False):
            self._dependencies.observer.cycle_ended(provider, cycle)
        return cycles

    async def finalize(self, prepared: Prepared, outcome: Outcome) -> TurnEnd:
        """Close the turn's calls, write its end and release its session, even if one fails. No cancel interrupts it."""
        self._turn.begin_cleanup()
        self._leave_starting()  # if no request was sent
        if not outcome.refused:
            self._publish_start(prepared.totals)
        prepared.answer.close()
        prepared.connections.close()
        await self._attachments.wait_stored()
        await prepared.actions.settled()
        error = outcome.error
        if isinstance(error, ProviderError):
            self._report_provider_error(error)
            prepared.manager.withheld, prepared.manager.rejected = error.moderated, error.rejected
        if outcome.refused:
            await self._attachments.undo()
        finished: TurnFinished | None = None
        turn_totals: Totals | None = None
        try:
            await _close_calls(prepared)
            turn_totals = prepared.meter.totals()
            session_totals = await self._write_end(prepared, outcome)
        except SessionLost as failure:
            error = failure
        except StorageError as failure:  # the lease is released once the database works again
            error = error or failure
        except Exception:
            log.exception("turn_fault")
            error = internal_error(self._turn.turn_id)
            await self._dependencies.leases.release(self._claim.session)
        else:
            finished = _finished(prepared, outcome, turn_totals, session_totals) if error is None else None
            if not outcome.refused:
                await self._close_step(prepared)
        ended_as = outcome.stop_reason.value if error is None else error.reason.lower()
        _log_end(ended_as, totals=turn_totals, calls=prepared.meter.entries, cycles=outcome.cycle_durations)
        return TurnEnd(finished=finished, error=error)

    async def _write_end(self, prepared: Prepared, outcome: Outcome) -> Totals:
        """Write the turn's messages, state and totals; return the session's totals."""
        waited, waiting = self._turn.waited, prepared.actions.waits_at(prepared.manager.last_number)
        if waited is not None and outcome.refused:
            waiting = waited.step
        note = history_repair.INTERRUPTED
        if outcome.error is None:
            note = NOTES.get(outcome.stop_reason, note)
        finalizer = TurnFinalizer(
            sessions=self._dependencies.sessions,
            leases=self._dependencies.leases,
            ledger=self._dependencies.ledger,
            totals_updater=self._dependencies.totals_updater,
            claim=self._claim,
            manager=prepared.manager,
            meter=prepared.meter,
            totals=prepared.totals,
            state=outcome.state,
            summary=outcome.summary,
            partial_text=prepared.answer.partial,
            note=note,
            refused=outcome.refused,
            waiting=waiting,
            results=prepared.guard.known(prepared.manager.last_number),
        )
        leave_finishing = await self._queues.finishing.acquire()
        try:
            return (await finalizer.write()).current()
        finally:
            leave_finishing()

    async def _close_step(self, prepared: Prepared) -> None:
        """Record that the session has gone on from the step that waited; if that fails, who looks at it finds out."""
        waited = self._turn.waited
        if waited is None or prepared.actions.waits_at(prepared.manager.last_number) is waited.step:
            return
        try:
            await self._dependencies.actions.steps.close(waited.step)
        except StorageError as failure:
            log.warning("step_not_closed", error=str(failure))

    async def _abort(self, error: GodotyError) -> TurnEnd:
        """Release the session of a turn that was not prepared."""
        self._turn.begin_cleanup()
        self._leave_starting()
        leave_finishing = await self._queues.finishing.acquire()
        try:
            await self._attachments.undo()
            await self._dependencies.leases.release(self._claim.session)
        finally:
            leave_finishing()
        _log_end(error.reason.lower(), totals=Totals(), calls=[], cycles=())
        return TurnEnd(finished=None, error=error)

    def _report_provider_error(self, error: ProviderError) -> None:
        """Count a failure of the provider, and add the provider's message if the tenant may read it."""
        client = self._turn.provider_client
        if (message := error.message_for_tenant(own_key=client.own)) is not None:
            error.metadata["provider_message"] = message
        self._dependencies.observer.provider_failed(error, provider_key_id=client.key_id)

    def _error_of(self, failure: BaseException) -> GodotyError:
        """Return the error that the turn's readers get for what was raised; a fault is logged."""
        if isinstance(failure, asyncio.CancelledError):
            return self._turn.cancelled_by or TurnCancelled("The turn was cancelled.")
        error = wrapped_error(failure)
        if error is None:
            log.exception("turn_fault")  # noqa: LOG004 - called while the exception is handled
            error = internal_error(self._turn.turn_id)
        return error


def _finished(prepared: Prepared, outcome: Outcome, turn_totals: Totals, session_totals: Totals) -> TurnFinished:
    """Return the last event of a turn that ended without an error."""
    return TurnFinished(
        stop_reason=outcome.stop_reason,
        turn_totals=turn_totals,
        session_totals=session_totals,
        cycle_durations=outcome.cycle_durations,
        tools=prepared.tools.summaries(),
        output_json=prepared.model.output if outcome.stop_reason is StopReason.END_TURN else None,
        actions=prepared.actions.left_open() if outcome.stop_reason is StopReason.ACTION_REQUIRED else (),
    )


async def _close_calls(prepared: Prepared) -> None:
    """Close the connections that are still open, then the calls and their spans."""
    try:
        await prepared.model.aclose()
    finally:
        await prepared.meter.close()
        prepared.spans.close()


def _log_end(outcome: str, *, totals: Totals | None, calls: list[ModelCall], cycles: tuple[timedelta, ...]) -> None:
    """Log a turn's end in one line."""
    first = calls[0].time_to_first_token if calls else None
    log.info(
        "turn_ended",
        outcome=outcome,
        model_calls=len(calls),
        providers=sorted({call.provider for call in calls if call.provider}),
        models=sorted({call.model for call in calls}),
        cost_usd=format_usd(totals.cost) if totals is not None else None,
        pending_calls=totals.pending_calls if totals is not None else None,
        time_to_first_token_ms=round(first.total_seconds() * 1000, 1) if first is not None else None,
        cycle_ms=[round(cycle.total_seconds() * 1000, 1) for cycle in cycles],
    )
