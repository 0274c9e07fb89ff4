"""A turn that holds its session: it lets the agent work, and closes everything on every way out."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from strands import Agent
from strands.types.content import Messages
from strands.types.exceptions import EventLoopException, MaxTokensReachedException

from godoty_service.errors import (
    CostUnbounded,
    GodotyError,
    ProviderError,
    QuotaExceeded,
    SessionLost,
    StorageError,
    TurnCancelled,
)
from godoty_service.metering.meter import TurnMeter
from godoty_service.metering.money import format_usd
from godoty_service.metering.totals import SessionFold, Totals
from godoty_service.openrouter.model import LISTENER, OpenRouterModel
from godoty_service.sessions import repair
from godoty_service.sessions.manager import MongoSessionManager
from godoty_service.sessions.session import Claim, Context
from godoty_service.turns.call_spans import CallSpans, turn_attributes
from godoty_service.turns.context import kept_context
from godoty_service.turns.ending import Ending
from godoty_service.turns.events import (
    BudgetReached,
    ModelCallFinished,
    StopReason,
    TurnFinished,
    TurnStarted,
)
from godoty_service.turns.opening import open_history, opened_fold
from godoty_service.turns.projection import METRICS_KEY, projection
from godoty_service.turns.tools import ToolWatch
from godoty_service.turns.turn import Turn
from godoty_service.turns.voice import Voice
from godoty_service.turns.workbench import Workbench

log = structlog.get_logger(__name__)

_STOP_REASONS = {
    "max_tokens": StopReason.MAX_OUTPUT_TOKENS,
    "limit_output_tokens": StopReason.MAX_OUTPUT_TOKENS,
    "limit_turns": StopReason.MAX_MODEL_CALLS,
    "content_filtered": StopReason.CONTENT_FILTERED,
    "guardrail_intervened": StopReason.CONTENT_FILTERED,
}
_NOTES = {
    StopReason.MAX_OUTPUT_TOKENS: "[The answer ended here: the bound on output tokens was reached.]",
    StopReason.MAX_MODEL_CALLS: "[The turn ended here: the bound on model calls was reached.]",
    StopReason.BUDGET: "[The turn ended here: the budget or the turn's max_cost_usd does not cover more.]",
    StopReason.CONTENT_FILTERED: "[The answer was stopped by the provider's filter.]",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnEnd:
    """How a turn ended: what its log is yet to say.

    Attributes:
        finished: Its last event; None: it failed.
        error: What it failed with.
    """

    finished: TurnFinished | None
    error: GodotyError | None


class ClaimedTurn:
    """A turn that holds its session."""

    def __init__(self, bench: Workbench, turn: Turn, claim: Claim) -> None:
        self._bench = bench
        self._turn = turn
        self._claim = claim
        self._log = turn.log
        self._voice = Voice(turn.log)
        self._watch = ToolWatch(turn.log)
        self._cycles: tuple[timedelta, ...] = ()
        self._cycle_providers: list[str | None] = []
        self._invocation: dict[str, Any] = {LISTENER: self._voice}
        self._spans = CallSpans(self._invocation)
        self._meter: TurnMeter | None = None
        self._told = 0
        self._started = False
        self._leave_opening: Callable[[], None] = _nothing

    async def run(self) -> TurnEnd:
        """Let the agent work, then close everything, in that order, whatever happens.

        Returns:
            The end, which the log does not have yet: what else the turn holds is released before its readers see it.
        """
        error: GodotyError | None = None
        stop = StopReason.END_TURN
        fold = SessionFold()
        manager: MongoSessionManager | None = None
        model: OpenRouterModel | None = None
        state = dict(self._claim.session.state)
        context = self._claim.session.context
        try:
            self._leave_opening = self._voice.on_asking = await self._bench.openings.enter()
            fold, manager = await self._open()
            self._voice.on_asking = partial(self._start, fold)
            self._voice.on_answering = manager.write_held
            meter = self._meter = self._bench.meter(self._turn, self._claim, self._spans, last_number=fold.through)
            model = self._bench.model(self._turn, self._claim, meter)
            state[METRICS_KEY] = projection(fold)
            trimmer = self._bench.trimmer(self._claim)
            agent = self._bench.agent(
                model, manager, self._watch, state, trimmer=trimmer, trace_attributes=self._trace_attributes()
            )
            try:
                stop = await self._work(agent, model)
                trimmed = trimmer.trimmed or (context is not None and not context.head)
                context = kept_context(manager, agent.messages, trimmed=trimmed)
            finally:
                state = agent.state.get()
                self._measure_cycles(agent)
        except asyncio.CancelledError:
            error = self._turn.cancelled_by or TurnCancelled("The turn was cancelled.")
        except GodotyError as failure:
            error = failure
        except Exception as failure:
            error = _original(failure)
            if error is None:
                log.exception("turn_fault")
                error = self._fault()
        if isinstance(error, (QuotaExceeded, CostUnbounded)) and self._has_output():
            error, stop = None, StopReason.BUDGET  # what was produced until then is an answer
        refusals = (QuotaExceeded, CostUnbounded, StorageError)
        refused = isinstance(error, refusals) and not (self._meter and self._meter.sent)
        self._turn.close()
        self._leave_opening()  # where it asked nobody
        if manager is not None and not refused:
            self._start(fold)
        self._voice.close()
        if isinstance(error, ProviderError):
            self._report_provider(error)
            if manager is not None:
                manager.withheld = error.moderated
        ending = self._ending(manager, fold=fold, state=state, context=context, stop=stop, error=error, refused=refused)
        return await self._finish(ending, model, stop, error)

    def _start(self, fold: SessionFold) -> None:
        """Publish that the turn has started, once it is not refused: when its first request is about to leave."""
        self._leave_opening()
        if self._started:
            return
        self._started = True
        self._log.append(
            TurnStarted(
                session_id=self._claim.session.session_id,
                session_created=self._claim.created,
                totals=fold.view(),
            )
        )

    async def _open(self) -> tuple[SessionFold, MongoSessionManager]:
        bench, session = self._bench, self._claim.session
        models = (session.model, *bench.fallbacks(self._turn))
        if self._claim.created:  # there is nothing to read
            await bench.oracle.prepare(models)
            return SessionFold(), self._manager([], [], last_number=0)
        shown = await bench.recovery.interrupt_predecessors(self._claim)
        fold, history, _ = await asyncio.gather(
            opened_fold(bench.ledger, session, doubtful=self._claim.taken_from is not None),
            open_history(bench.messages, self._claim, size=bench.window_size, shown=shown),
            bench.oracle.prepare(models),
        )
        return fold, self._manager(history.head, history.messages, last_number=history.last_number)

    def _manager(self, head: Messages, messages: Messages, *, last_number: int) -> MongoSessionManager:
        self._bench.leases.begin(self._turn.turn_id)
        return MongoSessionManager(
            self._bench.messages,
            self._claim.session,
            turn_id=self._turn.turn_id,
            head=head,
            messages=messages,
            last_number=last_number,
        )

    async def _work(self, agent: Agent, model: OpenRouterModel) -> StopReason:
        """Run the agent's loop. Between its events nothing is awaited: a cancel always lands inside it."""
        stop = StopReason.END_TURN
        try:
            async with aclosing(
                agent.stream_async(  # type: ignore[type-var] # it is an asynchronous generator
                    self._turn.request.text,
                    limits=self._bench.limits(self._turn),
                    invocation_state=self._invocation,
                )
            ) as events:
                async for event in events:
                    if (result := event.get("result")) is not None:
                        stop = _STOP_REASONS.get(result.stop_reason, StopReason.END_TURN)
                    else:
                        self._take(event)
        except MaxTokensReachedException:
            stop = StopReason.MAX_OUTPUT_TOKENS
        except EventLoopException as failure:
            if not isinstance(failure.original_exception, MaxTokensReachedException):
                raise
            stop = StopReason.MAX_OUTPUT_TOKENS
        cut = stop is StopReason.MAX_OUTPUT_TOKENS and model.cut_by_budget
        return StopReason.BUDGET if cut else stop

    def _take(self, event: dict[str, Any]) -> None:
        if "modelCall" in event.get("event", {}):
            self._tell_calls()
        elif "message" in event:
            self._voice.complete()
            if event["message"]["role"] == "assistant":  # the model call of a cycle has ended well
                calls = self._meter.entries if self._meter is not None else []
                self._cycle_providers.append(calls[-1].provider if calls else None)

    def _tell_calls(self) -> None:
        """Tell of the calls that have ended: also of those that a summary took, which no event tells of."""
        calls = self._meter.entries if self._meter is not None else []
        for call in calls[self._told :]:
            self._log.append(ModelCallFinished(call=call))
        self._told = len(calls)
        alerts = self._meter.allowance.alerts if self._meter is not None else []
        while alerts:
            self._log.append(BudgetReached(alert=alerts.pop(0)))

    def _has_output(self) -> bool:
        """Tell whether a call of the turn has been answered."""
        return self._meter is not None and any(call.duration is not None for call in self._meter.entries)

    def _ending(
        self,
        manager: MongoSessionManager | None,
        *,
        fold: SessionFold,
        state: dict[str, Any],
        context: Context | None,
        stop: StopReason,
        error: GodotyError | None,
        refused: bool,
    ) -> Ending:
        return Ending(
            sessions=self._bench.sessions,
            leases=self._bench.leases,
            ledger=self._bench.ledger,
            claim=self._claim,
            manager=manager,
            meter=self._meter,
            fold=fold,
            state=state,
            context=context,
            partial_text=self._voice.partial,
            note=repair.INTERRUPTED if error is not None else _NOTES.get(stop, repair.INTERRUPTED),
            refused=refused,
        )

    async def _finish(
        self, ending: Ending, model: OpenRouterModel | None, stop: StopReason, error: GodotyError | None
    ) -> TurnEnd:
        """Close what is open, write what the turn leaves behind, and let the session go, whatever goes wrong."""
        turn_totals = Totals() if self._meter is None else None
        session_totals: Totals | None = None
        try:
            await self._close(model)
            turn_totals = turn_totals if self._meter is None else self._meter.totals()
            leave = await self._bench.endings.enter()
            try:
                session_totals = (await ending.write()).view()
            finally:
                leave()
        except SessionLost as failure:
            error = failure
        except StorageError as failure:  # the lease is released once the database works again
            error = error or failure
        except Exception:
            log.exception("turn_fault")
            error = self._fault()
            await self._bench.leases.release(self._claim.session)
        finished: TurnFinished | None = None
        if error is None and turn_totals is not None and session_totals is not None:
            finished = TurnFinished(
                stop_reason=stop,
                turn_totals=turn_totals,
                session_totals=session_totals,
                cycle_durations=self._cycles,
                tools=self._watch.summaries(),
            )
        self._log_end(turn_totals, stop, error)
        return TurnEnd(finished=finished, error=error)

    async def _close(self, model: OpenRouterModel | None) -> None:
        """Close the connections that are still open, then the calls."""
        try:
            if model is not None:
                await model.aclose()
        finally:
            if self._meter is not None:
                await self._meter.close()
            self._spans.close()

    def _measure_cycles(self, agent: Agent) -> None:
        """Take the durations of the cycles that have ended; the last may not have."""
        self._cycles = tuple(timedelta(seconds=each) for each in agent.event_loop_metrics.cycle_durations)
        for provider, cycle in zip(self._cycle_providers, self._cycles, strict=False):
            self._bench.observer.cycle_ended(provider, cycle)

    def _report_provider(self, error: ProviderError) -> None:
        """Count a failure of the provider, and give the caller its message, if the tenant may read it."""
        account = self._turn.paid_by
        if (message := error.message_for_tenant(own_key=account.own)) is not None:
            error.metadata["provider_message"] = message
        self._bench.observer.provider_failed(error, provider_key_id=account.key_id)

    def _trace_attributes(self) -> dict[str, str]:
        session_id = self._claim.session.session_id
        return turn_attributes(tenant_id=self._turn.tenant_id, session_id=session_id, turn_id=self._turn.turn_id)

    def _fault(self) -> GodotyError:
        return GodotyError("The server failed.", metadata={"request_id": self._turn.turn_id})

    def _log_end(self, turn_totals: Totals | None, stop: StopReason, error: GodotyError | None) -> None:
        """Say in one log line how the turn went."""
        calls = self._meter.entries if self._meter is not None else []
        first = calls[0].time_to_first_token if calls else None
        log.info(
            "turn_ended",
            outcome=stop.value if error is None else error.reason.lower(),
            model_calls=len(calls),
            providers=sorted({call.provider for call in calls if call.provider}),
            models=sorted({call.model for call in calls}),
            cost_usd=format_usd(turn_totals.cost) if turn_totals is not None else None,
            pending_calls=turn_totals.pending_calls if turn_totals is not None else None,
            time_to_first_token_ms=round(first.total_seconds() * 1000, 1) if first is not None else None,
            cycle_ms=[round(cycle.total_seconds() * 1000, 1) for cycle in self._cycles],
        )


def _nothing() -> None:
    """Do nothing: the turn does not count among those that open."""


def _original(failure: BaseException) -> GodotyError | None:
    """Find our error below what Strands wrapped around it."""
    inner: BaseException | None = failure
    while inner is not None:
        if isinstance(inner, GodotyError):
            return inner
        inner = getattr(inner, "original_exception", None) or inner.__cause__
    return None
