"""The meter of a turn: inserts a ledger entry before each request, and ends every call on every way out.

The model uses it through the protocol of `openrouter/call_recorder.py`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache

import structlog

from godoty_service.aio.shielded_writes import ShieldedWrites
from godoty_service.budgets.turn_budget import SubAgentLimit, TurnBudget
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import BudgetReserved, BudgetSpent, GodotyError, MaxCostTooLow, StorageError
from godoty_service.ids import new_id
from godoty_service.ledger.entries import CallPurpose, ModelCall
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.states import CURRENT_RULE, CallState
from godoty_service.ledger.totals import Totals, totals_of_entries
from godoty_service.metering.adjustments import Adjustments
from godoty_service.metering.open_call import CallDependencies, OpenCall, notify_observer
from godoty_service.pricing.attached import NOTHING_ATTACHED, AttachedInput
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.pricing.planned_call import PlannedCall
from godoty_service.pricing.server_tools import ServerToolUse

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnScope:
    """The identity that a turn's calls are accounted under.

    Attributes:
        agent_version: The number of the version of `agent`; None: it has no versions.
        api_key_id: The API key that started the turn; None: none did.
        own_key: The requests carry the tenant's own provider key.
    """

    tenant_id: str
    session_uid: str
    session_id: str
    turn_id: str
    user_reference: str | None
    agent: str
    provider_key_id: str
    owner: str
    agent_version: int | None = None
    api_key_id: str | None = None
    own_key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CallingAgent:
    """The agent that makes a call.

    Attributes:
        name: Its name.
        version: The number of its version; None: it has no versions.
        path: The sub-agent, as in `ModelCall.agent_path`; None: it is the turn's own agent.
        limits: Limits on the cost of the sub-agent, and of those that called it.
    """

    name: str
    version: int | None
    path: str | None = None
    limits: tuple[SubAgentLimit, ...] = ()


class _Ends:
    """Counts the calls that have ended, and wakes who waits for the next one.

    Attributes:
        count: The calls that have ended.
        happened: Set when one ends.
    """

    def __init__(self) -> None:
        self.count = 0
        self.happened = asyncio.Event()

    def add(self) -> None:
        """Count a call that has ended."""
        self.count += 1
        self.happened.set()


class TurnMeter:
    """Meters the model calls of one turn, which agents may make side by side."""

    def __init__(
        self,
        scope: TurnScope,
        *,
        ledger: Ledger,
        oracle: PricingOracle,
        adjustments: Adjustments,
        last_number: int,
        record: Callable[[ModelCall], None],
        check_lease: Callable[[], None],
        turn_budget: TurnBudget,
        keeps_records: Callable[[], bool],
        on_opened: Callable[[ModelCall], None] = lambda _: None,
        on_ended: Callable[[ModelCall], None] = lambda _: None,
        clock: Clock = utc_now,
    ) -> None:
        """Build a meter.

        Args:
            scope: The identity that the calls are accounted under.
            ledger: Stores their entries.
            oracle: Prices them.
            adjustments: Resolves calls that another server closed meanwhile.
            last_number: The number of the session's last entry.
            record: Called with each call that closes, for the metrics.
            check_lease: Raises if the turn may make no further call.
            turn_budget: What the turn may still spend.
            keeps_records: Returns whether the upstream may keep generation records.
            on_opened: Called with each call before its request is sent.
            on_ended: Called with each call when its request has ended, with or without a known cost.
            clock: Returns the time.
        """
        self.scope = scope
        self.turn_budget = turn_budget
        self._ledger = ledger
        self._oracle = oracle
        self._check_lease = check_lease
        self._on_opened = on_opened
        self._clock = clock
        self._last_number = last_number
        self._writes = ShieldedWrites()
        self._calls: dict[str, OpenCall] = {}
        self._opening = asyncio.Lock()  # entries are numbered, and what is left is spent, one call after the other
        self._ends = _Ends()
        self._dependencies = CallDependencies(
            ledger=ledger,
            oracle=oracle,
            adjustments=adjustments,
            turn_budget=turn_budget,
            writes=self._writes,
            check_lease=check_lease,
            record=record,
            keeps_records=keeps_records,
            on_ended=on_ended,
            clock=clock,
            own_key=scope.own_key,
            on_closed=self._ends.add,  # not a method of the meter, which would be a reference cycle
        )

    async def open(
        self,
        *,
        model: str,
        fallback_models: tuple[str, ...],
        request_bytes: int,
        max_output_tokens: int | None,
        max_price: Mapping[str, str] | None,
        attempt: int,
        purpose: CallPurpose,
        agent: CallingAgent | None = None,
        server_tools: Sequence[ServerToolUse] = (),
        attached: AttachedInput = NOTHING_ATTACHED,
    ) -> OpenCall:
        """Insert an entry durably; only then may its request be sent.

        The turn's budget was refreshed for this call: its bound holds for the limits that the request carries. A call
        that does not fit while other calls of the turn are running waits until one of them has ended.

        Args:
            model: The requested model.
            fallback_models: The models that may serve instead.
            request_bytes: The length of the request, without images and documents.
            max_output_tokens: The output limit of the turn and its model. The remainder of a budget or of
                `max_cost_usd` may lower it: the request carries the `output_limit` of the call.
            max_price: `provider.max_price` as the request carries it.
            attempt: The number of the request among those for one answer, from 1.
            purpose: What the answer is for.
            agent: The agent that makes the call; None: the turn's own.
            server_tools: What the request may use of tools that the provider runs.
            attached: What images and documents of the request count.

        Raises:
            StorageUnavailable: The entry could not be inserted: the request must not be sent.
            SessionLost: The turn may make no further call.
            QuotaExceeded: The call does not fit a budget.
            CostUnbounded: The call has no finite bound, and must have one.
        """
        models, caller = (model, *fallback_models), agent or self._own_agent

        @cache
        def bound(limit: int | None) -> Decimal | None:
            return self._oracle.bound(
                models,
                request_bytes=request_bytes,
                max_output_tokens=limit,
                max_price=max_price,
                server_tools=server_tools,
                attached=attached,
            )

        async def attempt_open() -> OpenCall | None:
            """Open the call; None: it may still fit with fewer tokens."""
            self._check_lease()
            self._check_inserts()
            start = self._clock()
            await self.turn_budget.refresh_tracking(self.scope.tenant_id)  # the call may have waited for others
            plan = PlannedCall(
                tenant_id=self.scope.tenant_id,
                start_time=start,
                asked=max_output_tokens,
                bound=bound,
                unbounded_tools=tuple(self._oracle.unbounded_tools(server_tools)),
            )
            limit = await self.turn_budget.output_limit(plan, model, self.entries, caller.limits)
            entry = self._new_entry(
                models, start, upper_bound=bound(limit), attempt=attempt, purpose=purpose, agent=caller
            )
            clamped = limit != max_output_tokens
            call = OpenCall(self._dependencies, entry, self._oracle.current, output_limit=limit, clamped=clamped)
            try:
                await self._insert_and_reserve(call)
            except BudgetSpent:  # more was spent since the budget was read
                return None
            return call

        while True:
            closed = self._ends.count
            try:
                async with self._opening:
                    call = await attempt_open()
            except (MaxCostTooLow, BudgetReserved):
                if not await self._other_closed(closed):
                    raise
            else:
                if call is not None:
                    return call

    async def end_calls(self, path: str) -> None:
        """End the calls of a sub-agent that is done: none of them may reserve anything for the rest of the turn."""
        for call in list(self._calls.values()):
            if call.entry.agent_path == path:
                await self._abandon(call)

    def totals(self) -> Totals:
        """Return the totals of the turn's calls, the open ones as pending."""
        return totals_of_entries([call.entry for call in self._calls.values() if call.inserted])

    @property
    def entries(self) -> list[ModelCall]:
        """The entries of the turn that are known to be inserted."""
        return [call.entry for call in self._calls.values() if call.inserted]

    @property
    def finished(self) -> list[ModelCall]:
        """The entries of the turn whose requests have ended."""
        return [call.entry for call in self._calls.values() if call.inserted and call.ended]

    @property
    def sent(self) -> bool:
        """Whether sending any request of the turn has begun."""
        return any(call.sent for call in self._calls.values())

    @property
    def has_uncertain_insert(self) -> bool:
        """Whether an entry may be in the ledger although its insert is not known to have succeeded."""
        return any(not call.inserted for call in self._calls.values())

    async def close(self) -> None:
        """End the calls that are still open, void or deferred, and wait for every write. Never raises."""
        await self._writes.wait_all()
        for call in list(self._calls.values()):
            await self._abandon(call)
        await self._writes.wait_all()
        self._ledger.open_calls.difference_update(self._calls)

    async def _abandon(self, call: OpenCall) -> None:
        """End a call if it is still open. Never raises."""
        try:
            await call.abandon()
        except StorageError as error:  # no server holds it once the turn has ended, so reconciliation finds it
            log.warning("call_not_ended", call_id=call.entry.call_id, error=str(error))

    async def _other_closed(self, seen: int) -> bool:
        """Wait for the end of another call, if one is running; return whether one has ended.

        Args:
            seen: The number of calls that had ended before.
        """
        while self._ends.count == seen:
            if not any(call.inserted and not call.closed for call in self._calls.values()):
                return False
            self._ends.happened.clear()
            await self._ends.happened.wait()
        return True

    def _check_inserts(self) -> None:
        """Check that the entries of all calls were inserted: a number that may be taken cannot be used again.

        Raises:
            StorageError: One was not, as far as is known.
        """
        for call in self._calls.values():
            if call.insert_error is not None:
                raise call.insert_error

    @property
    def _own_agent(self) -> CallingAgent:
        return CallingAgent(name=self.scope.agent, version=self.scope.agent_version)

    def _new_entry(
        self,
        models: tuple[str, ...],
        start: datetime,
        *,
        upper_bound: Decimal | None,
        attempt: int,
        purpose: CallPurpose,
        agent: CallingAgent,
    ) -> ModelCall:
        """Return a new call's entry, under the next number."""
        model, catalogue = models[0], self._oracle.current
        unpriced = self._oracle.price(
            None, served_model=model, requested=models, provider=None, at=start, catalogue=catalogue
        )
        return ModelCall(
            call_id=new_id("call"),
            tenant_id=self.scope.tenant_id,
            session_uid=self.scope.session_uid,
            session_id=self.scope.session_id,
            turn_id=self.scope.turn_id,
            number=max([self._last_number, *(each.entry.number for each in self._calls.values())]) + 1,
            state=CallState.PENDING,
            requested_model=model,
            requested_id=self._oracle.listed_name(model),
            fallback_models=models[1:],
            upper_bound=upper_bound,
            budgeted=self.turn_budget.tracked or None,
            provider_key_id=self.scope.provider_key_id,
            evidence=unpriced.evidence,
            start_time=start,
            attempt=attempt,
            user_reference=self.scope.user_reference,
            agent=agent.name,
            agent_version=agent.version,
            agent_path=agent.path,
            purpose=purpose,
            api_key_id=self.scope.api_key_id,
            owner=self.scope.owner,
            rule=CURRENT_RULE,
        )

    async def _insert_and_reserve(self, call: OpenCall) -> None:
        """Insert a call's entry and reserve its bound, concurrently: neither waits for the other.

        Raises:
            GodotyError: One of the two failed. An entry that was inserted is void.
        """
        call_id = call.entry.call_id
        self._calls[call_id] = call
        self._ledger.open_calls.add(call_id)
        reserving = self._writes.start(self.turn_budget.reserve(call.entry))
        await self._writes.shielded(call.insert())
        try:
            await asyncio.shield(reserving)
        except GodotyError as error:
            await call.void(error)
            self._ends.count -= 1  # nothing of another call is free
            raise
        notify_observer(self._on_opened, call.entry)
