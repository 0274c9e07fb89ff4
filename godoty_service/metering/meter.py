"""A turn's meter: it writes each request ahead, and closes each entry on every way out.

The openrouter room asks for it by a protocol of its own (`openrouter/metered.py`); `server.py` hands it over.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar

import structlog

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import BudgetSpent, GodotyError, ProviderError, StorageError
from godoty_service.ids import new_id
from godoty_service.metering.adjustments import Adjustments
from godoty_service.metering.allowance import Allowance
from godoty_service.metering.call import CallState, CostSource, ModelCall, bounded_name
from godoty_service.metering.catalogue import Catalogue
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.oracle import Oracle, shown_name
from godoty_service.metering.planned_call import PlannedCall
from godoty_service.metering.states import CURRENT_RULE
from godoty_service.metering.totals import Totals, fold
from godoty_service.metering.usage import from_openrouter

log = structlog.get_logger(__name__)

T = TypeVar("T")

_CODE_DIGITS = 3  # of an HTTP status


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnScope:
    """Whose calls a meter counts; `own_key`: they are sent with the tenant's own provider key."""

    tenant_id: str
    session_uid: str
    session_id: str
    turn_id: str
    user: str | None
    agent: str
    provider_key_id: str
    owner: str
    own_key: bool = False


class TurnMeter:
    """Counts the calls of one turn."""

    def __init__(
        self,
        scope: TurnScope,
        *,
        ledger: Ledger,
        oracle: Oracle,
        adjustments: Adjustments,
        last_number: int,
        record: Callable[[ModelCall], None],
        permit: Callable[[], None],
        allowance: Allowance,
        keeps_records: Callable[[], bool],
        opened: Callable[[ModelCall], None] = lambda _: None,
        ended: Callable[[ModelCall], None] = lambda _: None,
        clock: Clock = utc_now,
    ) -> None:
        """Build a meter.

        Args:
            scope: Whose calls these are.
            ledger: Where they are written.
            oracle: Who prices them.
            adjustments: Takes what is known too late.
            last_number: The number of the session's last entry.
            record: Told of each call that closes, for the metrics.
            permit: Raises where the turn may make no call any more.
            allowance: What the turn may still spend.
            keeps_records: Returns whether the upstream may keep generation records.
            opened: Called with each call before its request is sent.
            ended: Called with each call when its request has ended, whether its cost is known or not.
            clock: Tells the time.
        """
        self.scope = scope
        self.ledger = ledger
        self.oracle = oracle
        self.adjustments = adjustments
        self.record = record
        self.permit = permit
        self.allowance = allowance
        self.keeps_records = keeps_records
        self._opened = opened
        self._on_ended = ended
        self.clock = clock
        self._last_number = last_number
        self._calls: dict[str, OpenCall] = {}
        self._writes: set[asyncio.Task[Any]] = set()

    async def open(
        self,
        *,
        model: str,
        fallback_models: tuple[str, ...],
        request_bytes: int,
        max_output_tokens: int | None,
        max_price: Mapping[str, str] | None,
        attempt: int,
    ) -> "OpenCall":
        """Make an entry durable; only then may its request be sent.

        The allowance was renewed for this call: its bound holds for the limits that the request carries.

        Args:
            model: The model to ask.
            fallback_models: The models that may serve instead.
            request_bytes: The length of the request.
            max_output_tokens: The output limit that the turn and its model allow. What a budget or `max_cost_usd` has
                left may make it smaller: the request carries the `output_limit` of the call.
            max_price: `provider.max_price` as the request carries it.
            attempt: Counts the requests of one answer, from 1.

        Raises:
            StorageUnavailable: It could not be written: the request must not be sent.
            SessionLost: The turn may make no call any more.
            QuotaExceeded: It does not fit a budget.
            CostUnbounded: Its cost has no finite bound, and must have one.
        """
        self.permit()
        models = (model, *fallback_models)

        @cache
        def bound(limit: int | None) -> Decimal | None:
            return self.oracle.bound(models, request_bytes=request_bytes, max_output_tokens=limit, max_price=max_price)

        while True:
            start = self.clock()
            plan = PlannedCall(tenant_id=self.scope.tenant_id, start_time=start, asked=max_output_tokens, bound=bound)
            limit = await self.allowance.output_limit(plan, model, self.entries)
            entry = self._entry(models, start, upper_bound=bound(limit), attempt=attempt)
            call = OpenCall(self, entry, self.oracle.current, output_limit=limit, clamped=limit != max_output_tokens)
            try:
                await self._write_ahead(call)
            except BudgetSpent:  # more was spent since the budget was read: with fewer tokens it may still fit
                continue
            return call

    def _entry(
        self, models: tuple[str, ...], start: datetime, *, upper_bound: Decimal | None, attempt: int
    ) -> ModelCall:
        """Return a new call's entry, under the next number."""
        model = models[0]
        return ModelCall(
            call_id=new_id("call"),
            tenant_id=self.scope.tenant_id,
            session_uid=self.scope.session_uid,
            session_id=self.scope.session_id,
            turn_id=self.scope.turn_id,
            number=self._last_number + 1,
            state=CallState.PENDING,
            requested_model=model,
            requested_id=self.oracle.listed_name(model),
            fallback_models=models[1:],
            upper_bound=upper_bound,
            provider_key_id=self.scope.provider_key_id,
            evidence=self.oracle.price(
                None, served_model=model, requested=models, provider=None, at=start, catalogue=self.oracle.current
            ).evidence,
            start_time=start,
            attempt=attempt,
            user=self.scope.user,
            agent=self.scope.agent,
            owner=self.scope.owner,
            rule=CURRENT_RULE,
        )

    async def _write_ahead(self, call: "OpenCall") -> None:
        """Insert a call's entry and reserve its bound, side by side: neither waits for the other.

        Raises:
            GodotyError: One of the two failed. An entry that was inserted is void.
        """
        call_id = call.entry.call_id
        self._calls[call_id] = call
        self.ledger.open_calls.add(call_id)
        reserving = self.start(self.allowance.reserve(call.entry))
        await self.landed(call.insert())
        try:
            await asyncio.shield(reserving)
        except GodotyError as error:
            await call.void(error)
            raise
        self._observe(self._opened, call.entry)

    def totals(self) -> Totals:
        """Sum the turn's calls, the open ones as pending."""
        return fold([call.entry for call in self._calls.values() if call.inserted])

    @property
    def entries(self) -> list[ModelCall]:
        """The turn's calls, as far as they are known to be written."""
        return [call.entry for call in self._calls.values() if call.inserted]

    @property
    def sent(self) -> bool:
        """Whether a request of the turn has left."""
        return any(call.sent for call in self._calls.values())

    @property
    def doubtful(self) -> bool:
        """Whether an entry may have landed that is not known to be written."""
        return any(not call.inserted for call in self._calls.values())

    async def close(self) -> None:
        """Close what is still open, void or left to reconciliation, and wait for every write. Never raises."""
        while self._writes:
            await asyncio.gather(*self._writes, return_exceptions=True)
        for call in self._calls.values():
            try:
                await call.abandon()
            except StorageError as error:  # reconciliation finds it: it is nobody's open call any more
                log.warning("call_left_open", call_id=call.entry.call_id, error=str(error))
        while self._writes:
            await asyncio.gather(*self._writes, return_exceptions=True)
        self.ledger.open_calls.difference_update(self._calls)

    async def landed(self, write: Coroutine[Any, Any, T]) -> T:
        """Wait for a write that goes on also when the waiting is cancelled."""
        return await asyncio.shield(self.start(write))

    def start(self, write: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start a write that `close` will wait for."""
        task = asyncio.create_task(write)
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return task

    def ended(self, call: ModelCall) -> None:
        """Report a call whose request has ended."""
        self._observe(self._on_ended, call)

    def _observe(self, observer: Callable[[ModelCall], None], call: ModelCall) -> None:
        """Call an observer; a fault of telemetry must not keep a call from being settled."""
        try:
            observer(call)
        except Exception:
            log.exception("call_not_observed", call_id=call.call_id)

    def numbered(self, number: int) -> None:
        """Take note of the number that an entry got."""
        self._last_number = max(self._last_number, number)


class OpenCall:
    """A request that stands in the ledger. Exactly one of `void`, `refused`, `answered` and `abandon` ends it.

    Attributes:
        output_limit: The output tokens that the entry's bound allows the request; None: no limit.
        clamped: Whether a budget or `max_cost_usd` made that fewer than what was asked for.
        sent: Whether the request has begun to leave.
        entry: The ledger entry.
        inserted: Whether it is known to be in the ledger.
    """

    def __init__(
        self,
        meter: TurnMeter,
        entry: ModelCall,
        catalogue: Catalogue | None,
        *,
        output_limit: int | None,
        clamped: bool,
    ) -> None:
        self.output_limit = output_limit
        self.clamped = clamped
        self._meter = meter
        self._catalogue = catalogue
        self._begun_at = time.monotonic()
        self._ended = False
        self.sent = False
        self.entry = entry
        self.inserted = False

    async def insert(self) -> None:
        """Write the entry. One that may have landed all the same was never sent: it is void."""
        try:
            self.entry = await self._meter.ledger.insert(self.entry, permit=self._meter.permit)
        except StorageError as error:
            self._ended = True
            void = replace(self.entry, state=CallState.VOID, settle_time=self._meter.clock(), error=_reason(error))
            self._meter.ledger.keep(void)
            raise
        self.inserted = True
        self._begun_at = time.monotonic()
        self._meter.numbered(self.entry.number)

    def sending(self) -> None:
        """Say that the request leaves now: from here on it may cost.

        Raises:
            SessionLost: It may not leave any more: the server stood still since the call was opened.
        """
        self._meter.permit()
        self.sent = True

    def heard(self, generation_id: str) -> None:
        """Keep the provider's id at once, without waiting for the write."""
        if self.entry.generation_id == generation_id:
            return
        self.entry = replace(self.entry, generation_id=generation_id)
        self._meter.start(self._note(generation_id))

    def first_token(self) -> None:
        """Note the time of the first token."""
        if self.entry.time_to_first_token is None:
            self.entry = replace(self.entry, time_to_first_token=self._elapsed())

    async def void(self, error: GodotyError | None) -> ModelCall:
        """Close a call that was provably never sent."""
        return await self._close(state=CallState.VOID, **self._failure(error))

    async def refused(self, error: GodotyError) -> ModelCall:
        """Close a call to which the provider itself said no, with no generation behind it: it cost nothing."""
        return await self._close(
            state=CallState.SETTLED,
            cost=Decimal(0),
            cost_source=CostSource.BILLED,
            duration=self._elapsed(),
            **self._failure(error),
        )

    async def answered(
        self,
        *,
        usage: dict[str, Any] | None,
        served_model: str | None,
        provider: str | None,
        finish_reason: str | None,
        error: GodotyError | None,
    ) -> ModelCall:
        """Close a call with what its stream told; where that has no cost, leave it to reconciliation."""
        requested = (self.entry.requested_model, *self.entry.fallback_models)
        slug = bounded_name(served_model)
        known: dict[str, Any] = {
            "served_model": slug and shown_name(slug, requested=requested, catalogue=self._catalogue),
            "served_slug": slug,
            "provider": provider,
            "finish_reason": finish_reason,
            "duration": self._elapsed(),
            "error_code": _answered_code(error),
            **self._failure(error),
        }
        billing = from_openrouter(usage) if usage is not None else None
        if billing is not None:
            priced = self._meter.oracle.price(
                billing.usage,
                served_model=slug or self.entry.requested_model,
                requested=requested,
                provider=provider,
                at=self.entry.start_time,
                catalogue=self._catalogue,
            )
            known |= {
                "usage": billing.usage,
                "upstream_cost": billing.upstream_cost,
                "is_byok": billing.is_byok,
                "catalogue_cost": priced.cost,
                "evidence": priced.evidence or self.entry.evidence,
            }
        if billing is not None and billing.cost is not None:
            settled = {"cost": billing.cost, "cost_source": CostSource.BILLED}
        elif self._is_priced_now(known):
            settled = {"cost": known["catalogue_cost"], "cost_source": CostSource.CATALOGUE}
        else:
            return await self._leave(**known)
        return await self._close(state=CallState.SETTLED, **settled, **known)

    def _is_priced_now(self, known: dict[str, Any]) -> bool:
        """Whether the catalogue's price is final, because the answer ended and the upstream keeps no records."""
        priceable = known.get("catalogue_cost") is not None and not known.get("is_byok")
        return priceable and known["finish_reason"] is not None and not self._meter.keeps_records()

    async def abandon(self) -> None:
        """End a call that nobody ended: void where it was not sent, else left to reconciliation."""
        if self._ended or not self.inserted:
            return
        if not self.sent:
            await self.void(None)
        else:
            await self._leave(duration=self._elapsed(), error="interrupted")

    async def _note(self, generation_id: str) -> None:
        try:
            await self._meter.ledger.note_generation(self.entry.tenant_id, self.entry.call_id, generation_id)
        except StorageError as error:  # the closing write brings it again
            log.warning("generation_not_noted", call_id=self.entry.call_id, error=str(error))

    async def _close(self, **changes: Any) -> ModelCall:
        self._ended = True
        self.entry = replace(self.entry, settle_time=self._meter.clock(), **changes)
        self._meter.ended(self.entry)
        await self._meter.landed(self._write_close())
        return self.entry

    async def _write_close(self) -> None:
        if await self._meter.ledger.close_or_keep(self.entry):
            self._meter.record(self.entry)
            await self._meter.allowance.settle(self.entry)
        else:
            await self._meter.adjustments.settle_late(self.entry)

    async def _leave(self, **changes: Any) -> ModelCall:
        self._ended = True
        self.entry = replace(self.entry, **changes)
        self._meter.ended(self.entry)
        await self._meter.landed(self._meter.ledger.leave_or_keep(self.entry))
        return self.entry

    def _failure(self, error: GodotyError | None) -> dict[str, Any]:
        """Return what the entry says of an error, and log what the provider said of it."""
        if not isinstance(error, ProviderError):
            return {"error": _reason(error)}
        known = {"call_id": self.entry.call_id, "model": self.entry.requested_model, "reason": error.reason}
        log.warning("provider_error", **(known | error.metadata), provider_message=error.message)
        own_key = self._meter.scope.own_key
        return {"error": _reason(error), "error_message": error.message_for_tenant(own_key=own_key)}

    def _elapsed(self) -> timedelta:
        return timedelta(microseconds=int((time.monotonic() - self._begun_at) * 1_000_000))


def _answered_code(error: GodotyError | None) -> int | None:
    """Return the status that the provider answered with; None: no error, or the connection failed."""
    code = error.metadata.get("provider_code", "") if error is not None else ""
    return int(code) if code.isdecimal() and len(code) == _CODE_DIGITS else None


def _reason(error: GodotyError | None) -> str | None:
    return None if error is None else error.reason.lower()
