"""What a turn works with, and how its meter, model and agent are built from that."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from strands import Agent
from strands.types.agent import Limits

from godoty_service.agents.profile import AgentProfile
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import SessionLost
from godoty_service.metering.adjustments import Adjustments
from godoty_service.metering.allowance import Allowance
from godoty_service.metering.call import ModelCall
from godoty_service.metering.catalogue import Catalogue
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.meter import TurnMeter, TurnScope
from godoty_service.metering.oracle import Oracle
from godoty_service.metering.spending import Spending
from godoty_service.openrouter.accounts import Accounts
from godoty_service.openrouter.limits import AnswerLimits
from godoty_service.openrouter.model import CallTerms, OpenRouterModel
from godoty_service.openrouter.tool_input import UnparsedInputs
from godoty_service.sessions.leases import Leases
from godoty_service.sessions.manager import MongoSessionManager
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.replicas import Replicas
from godoty_service.sessions.session import Claim
from godoty_service.sessions.store import Sessions
from godoty_service.tenancy.gates import Gates
from godoty_service.tenancy.policies import Policies
from godoty_service.turns.call_spans import CallSpans
from godoty_service.turns.context import management
from godoty_service.turns.deletion import Deletions
from godoty_service.turns.journal import Journal
from godoty_service.turns.key_watch import KeyWatch, refuse_ended
from godoty_service.turns.observer import Observer
from godoty_service.turns.overflow import OverflowTrimmer
from godoty_service.turns.records import TurnRecords
from godoty_service.turns.recovery import Recovery
from godoty_service.turns.slots import SessionSlots
from godoty_service.turns.tool_output import ToolOutputLimit
from godoty_service.turns.tools import ToolWatch
from godoty_service.turns.turn import Turn
from godoty_service.turns.turnstile import Turnstile

_OPENINGS, _ENDINGS = 4, 64  # turns at once: few begin, and answer soon; the ends of many are written together


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnDefaults:
    """What holds where a request says nothing."""

    model: str
    max_model_calls: int
    summary_output_tokens: int
    tool_output_bytes: int
    answer_limits: AnswerLimits


class Workbench:
    """The rooms that `server.py` hands to turns."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        leases: Leases,
        messages: MessageStore,
        replicas: Replicas,
        ledger: Ledger,
        oracle: Oracle,
        adjustments: Adjustments,
        spending: Spending,
        policies: Policies,
        gates: Gates,
        key_watch: KeyWatch,
        records: TurnRecords,
        deletions: Deletions,
        journal: Journal,
        recovery: Recovery,
        accounts: Accounts,
        profile: AgentProfile,
        defaults: TurnDefaults,
        observer: Observer,
        clock: Clock = utc_now,
    ) -> None:
        """Lay out the bench.

        Args:
            sessions: Where sessions are kept.
            leases: This server's leases on them.
            messages: Where messages are kept.
            replicas: This server's heartbeat.
            ledger: Where calls are kept.
            oracle: Prices and bounds calls.
            adjustments: Takes what is known of a call too late.
            spending: The tenants' budgets.
            policies: What tenants may do.
            gates: How many turns they may start and run.
            key_watch: Knows whose key is in force no more.
            records: Where turns are written down.
            deletions: Deletes sessions.
            journal: Keeps their logs.
            recovery: Closes the logs of dead turns.
            accounts: Speak to the provider.
            profile: What the agent is told and may use.
            defaults: What holds where a request says nothing.
            observer: Counts turns and calls.
            clock: Returns the time that calls are booked at.
        """
        self.sessions = sessions
        self.leases = leases
        self.messages = messages
        self.replicas = replicas
        self.ledger = ledger
        self.oracle = oracle
        self.records = records
        self.deletions = deletions
        self.journal = journal
        self.recovery = recovery
        self.slots = SessionSlots()
        self.openings = Turnstile(_OPENINGS)
        self.endings = Turnstile(_ENDINGS, behind=self.openings)
        self._adjustments = adjustments
        self._spending = spending
        self.policies = policies
        self.gates = gates
        self.key_watch = key_watch
        self.accounts = accounts
        self._profile = profile
        self.defaults = defaults
        self.observer = observer
        self._clock = clock

    def meter(self, turn: Turn, claim: Claim, spans: CallSpans, *, last_number: int) -> TurnMeter:
        """Build the turn's meter."""

        def ended(call: ModelCall) -> None:
            spans.ended(call)
            self.observer.call_ended(call)

        scope = TurnScope(
            tenant_id=turn.tenant_id,
            session_uid=claim.session.uid,
            session_id=claim.session.session_id,
            turn_id=turn.turn_id,
            user=claim.session.user,
            agent=self._profile.name,
            provider_key_id=turn.paid_by.key_id,
            owner=self.replicas.replica_id,
            own_key=turn.paid_by.own,
        )
        return TurnMeter(
            scope,
            ledger=self.ledger,
            oracle=self.oracle,
            adjustments=self._adjustments,
            last_number=last_number,
            record=self.observer.call_closed,
            permit=lambda: self.permit(turn),
            allowance=Allowance(self._spending, budgets=turn.policy.budgets, max_cost=turn.request.max_cost),
            clock=self._clock,
            keeps_records=self.accounts.keeps_records,
            opened=spans.opened,
            ended=ended,
        )

    def permit(self, turn: Turn) -> None:
        """Let a turn go on.

        Raises:
            SessionLost: Somebody may have taken its session over.
            InvalidApiKey: The key that started it was revoked, or has expired.
        """
        refuse_ended(turn)
        if not self.replicas.holds(turn.epoch):
            raise SessionLost("The server lost touch with the database.", retry_after=1.0)

    def model(self, turn: Turn, claim: Claim, meter: TurnMeter) -> OpenRouterModel:
        """Build the turn's model."""
        fallbacks = self.fallbacks(turn)
        session, catalogue = claim.session, self.oracle.current
        listed = catalogue.find(session.model) if catalogue is not None else None
        return OpenRouterModel(
            client=turn.paid_by.client,
            meter=meter,
            model=session.model,
            fallback_models=fallbacks,
            max_output_tokens=_lower(turn.request.max_output_tokens, turn.policy.max_output_tokens),
            side_output_tokens=self.defaults.summary_output_tokens,
            call_terms=self._call_terms(turn, meter, (session.model, *fallbacks)),
            provider=self._routing(turn) or None,
            user=pseudonym(session.tenant_id, session.user) if session.user else None,
            session_key=pseudonym(session.tenant_id, session.uid),
            maker=lambda served: _maker(catalogue, (session.model, *fallbacks), served),
            context_window=listed.context_length if listed is not None else None,
            limits=self.defaults.answer_limits,
        )

    def fallbacks(self, turn: Turn) -> tuple[str, ...]:
        """Tell the models to try when the first cannot answer: the caller's; with no model named, the tenant's."""
        return turn.request.fallback_models if turn.request.model else turn.policy.default_fallback_models

    def _call_terms(
        self, turn: Turn, meter: TurnMeter, models: tuple[str, ...]
    ) -> Callable[[int], Awaitable[CallTerms]]:
        async def terms(request_bytes: int) -> CallTerms:
            """Under a hard bound, which may be set in mid-turn, a call carries the limits that it is reserved by."""
            await self.oracle.prepare(models)
            await meter.allowance.renew(meter.scope.tenant_id)
            if not meter.allowance.bounded:
                return CallTerms()
            routing = self._routing(turn)
            ceiling = self.oracle.ceiling(models, request_bytes=request_bytes)
            routing["max_price"] = _lowest(ceiling, routing.get("max_price", {}))
            limit = self.oracle.output_limit(models, request_bytes=request_bytes)
            return CallTerms(max_output_tokens=limit, provider=routing)

        return terms

    def _routing(self, turn: Turn) -> dict[str, Any]:
        """Return the tenant's preferences among OpenRouter's providers."""
        routing = dict(turn.policy.provider or {})
        if turn.policy.zero_data_retention:
            routing["zdr"] = True
        return routing

    def trimmer(self, claim: Claim) -> OverflowTrimmer:
        """Build what makes the turn's history fit its model."""
        profile, catalogue = self._profile, self.oracle.current
        listed = catalogue.find(claim.session.model) if catalogue is not None else None
        fixed = sum(len(json.dumps(tool.tool_spec)) for tool in profile.tools) + len(profile.system_prompt.encode())
        return OverflowTrimmer(context_tokens=listed.context_length if listed else None, fixed_bytes=fixed)

    def agent(
        self,
        model: OpenRouterModel,
        manager: MongoSessionManager,
        watch: ToolWatch,
        state: dict[str, Any],
        *,
        trimmer: OverflowTrimmer,
        trace_attributes: dict[str, str],
    ) -> Agent:
        """Build the turn's agent."""
        return Agent(
            model=model,
            system_prompt=self._profile.system_prompt,
            tools=list(self._profile.tools),
            state=state,
            agent_id=self._profile.name,
            name=self._profile.name,
            session_manager=manager,
            hooks=[watch, UnparsedInputs(), ToolOutputLimit(self.defaults.tool_output_bytes)],
            callback_handler=None,
            retry_strategy=None,
            trace_attributes=trace_attributes,
            **management(self._profile, trimmer),
        )

    def limits(self, turn: Turn) -> Limits:
        """Bound the agent's loop."""
        calls = turn.request.max_model_calls
        limits = Limits(turns=min(calls or self.defaults.max_model_calls, self.defaults.max_model_calls))
        tokens = _lower(turn.request.max_output_tokens, turn.policy.max_output_tokens)
        if tokens is not None:
            limits["output_tokens"] = tokens
        return limits

    @property
    def window_size(self) -> int:
        """How many messages the model sees."""
        return self._profile.window_size


def _maker(catalogue: Catalogue | None, models: tuple[str, ...], served: str | None) -> str:
    """Return which of the requested models served: a fallback, if the listing says so, else the first."""
    found = catalogue.find(served, requested=models) if catalogue is not None and served else None
    if catalogue is None or found is None:
        return models[0]
    listed = ((name, catalogue.find(name)) for name in models)
    return next((name for name, each in listed if each is not None and each.id == found.id), models[0])


def _lowest(*prices: Mapping[str, str]) -> dict[str, str]:
    """Tell the lower bound of each price: a tenant's own may not lift the one that its calls are reserved by."""
    names = dict.fromkeys(name for each in prices for name in each)
    return {name: min((each[name] for each in prices if name in each), key=Decimal) for name in names}


def _lower(first: int | None, second: int | None) -> int | None:
    """Tell the lower of two bounds; None is none."""
    return min((each for each in (first, second) if each is not None), default=None)


def pseudonym(*parts: str) -> str:
    """Name somebody to the provider so that it learns nothing, and cannot mix tenants up."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]
