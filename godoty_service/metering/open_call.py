"""A model call whose request is not finished: records its progress and closes its ledger entry on every way out.

The model uses it through the protocol of `openrouter/call_recorder.py`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import structlog

from godoty_service.aio.shielded_writes import ShieldedWrites
from godoty_service.budgets.turn_budget import TurnBudget
from godoty_service.clock import Clock
from godoty_service.errors import GodotyError, ProviderError, StorageError
from godoty_service.ledger.entries import CostSource, ModelCall, bounded_name
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.states import CallState
from godoty_service.metering.adjustments import Adjustments
from godoty_service.pricing import money
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.pricing.oracle import PricingOracle, display_name
from godoty_service.pricing.token_usage import ProviderCharge, from_openrouter

log = structlog.get_logger(__name__)

_INTERRUPTED = "interrupted"  # the error of a call whose turn left the answer before its end
_STATUS_DIGITS = 3  # of an HTTP status


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDependencies:
    """The dependencies that all calls of a turn share.

    Attributes:
        ledger: Stores the entries.
        oracle: Prices the calls.
        adjustments: Resolves calls that another server closed meanwhile.
        turn_budget: The reservations of the turn.
        writes: The turn's writes, which finish despite a cancellation.
        check_lease: Raises if the turn may make no further call.
        record: Called with each call that closes, for the metrics.
        keeps_records: Returns whether the upstream may keep generation records.
        on_ended: Called with each call when its request has ended, with or without a known cost.
        clock: Returns the time.
        own_key: Whether the requests carry the tenant's own provider key.
        on_closed: Called when a call that has ended is written, with its reservations settled.
    """

    ledger: Ledger
    oracle: PricingOracle
    adjustments: Adjustments
    turn_budget: TurnBudget
    writes: ShieldedWrites
    check_lease: Callable[[], None]
    record: Callable[[ModelCall], None]
    keeps_records: Callable[[], bool]
    on_ended: Callable[[ModelCall], None]
    clock: Clock
    own_key: bool
    on_closed: Callable[[], None] = lambda: None


class OpenCall:
    """A request with a ledger entry. Exactly one of `void`, `refused`, `answered` and `abandon` ends it.

    Attributes:
        output_limit: The output tokens that the entry's bound allows the request; None: no limit.
        clamped: Whether a budget or `max_cost_usd` lowered that limit.
        sent: Whether sending the request has begun.
        entry: The ledger entry.
        inserted: Whether the entry is known to be in the ledger.
        insert_error: Why it is not known whether the insert succeeded; None: it succeeded, or has not ended.
        closed: Whether the end of the request is written, or cannot be.
    """

    def __init__(
        self,
        dependencies: CallDependencies,
        entry: ModelCall,
        catalogue: Catalogue | None,
        *,
        output_limit: int | None,
        clamped: bool,
    ) -> None:
        self.output_limit = output_limit
        self.clamped = clamped
        self.sent = False
        self.entry = entry
        self.inserted = False
        self.insert_error: StorageError | None = None
        self.closed = False
        self._dependencies = dependencies
        self._catalogue = catalogue
        self._started_at = time.monotonic()
        self._ended = False

    async def insert(self) -> None:
        """Insert the entry. If the outcome is unknown, retain it as void: its request is never sent."""
        ledger = self._dependencies.ledger
        try:
            self.entry = await ledger.insert(self.entry, check=self._dependencies.check_lease)
        except StorageError as error:
            self._ended, self.insert_error = True, error
            now = self._dependencies.clock()
            ledger.retain(replace(self.entry, state=CallState.VOID, settle_time=now, error=_reason(error)))
            raise
        self.inserted = True
        self._started_at = time.monotonic()

    def sending(self) -> None:
        """Mark the request as being sent: from here on it may cost.

        Raises:
            SessionLost: It must not be sent: the lease was lost since the call was opened, as the server stood still.
        """
        self._dependencies.check_lease()
        self.sent = True

    def set_generation_id(self, generation_id: str) -> None:
        """Store the provider's id at once, without waiting for the write."""
        if self.entry.generation_id == generation_id:
            return
        self.entry = replace(self.entry, generation_id=generation_id)
        self._dependencies.writes.start(self._store_generation_id(generation_id))

    def first_token(self) -> None:
        """Record the time of the first token."""
        if self.entry.time_to_first_token is None:
            self.entry = replace(self.entry, time_to_first_token=self._elapsed())

    async def void(self, error: GodotyError | None) -> ModelCall:
        """Close a call that was provably never sent."""
        return await self._close(state=CallState.VOID, **self._failure(error))

    async def refused(self, error: GodotyError) -> ModelCall:
        """Close a call that the provider rejected without a generation: it cost nothing."""
        return await self._close(
            state=CallState.SETTLED,
            cost=money.ZERO,
            cost_source=CostSource.BILLED,
            duration=self._elapsed(),
            **self._failure(error),
        )

    async def answered(
        self,
        *,
        usage: Mapping[str, object] | None,
        served_model: str | None,
        provider: str | None,
        finish_reason: str | None,
        error: GodotyError | None,
        interrupted: bool = False,
    ) -> ModelCall:
        """Settle a call by its stream; without a cost in it, defer the call to reconciliation."""
        slug = bounded_name(served_model)
        known: dict[str, Any] = {
            "served_model": slug and display_name(slug, requested=self._requested, catalogue=self._catalogue),
            "served_slug": slug,
            "provider": provider,
            "finish_reason": finish_reason,
            "duration": self._elapsed(),
            "error_code": _status_of(error),
            **self._failure(error, interrupted=interrupted),
        }
        charge = from_openrouter(usage) if usage is not None else None
        if charge is not None:
            known |= self._priced(charge, slug, provider)
        if charge is not None and charge.cost is not None:
            settled = {"cost": charge.cost, "cost_source": CostSource.BILLED}
        elif self._has_final_price(known):
            settled = {"cost": known["catalogue_cost"], "cost_source": CostSource.CATALOGUE}
        else:
            return await self._defer(**known)
        return await self._close(state=CallState.SETTLED, **settled, **known)

    @property
    def ended(self) -> bool:
        """Whether the request has ended."""
        return self._ended

    async def abandon(self) -> None:
        """End a call that is still open: void if it was not sent, else deferred to reconciliation."""
        if self._ended or not self.inserted:
            return
        if not self.sent:
            await self.void(None)
        else:
            await self._defer(duration=self._elapsed(), error=_INTERRUPTED)

    @property
    def _requested(self) -> tuple[str, ...]:
        return (self.entry.requested_model, *self.entry.fallback_models)

    def _priced(self, charge: ProviderCharge, slug: str | None, provider: str | None) -> dict[str, Any]:
        """Return the fields that follow from the reported usage, with its price by the catalogue."""
        priced = self._dependencies.oracle.price(
            charge.usage,
            served_model=slug or self.entry.requested_model,
            requested=self._requested,
            provider=provider,
            at=self.entry.start_time,
            catalogue=self._catalogue,
        )
        return {
            "usage": charge.usage,
            "upstream_cost": charge.upstream_cost,
            "tool_fees": charge.tool_fees,
            "is_byok": charge.is_byok,
            "catalogue_cost": priced.cost,
            "evidence": priced.evidence or self.entry.evidence,
        }

    def _has_final_price(self, known: dict[str, Any]) -> bool:
        """Return whether the catalogue's price is final: the answer ended, and the upstream keeps no records."""
        has_price = known.get("catalogue_cost") is not None and not known.get("is_byok")
        return has_price and known["finish_reason"] is not None and not self._dependencies.keeps_records()

    async def _store_generation_id(self, generation_id: str) -> None:
        try:
            await self._dependencies.ledger.store_generation_id(self.entry.tenant_id, self.entry.call_id, generation_id)
        except StorageError as error:  # the closing write includes it
            log.warning("generation_id_not_stored", call_id=self.entry.call_id, error=str(error))

    async def _close(self, **changes: Any) -> ModelCall:
        self._end(settle_time=self._dependencies.clock(), **changes)
        await self._dependencies.writes.shielded(self._write_close())
        return self.entry

    async def _write_close(self) -> None:
        try:
            await self._write_end()
        finally:
            self._set_closed()

    async def _write_end(self) -> None:
        if await self._dependencies.ledger.close_or_retain(self.entry):
            self._dependencies.record(self.entry)
            await self._dependencies.turn_budget.settle(self.entry)
        else:
            await self._dependencies.adjustments.settle_late(self.entry)

    async def _defer(self, **changes: Any) -> ModelCall:
        self._end(**changes)
        await self._dependencies.writes.shielded(self._write_deferral())
        return self.entry

    async def _write_deferral(self) -> None:
        try:
            await self._dependencies.ledger.defer_or_retain(self.entry)
        finally:
            self._set_closed()

    def _set_closed(self) -> None:
        self.closed = True
        self._dependencies.on_closed()

    def _end(self, **changes: Any) -> None:
        self._ended = True
        self.entry = replace(self.entry, **changes)
        notify_observer(self._dependencies.on_ended, self.entry)

    def _failure(self, error: GodotyError | None, *, interrupted: bool = False) -> dict[str, Any]:
        """Return the entry's fields for an error, and log the provider's message."""
        if not isinstance(error, ProviderError):
            return {"error": _INTERRUPTED if error is None and interrupted else _reason(error)}
        facts = {"call_id": self.entry.call_id, "model": self.entry.requested_model, "reason": error.reason}
        log.warning("provider_error", **(facts | error.metadata), provider_message=error.message)
        message = error.message_for_tenant(own_key=self._dependencies.own_key)
        return {"error": _reason(error), "error_message": message}

    def _elapsed(self) -> timedelta:
        return timedelta(microseconds=int((time.monotonic() - self._started_at) * 1_000_000))


def notify_observer(observer: Callable[[ModelCall], None], call: ModelCall) -> None:
    """Call an observer; a fault in telemetry must not keep a call from being settled."""
    try:
        observer(call)
    except Exception:
        log.exception("call_not_observed", call_id=call.call_id)


def _status_of(error: GodotyError | None) -> int | None:
    """Return the status of the provider's error response; None: no error, or the connection failed."""
    code = error.metadata.get("provider_code", "") if error is not None else ""
    return int(code) if code.isdecimal() and len(code) == _STATUS_DIGITS else None


def _reason(error: GodotyError | None) -> str | None:
    return None if error is None else error.reason.lower()
