"""Settles what a stream did not: cancelled, broken and orphaned calls, from the provider's own records.

Any server does it, one call at a time by one of them, and each call once: it leaves `pending` only once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any

import structlog

from godoty_service.clock import Clock, utc_now
from godoty_service.errors import GodotyError, ProviderError, StorageError, StorageUnavailable
from godoty_service.metering import money
from godoty_service.metering.adjustments import Adjustments
from godoty_service.metering.call import CallState, CostSource, ModelCall, bounded_name
from godoty_service.metering.generation_record import decode_record
from godoty_service.metering.late_calls import LateCalls
from godoty_service.metering.ledger import DueCall, Ledger
from godoty_service.metering.oracle import Oracle
from godoty_service.metering.session_folds import SessionFolds
from godoty_service.metering.spending import Spending
from godoty_service.metering.usage import TokenUsage

log = structlog.get_logger(__name__)

# Seconds to wait after the first, second … look that found no record; the last goes on. Records come within
# seconds, for interrupted streams within a minute or so.
_WAITS = (0.25, 0.25, 0.5, 0.5, 1, 1, 2, 2, 3, 5, 5, 10, 10, 15, 30, 30, 60)
_HOLD = timedelta(seconds=30)  # no look takes longer; a server that dies in one frees the call after that
_AT_ONCE = 16
_LAST_TRY = 5.0  # seconds, on the way out
_LANDING = timedelta(minutes=10)  # an insert whose answer was lost may still land for so long
_SWEEP = timedelta(seconds=10)  # between two looks for reservations that dead servers left

ReadGeneration = Callable[[str, str], Awaitable[bytes | None]]
ReadableKeys = Callable[[], Awaitable[Collection[str]]]
Living = Callable[[Collection[str]], Awaitable[set[str]]]


class Outcome(Enum):
    """What became of a call that was due."""

    SETTLED = auto()
    UNRESOLVED = auto()
    POSTPONED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long records are waited for, counted from when the call was left: a long stream has none before.

    Attributes:
        without_usage: If nothing but the record can say what a call cost.
        priced: If the catalogue can price the usage that came with the answer.
        after_error: If the provider answered with an error, without output and usage.
        unreachable: Where the provider does not answer at all.
    """

    without_usage: timedelta = timedelta(hours=1)
    priced: timedelta = timedelta(minutes=2)
    after_error: timedelta = timedelta(minutes=5)
    unreachable: timedelta = timedelta(hours=24)


class Reconciler:
    """Looks after all pending calls that nobody is busy with."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        oracle: Oracle,
        folds: SessionFolds,
        read_generation: ReadGeneration,
        living: Living,
        owner: str,
        readable_keys: ReadableKeys,
        record: Callable[[ModelCall], None],
        patience: Patience,
        keeps_records: Callable[[], bool],
        now: Callable[[], Awaitable[datetime]],
        spending: Spending | None = None,
        sweep: Callable[[], Awaitable[object]] | None = None,
        clock: Clock = utc_now,
    ) -> None:
        """Build a reconciler.

        Args:
            ledger: Where the calls are.
            oracle: Prices usage where no record comes.
            folds: Brought up to date when a call closes.
            read_generation: Reads, with the key of this id, a generation's record; None: there is none, or none yet.
            living: Tells which of some servers live.
            owner: This server.
            readable_keys: Tells the ids of the keys that `read_generation` can read with.
            record: Told of each call that closes.
            patience: How long records are waited for.
            keeps_records: Returns whether the upstream may keep records.
            now: Reads the database's time, by which calls are due and have waited.
            spending: Takes in what a call has cost; None: nobody has a budget.
            sweep: Settles the reservations that dead servers left; None: there are none.
            clock: Tells the time.
        """
        self._ledger = ledger
        self._oracle = oracle
        self._folds = folds
        self._adjustments = Adjustments(ledger, folds, spending=spending, clock=clock)
        self._read_generation = read_generation
        self._living = living
        self._owner = owner
        self._readable_keys = readable_keys
        self._readable: Collection[str] = ()
        self._late = LateCalls(
            find=self._found, resolve=self._adjustments.settle_late, wait=_wait, longest=patience.unreachable
        )
        self._record = record
        self._patience = patience
        self._keeps_records = keeps_records
        self._now = now
        self._spending = spending
        self._sweep = sweep
        self._clock = clock
        self._swept = clock() - 2 * _SWEEP

    async def run(self, interval: float) -> None:
        """Reconcile for ever, looking for work every so many seconds; on the way out, write what was kept."""
        try:
            while True:
                await asyncio.sleep(interval)
                try:
                    await self.tick()
                except GodotyError as error:
                    log.warning("reconciliation_failed", error=str(error))
                except Exception:
                    log.exception("reconciliation_fault")
        finally:
            await self._finish()

    async def _finish(self) -> None:
        """Write what was kept, and try once more to resolve what is known of calls that others closed."""
        with suppress(GodotyError, TimeoutError):
            await self._write_kept()
            async with asyncio.timeout(_LAST_TRY):
                self._readable = await self._readable_keys()
                await self._late.resolve_due(await self._now() + timedelta(seconds=_WAITS[-1]))
        self._late.give_up()

    async def tick(self) -> dict[Outcome, int]:
        """Do what is due now; returns how many calls had which outcome.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        await self._write_kept()
        await self._ledger.adopt_own(self._owner)
        if self._sweep is not None and self._clock() - self._swept > _SWEEP:
            self._swept = self._clock()
            await self._sweep()
            await self._adjustments.apply_left()
        owners = await self._ledger.owners() - {self._owner}
        if dead := owners - await self._living(owners):
            await self._ledger.adopt(dead)
        self._readable = await self._readable_keys()
        outcomes = dict.fromkeys(Outcome, 0)
        now = began = await self._now()
        await self._late.resolve_due(now)
        while batch := await self._batch(began, now):
            for outcome in await asyncio.gather(*(self._reconcile(due, now) for due in batch)):
                outcomes[outcome] += 1
            now = await self._now()
        return outcomes

    async def _write_kept(self) -> None:
        """Write what turns knew and could not write.

        A call that was never sent is kept as long as its entry may still land: only this server knows that it is void.

        Raises:
            StorageUnavailable: The database is still out of reach.
        """
        kept = self._ledger.kept
        unsent = [call for call in kept if self._may_land(call)]
        missing = await self._ledger.missing(unsent)
        for call in kept:
            if call.call_id in missing:
                continue
            try:
                await self._write(call)
            except StorageUnavailable:
                raise
            except StorageError:  # one that cannot be written must not hold up the others
                log.exception("call_not_written", call_id=call.call_id, cost_usd=money.format_usd(call.cost))
            else:
                self._ledger.forget(call)

    def _may_land(self, call: ModelCall) -> bool:
        given_up = call.settle_time
        return call.state is CallState.VOID and given_up is not None and self._clock() - given_up < _LANDING

    async def _write(self, call: ModelCall) -> None:
        if call.state is not CallState.PENDING:
            if not await self._closed(call):
                await self._adjustments.settle_late(call)
        elif not await self._ledger.leave(call):
            entry = await self._ledger.get(call.tenant_id, call.call_id)
            if entry is not None and entry.state is CallState.UNRESOLVED:
                self._late.add(call, now=await self._now())

    async def _batch(self, began: datetime, now: datetime) -> list[DueCall]:
        batch: list[DueCall] = []
        while len(batch) < _AT_ONCE:
            taken = await self._ledger.take_due(
                due_by=began,
                held_until=now + _HOLD,
                provider_key_ids=self._readable,
                any_before=now - self._patience.without_usage,
            )
            if taken is None:
                break
            batch.append(taken)
        return batch

    async def _reconcile(self, due: DueCall, now: datetime) -> Outcome:
        """Settle a call; a fault in it leaves it held, and does not stop the others.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        try:
            return await self._settle(due, now)
        except StorageUnavailable:
            raise
        except Exception:
            log.exception("call_not_reconciled", call_id=due.call.call_id)
            return Outcome.POSTPONED

    async def _settle(self, due: DueCall, now: datetime) -> Outcome:
        """Settle a call by its record; after its patience by the catalogue, else as unresolved."""
        found = await self._found(due.call, now - due.left_time)
        return await self._postpone(due, now) if found is None else await self._close(found)

    async def _found(self, call: ModelCall, waited: timedelta) -> ModelCall | None:
        """Return a call as it is to be closed after a wait; None: its record is waited for."""
        readable = call.generation_id is not None and call.provider_key_id in self._readable
        if readable:
            try:
                settled = await self._by_record(call)
            except (ProviderError, TimeoutError) as error:
                said = error.message if isinstance(error, ProviderError) else None
                log.warning("generation_not_read", call_id=call.call_id, error=str(error), provider_message=said)
                if waited < self._patience.unreachable:
                    return None
            else:
                if settled is not None:
                    return settled
        priced = await self._by_catalogue(call)
        if readable and waited < self._patience_with(call, priced=priced is not None):
            return None
        return priced or self._final(call, state=CallState.UNRESOLVED)

    def _patience_with(self, call: ModelCall, *, priced: bool) -> timedelta:
        """Return how long a call's record is waited for."""
        if priced:
            return self._patience.priced if self._keeps_records() else timedelta(0)
        without_output = call.usage is None and call.time_to_first_token is None
        answered_error = call.error_code is not None and without_output
        return self._patience.after_error if answered_error else self._patience.without_usage

    async def _by_record(self, call: ModelCall) -> ModelCall | None:
        """Settle a call by its record; None: there is none yet, it is malformed, or it states no cost.

        Raises:
            ProviderError: The provider does not answer, or with an error.
            TimeoutError: It takes too long.
        """
        try:
            async with asyncio.timeout(_HOLD.total_seconds() / 2):
                body = await self._read_generation(call.provider_key_id, call.generation_id or "")
            record = decode_record(body) if body is not None else None
        except ValueError as error:
            log.warning("generation_not_understood", call_id=call.call_id, error=str(error))
            return None
        if record is None or record.billing.cost is None:
            return None
        billing = record.billing
        known = replace(
            call,
            **await self._served(call, record.model),
            provider=call.provider or record.provider,
            finish_reason=call.finish_reason or record.finish_reason,
            usage=_usage(call, billing.usage),
            upstream_cost=call.upstream_cost if call.upstream_cost is not None else billing.upstream_cost,
            is_byok=call.is_byok if call.is_byok is not None else billing.is_byok,
        )
        priced = await self._priced(known)
        return self._final(priced, state=CallState.SETTLED, cost=billing.cost, cost_source=CostSource.RECONCILED)

    async def _by_catalogue(self, call: ModelCall) -> ModelCall | None:
        """Settle a call by the catalogue; None: its usage is not known to its end, or has no price there.

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

    async def _served(self, call: ModelCall, told: str | None) -> dict[str, Any]:
        """Return who served a call, by its record, where its stream did not say."""
        slug = bounded_name(told)
        if call.served_model is not None or slug is None:
            return {}
        name = await self._oracle.served_past(
            slug,
            requested=(call.requested_model, *call.fallback_models),
            catalogue_hash=call.evidence.catalogue_hash if call.evidence is not None else None,
        )
        return {"served_model": name, "served_slug": slug}

    async def _priced(self, call: ModelCall) -> ModelCall:
        """Price a call with what held when it started."""
        if call.evidence is None:
            return replace(call, catalogue_cost=None)
        try:
            priced = await self._oracle.price_past(
                call.usage or TokenUsage(),
                served_model=call.served_slug or call.served_model or call.requested_model,
                requested=(call.requested_model, *call.fallback_models),
                provider=call.provider,
                at=call.start_time,
                catalogue_hash=call.evidence.catalogue_hash,
            )
        except GodotyError:
            raise
        except Exception:  # a stored list that cannot be read must not keep the call open
            log.exception("call_not_priced", call_id=call.call_id)
            return replace(call, catalogue_cost=None)
        return replace(call, catalogue_cost=priced.cost, evidence=priced.evidence or call.evidence)

    def _final(self, call: ModelCall, **changes: Any) -> ModelCall:
        return replace(call, settle_time=self._clock(), **changes)

    async def _closed(self, call: ModelCall) -> bool:
        """Close a call, and bring the sums that it is in up to date; tells whether it was not closed before."""
        if not await self._ledger.close(call):
            return False
        self._record(call)
        log.info(
            "call_reconciled",
            call_id=call.call_id,
            tenant_id=call.tenant_id,
            state=call.state.value,
            cost_usd=money.format_usd(call.cost),
        )
        await self._folds.advance(call.tenant_id, call.session_uid)
        if self._spending is not None:
            await self._spending.settle_elsewhere(call)
        return True

    async def _close(self, call: ModelCall) -> Outcome:
        if not await self._closed(call):
            await self._adjustments.settle_late(call)  # another server may have closed it as unresolved
        return Outcome.UNRESOLVED if call.state is CallState.UNRESOLVED else Outcome.SETTLED

    async def _postpone(self, due: DueCall, now: datetime) -> Outcome:
        await self._ledger.postpone(due.call, due=now + _wait(due.tries))
        return Outcome.POSTPONED


def _is_cut_off(call: ModelCall) -> bool:
    """Whether a call's answer broke off: what it had counted by then is less than it cost.

    A provider that ends an answer by an error of its own states what it counted until then.
    """
    return call.finish_reason is None and call.error is not None and call.error_code is None


def _wait(tries: int) -> timedelta:
    """Return how long to wait after so many tries."""
    return timedelta(seconds=_WAITS[min(tries, len(_WAITS)) - 1])


def _usage(call: ModelCall, recorded: TokenUsage) -> TokenUsage:
    """Return a call's counters: the stream's if it reported them at its end, else the record's first."""
    streamed = call.usage or TokenUsage()
    if call.finish_reason is None:
        return recorded.or_else(streamed)
    complete = streamed.input_tokens is not None and streamed.output_tokens is not None
    return streamed if complete else streamed.or_else(recorded)
