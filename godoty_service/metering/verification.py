"""Proves the books: recomputes every session's sums from its entries and names each difference. Reads only."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, fields
from decimal import DecimalException

from godoty_service.metering import money
from godoty_service.metering.call import Adjustment, CallState, Entry, is_above_bound
from godoty_service.metering.correction_verification import amount_faults, correction_faults
from godoty_service.metering.fold_document import fold_from_document
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.session_folds import FoldStore
from godoty_service.metering.totals import SessionFold, Totals
from godoty_service.mongo import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that does not add up."""

    tenant_id: str
    session_id: str
    what: str


@dataclass(slots=True)
class Extent:
    """How much was looked at."""

    sessions: int = 0
    entries: int = 0


async def verify(
    *,
    database: Database,
    ledger: Ledger,
    folds: FoldStore,
    tenant_id: str | None = None,
    extent: Extent | None = None,
) -> AsyncIterator[Difference]:
    """Verify one tenant's books, or all, while servers go on; in the memory that one session needs.

    Checked are the numbering of each session (1, 2, 3 …, no gap, no double), each entry in itself and its amounts,
    that no call cost more than its bound, that no generation of the provider stands on two entries,
    that an adjustment corrects a call of its session and resolves an unresolved one once, that no call's total is
    below zero, and that the sums that the session shows equal those of its entries.
    A turn that is running leaves entries that are not folded yet: readers fold them, and so does this.

    Args:
        database: Where snapshots are taken: what differs is looked at again as it was at one moment.
        ledger: The entries.
        folds: The kept sums.
        tenant_id: Whose; None: everybody's.
        extent: Counts what was looked at.
    """
    seen = extent if extent is not None else Extent()
    async for entries in _sessions(ledger, tenant_id):
        seen.sessions += 1
        seen.entries += len(entries)
        first = entries[0]
        found = await _session(entries, folds)
        if found:  # or somebody wrote between two reads
            async with database.snapshot() as snapshot:
                reading = ledger.at(snapshot).by_session(first.tenant_id, first.session_uid)
                found = await _session([entry async for entry in reading] or entries, folds.at(snapshot))
        for what in found:
            yield Difference(tenant_id=first.tenant_id, session_id=first.session_id, what=what)
    async for call in ledger.repeated_generations(tenant_id):
        what = f"call {call.call_id} has generation {call.generation_id}, which another entry has as well"
        yield Difference(tenant_id=call.tenant_id, session_id=call.session_id, what=what)
    async for tenant, uid, session_id in folds.folded(tenant_id):
        if not await ledger.highest(tenant, uid):
            yield Difference(tenant_id=tenant, session_id=session_id, what="it has sums, but all its entries are gone")


async def _session(entries: list[Entry], folds: FoldStore) -> list[str]:
    """Tell what is wrong with a session's entries, and with what it shows of them."""
    last = entries[-1]
    found = [*_numbering(entries), *_each(entries), *correction_faults(entries), *amount_faults(entries)]
    kept = await folds.shown_fold(last.tenant_id, last.session_uid)
    if kept is not None:  # a deleted session keeps none
        fold, final = fold_from_document(kept[0]), kept[1]
        if fold.through > last.number or (final and not fold.open and fold.through < last.number):
            found.append(f"the sums go to entry {fold.through}, the entries to {last.number}")
        try:
            found.extend(_sums(fold if final and not fold.open else fold.take(entries), entries))
        except DecimalException:
            found.append("its entries cannot be summed exactly")
    return found


async def _sessions(ledger: Ledger, tenant_id: str | None) -> AsyncIterator[list[Entry]]:
    """Read the entries of one session after the other."""
    entries: list[Entry] = []
    async for entry in ledger.by_session(tenant_id):
        if entries and entry.session_uid != entries[0].session_uid:
            yield entries
            entries = []
        entries.append(entry)
    if entries:
        yield entries


def _numbering(entries: list[Entry]) -> Iterator[str]:
    expected = 1
    for entry in entries:
        if entry.number < expected:
            yield f"entry {entry.number} stands twice"
        elif entry.number > expected:
            yield f"entries {expected} to {entry.number - 1} are missing"
        expected = entry.number + 1


def _each(entries: list[Entry]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, Adjustment):
            continue
        priced = entry.cost is not None and entry.cost_source is not None
        if entry.state is CallState.SETTLED and not priced:
            yield f"call {entry.call_id} is settled without a cost"
        if entry.state is not CallState.SETTLED and (entry.cost is not None or entry.cost_source is not None):
            yield f"call {entry.call_id} is {entry.state.value} and has a cost"
        if is_above_bound(entry):
            cost, bound = money.format_usd(entry.cost), money.format_usd(entry.upper_bound)
            yield f"call {entry.call_id} cost {cost} USD, above its upper bound of {bound} USD"


def _sums(shown: SessionFold, entries: list[Entry]) -> Iterator[str]:
    """Compare the sums that are shown with sums from nothing."""
    true = SessionFold().take(entries)
    yield from _differences("", shown.view(), true.view())
    if set(shown.open) != set(true.open):
        yield f"open calls: kept {sorted(shown.open)}, by the entries {sorted(true.open)}"
    by_model, true_by_model = dict(shown.by_model), dict(true.by_model)
    for model in sorted({*by_model, *true_by_model}):
        yield from _differences(f"{model}: ", by_model.get(model, Totals()), true_by_model.get(model, Totals()))


def _differences(where: str, shown: Totals, true: Totals) -> Iterator[str]:
    for field in fields(Totals):
        kept, summed = getattr(shown, field.name), getattr(true, field.name)
        if kept != summed and not (where and field.name == "turns"):
            yield f"{where}{field.name}: kept {kept}, by the entries {summed}"
