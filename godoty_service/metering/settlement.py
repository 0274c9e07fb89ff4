"""Finds the final state of a deferred call: by the provider's generation record, by the catalogue, or as unresolved."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import structlog

from godoty_service.clock import Clock
from godoty_service.errors import GodotyError, ProviderError
from godoty_service.ledger.entries import CostSource, ModelCall, bounded_name
from godoty_service.ledger.states import CallState
from godoty_service.metering.generation_record import decode_record
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.pricing.token_usage import TokenUsage

log = structlog.get_logger(__name__)

_RECORD_TIMEOUT = 15.0  # seconds to read one record: half of the time for which a reconciler claims a call

ReadGeneration = Callable[[str, str], Awaitable[bytes | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordTimeouts:
    """How long to wait for a record, counted from when the call was deferred: a running stream has no record yet.

    Attributes:
        without_usage: If only the record can state what the call cost.
        priced: If the catalogue can price the usage that came with the answer.
        after_error: If the provider answered with an error, without output and usage.
        unreachable: If the provider does not answer at all.
    """

    without_usage: timedelta = timedelta(hours=1)
    priced: timedelta = timedelta(minutes=2)
    after_error: timedelta = timedelta(minutes=5)
    unreachable: timedelta = timedelta(hours=24)


class SettlementFinder:
    """Finds final states of calls; it writes nothing.

    Attributes:
        readable_keys: The ids of the keys whose records can be read now.
    """

    def __init__(
        self,
        *,
        oracle: PricingOracle,
        read_generation: ReadGeneration,
        keeps_records: Callable[[], bool],
        timeouts: RecordTimeouts,
        clock: Clock,
    ) -> None:
        """Build it.

        Args:
            oracle: Prices usage if no record comes.
            read_generation: Reads a generation's record by key id and generation id; None: there is none, or none yet.
            keeps_records: Returns whether the upstream may keep records.
            timeouts: How long to wait for records.
            clock: Returns the time.
        """
        self._oracle = oracle
        self._read_generation = read_generation
        self._keeps_records = keeps_records
        self._timeouts = timeouts
        self._clock = clock
        self.readable_keys: Collection[str] = ()

    async def find(self, call: ModelCall, waited: timedelta) -> ModelCall | None:
        """Return a call in its final state after a wait; None: wait longer for its record."""
        readable = call.generation_id is not None and call.provider_key_id in self.readable_keys
        if readable:
            try:
                settled = await self._by_record(call)
            except (ProviderError, TimeoutError) as error:
                message = error.message if isinstance(error, ProviderError) else None
                log.warning("generation_not_read", call_id=call.call_id, error=str(error), provider_message=message)
                if waited < self._timeouts.unreachable:
                    return None
            else:
                if settled is not None:
                    return settled
        priced = await self._by_catalogue(call)
        if readable and waited < self._timeout_of(call, priced=priced is not None):
            return None
        return priced or self._final(call, state=CallState.UNRESOLVED)

    def _timeout_of(self, call: ModelCall, *, priced: bool) -> timedelta:
        """Return how long to wait for a call's record."""
        if priced:
            return self._timeouts.priced if self._keeps_records() else timedelta(0)
        without_output = call.usage is None and call.time_to_first_token is None
        answered_error = call.error_code is not None and without_output
        return self._timeouts.after_error if answered_error else self._timeouts.without_usage

    async def _by_record(self, call: ModelCall) -> ModelCall | None:
        """Settle a call by its record; None: there is none yet, it is malformed, or it states no cost.

        Raises:
            ProviderError: The provider does not answer, or with an error.
            TimeoutError: Reading the record takes too long.
        """
        try:
            async with asyncio.timeout(_RECORD_TIMEOUT):
                body = await self._read_generation(call.provider_key_id, call.generation_id or "")
            record = decode_record(body) if body is not None else None
        except ValueError as error:
            log.warning("generation_record_malformed", call_id=call.call_id, error=str(error))
            return None
        if record is None or record.charge.cost is None:
            return None
        charge = record.charge
        known = replace(
            call,
            **await self._served(call, record.model),
            provider=call.provider or record.provider,
            finish_reason=call.finish_reason or record.finish_reason,
            usage=_merged_usage(call, charge.usage),
            upstream_cost=call.upstream_cost if call.upstream_cost is not None else charge.upstream_cost,
            is_byok=call.is_byok if call.is_byok is not None else charge.is_byok,
        )
        priced = await self._priced(known)
        return self._final(priced, state=CallState.SETTLED, cost=charge.cost, cost_source=CostSource.RECONCILED)

    async def _by_catalogue(self, call: ModelCall) -> ModelCall | None:
        """Settle a call by the catalogue; None: its usage is incomplete, or the catalogue has no price for it.

        Under BYOK the account pays nothing or a fee, which is in no list.
        """
        if call.usage is None or call.is_byok or _is_cut_off(call):
            return None
        priced = await self._priced(call)
        if priced.catalogue_cost is None:
            return None
        return self._final(
            priced, state=CallState.SETTLED, cost=priced.catalogue_cost, cost_source=CostSource.CATALOGUE
        )

    async def _served(self, call: ModelCall, recorded_model: str | None) -> dict[str, Any]:
        """Return the served model by the record, if the stream did not state it."""
        slug = bounded_name(recorded_model)
        if call.served_model is not None or slug is None:
            return {}
        name = await self._oracle.load_display_name(
            slug,
            requested=(call.requested_model, *call.fallback_models),
            catalogue_hash=call.evidence.catalogue_hash if call.evidence is not None else None,
        )
        return {"served_model": name, "served_slug": slug}

    async def _priced(self, call: ModelCall) -> ModelCall:
        """Return a call with its price by the catalogue in force when it started."""
        try:
            priced = await self._oracle.price_historical(
                call.usage or TokenUsage(),
                served_model=call.served_slug or call.served_model or call.requested_model,
                requested=(call.requested_model, *call.fallback_models),
                provider=call.provider,
                at=call.start_time,
                catalogue_hash=call.evidence.catalogue_hash if call.evidence is not None else None,
            )
        except GodotyError:
            raise
        except Exception:  # a stored list that cannot be decoded must not keep the call open
            log.exception("call_not_priced", call_id=call.call_id)
            return replace(call, catalogue_cost=None)
        return replace(call, catalogue_cost=priced.cost, evidence=priced.evidence or call.evidence)

    def _final(self, call: ModelCall, **changes: Any) -> ModelCall:
        return replace(call, settle_time=self._clock(), **changes)


def _is_cut_off(call: ModelCall) -> bool:
    """Return whether a call's answer broke off: its usage until then is less than what it cost.

    A provider that ends an answer with an error of its own states the usage until then.
    """
    return call.finish_reason is None and call.error is not None and call.error_code is None


def _merged_usage(call: ModelCall, recorded: TokenUsage) -> TokenUsage:
    """Return a call's counters: the stream's if it reported them at its end, else the record's first."""
    streamed = call.usage or TokenUsage()
    if call.finish_reason is None:
        return recorded.or_else(streamed)
    complete = streamed.input_tokens is not None and streamed.output_tokens is not None
    return streamed if complete else streamed.or_else(recorded)
