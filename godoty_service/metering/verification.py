"""Proves the books: recomputes every session's sums from its entries and names each difference. Reads only."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, fields

from godoty_service.metering.call import Adjustment, CallState, Entry, ModelCall
from godoty_service.metering.fold_document import fold_from_document
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.session_folds import FoldStore
from godoty_service.metering.totals import SessionFold, Totals


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
    ledger: Ledger, folds: FoldStore, *, tenant_id: str | None = None, extent: Extent | None = None
) -> AsyncIterator[Difference]:
    """Verify one tenant's books, or all, in the memory that one session needs.

    Checked are the numbering of each session (1, 2, 3 …, no gap, no double), each entry in itself, that an
    adjustment corrects an unresolved call once, and that the session's kept sums equal those of its entries.
    A turn that is running leaves entries that are not folded yet: they are not a difference.

    Args:
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
        found = [*_numbering(entries), *_each(entries), *_corrections(entries)]
        kept = await folds.read_fold(first.tenant_id, first.session_uid)
        if kept is not None:  # a deleted session keeps none
            fold = fold_from_document(kept[0])
            if fold.through > entries[-1].number:
                found.append(f"the sums go to entry {fold.through}, the entries to {entries[-1].number}")
            else:
                found.extend(_sums(fold, entries))
        for what in found:
            yield Difference(tenant_id=first.tenant_id, session_id=first.session_id, what=what)
    async for tenant, uid, session_id in folds.folded(tenant_id):
        if not await ledger.highest(tenant, uid):
            yield Difference(tenant_id=tenant, session_id=session_id, what="it has sums, but all its entries are gone")


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


def _corrections(entries: list[Entry]) -> Iterator[str]:
    calls = {entry.call_id: entry for entry in entries if isinstance(entry, ModelCall)}
    corrected: set[str] = set()
    for entry in entries:
        if not isinstance(entry, Adjustment) or not entry.resolves:
            continue
        call = calls.get(entry.corrects)
        if call is None or call.state is not CallState.UNRESOLVED:
            yield f"adjustment {entry.entry_id} resolves what is not unresolved"
        elif call.upper_bound != entry.bound:
            yield f"adjustment {entry.entry_id} takes another bound away than call {call.call_id} has"
        if entry.corrects in corrected:
            yield f"call {entry.corrects} is resolved twice"
        corrected.add(entry.corrects)


def _sums(kept: SessionFold, entries: list[Entry]) -> Iterator[str]:
    """Compare the kept sums, brought up to date, with sums from nothing."""
    shown, true = kept.take(entries), SessionFold().take(entries)
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
