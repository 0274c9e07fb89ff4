"""Verifies the ledger: recomputes every session's totals from its entries and reports each difference. Reads only."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, fields
from decimal import DecimalException

from godoty_service.ledger.adjustment_verification import amount_faults, correction_faults
from godoty_service.ledger.entries import Adjustment, Entry, is_above_bound
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.session_totals import SessionTotalsStore, session_totals_from_document
from godoty_service.ledger.totals import SessionTotals, Totals
from godoty_service.mongo.client import Database
from godoty_service.pricing import money


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An inconsistency in a session's entries or totals."""

    tenant_id: str
    session_id: str
    what: str


@dataclass(slots=True)
class Progress:
    """How much was verified."""

    sessions: int = 0
    entries: int = 0


async def verify(
    *,
    database: Database,
    ledger: Ledger,
    totals_store: SessionTotalsStore,
    tenant_id: str | None = None,
    progress: Progress | None = None,
) -> AsyncIterator[Difference]:
    """Verify one tenant's ledger, or all, while servers run; in the memory that one session needs.

    The checks: the numbering of each session (1, 2, 3 …, no gap, no duplicate), each entry in itself and its amounts,
    that no call cost more than its bound, that no two entries have the same generation id of the provider, that an
    adjustment corrects a call of its session and resolves an unresolved one once, that no call's total is below zero,
    and that the totals that the session shows equal those of its entries.
    A running turn inserts entries that the stored totals lack: readers apply them, and so does this.

    Args:
        database: Takes the snapshots in which a difference is verified again.
        ledger: The entries.
        totals_store: The stored totals of sessions.
        tenant_id: The tenant; None: all tenants.
        progress: Counts the verified sessions and entries.
    """
    seen = progress if progress is not None else Progress()
    async for entries in _sessions(ledger, tenant_id):
        seen.sessions += 1
        seen.entries += len(entries)
        first = entries[0]
        found = await _session(entries, totals_store)
        if found:  # or an entry was written between two reads
            async with database.snapshot() as snapshot:
                reading = ledger.at(snapshot).by_session(first.tenant_id, first.session_uid)
                found = await _session([entry async for entry in reading] or entries, totals_store.at(snapshot))
        for what in found:
            yield Difference(tenant_id=first.tenant_id, session_id=first.session_id, what=what)
    async for call in ledger.repeated_generations(tenant_id):
        what = f"call {call.call_id} has generation {call.generation_id}, which another entry has as well"
        yield Difference(tenant_id=call.tenant_id, session_id=call.session_id, what=what)
    async for tenant, uid, session_id in totals_store.sessions_with_totals(tenant_id):
        if not await ledger.highest(tenant, uid):
            yield Difference(
                tenant_id=tenant, session_id=session_id, what="it has totals, but all its entries are gone"
            )


async def _session(entries: list[Entry], totals_store: SessionTotalsStore) -> list[str]:
    """Return the faults of a session's entries, and of the totals that it shows."""
    last = entries[-1]
    found = [*_numbering_faults(entries), *_call_faults(entries), *correction_faults(entries), *amount_faults(entries)]
    stored = await totals_store.read_shown_totals(last.tenant_id, last.session_uid)
    if stored is not None:  # a deleted session has none
        totals, shown_as_stored = session_totals_from_document(stored[0]), stored[1]
        final = shown_as_stored and not totals.open
        if totals.last_number > last.number or (final and totals.last_number < last.number):
            found.append(f"the totals end at entry {totals.last_number}, the entries at {last.number}")
        try:
            found.extend(_differences_in_totals(totals if final else totals.apply(entries), entries))
        except DecimalException:
            found.append("its entries cannot be summed exactly")
    return found


async def _sessions(ledger: Ledger, tenant_id: str | None) -> AsyncIterator[list[Entry]]:
    """Yield the entries of one session after the other."""
    entries: list[Entry] = []
    async for entry in ledger.by_session(tenant_id):
        if entries and entry.session_uid != entries[0].session_uid:
            yield entries
            entries = []
        entries.append(entry)
    if entries:
        yield entries


def _numbering_faults(entries: list[Entry]) -> Iterator[str]:
    expected = 1
    for entry in entries:
        if entry.number < expected:
            yield f"entry {entry.number} exists twice"
        elif entry.number > expected:
            yield f"entries {expected} to {entry.number - 1} are missing"
        expected = entry.number + 1


def _call_faults(entries: list[Entry]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, Adjustment):
            continue
        if entry.counts.cost and entry.cost is None:  # its source may be one of a later build
            yield f"call {entry.call_id} is {entry.state.value} without a cost"
        if not entry.counts.cost and (entry.cost is not None or entry.cost_source is not None):
            yield f"call {entry.call_id} is {entry.state.value} and has a cost"
        if is_above_bound(entry):
            cost, bound = money.format_usd(entry.cost), money.format_usd(entry.upper_bound)
            yield f"call {entry.call_id} cost {cost} USD, above its upper bound of {bound} USD"


def _differences_in_totals(shown: SessionTotals, entries: list[Entry]) -> Iterator[str]:
    """Compare the shown totals with totals that are recomputed from all entries."""
    recomputed = SessionTotals().apply(entries)
    yield from _differences("", shown.current(), recomputed.current())
    if set(shown.open) != set(recomputed.open):
        yield f"open calls: stored {sorted(shown.open)}, by the entries {sorted(recomputed.open)}"
    if shown.cache_savings not in (None, recomputed.cache_savings):
        yield f"cache_savings: stored {shown.cache_savings}, by the entries {recomputed.cache_savings}"
    for name, stored, summed in (
        ("", dict(shown.by_model), dict(recomputed.by_model)),
        ("agent ", dict(shown.by_agent), dict(recomputed.by_agent)),
    ):
        for key in sorted({*stored, *summed}):
            yield from _differences(f"{name}{key}: ", stored.get(key, Totals()), summed.get(key, Totals()))


def _differences(prefix: str, shown: Totals, recomputed: Totals) -> Iterator[str]:
    for field in fields(Totals):
        stored, summed = getattr(shown, field.name), getattr(recomputed, field.name)
        if stored != summed and not (prefix and field.name == "turns"):
            yield f"{prefix}{field.name}: stored {stored}, by the entries {summed}"
