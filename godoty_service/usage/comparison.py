"""Compares roll-ups with the data they are sums of, both as of one snapshot, and names each difference. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import datetime

from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.totals import Totals
from godoty_service.mongo.collection import Document
from godoty_service.usage.entries import EntryWithState
from godoty_service.usage.rollup_job import Batch
from godoty_service.usage.rollup_keys import (
    Granularity,
    RollupKey,
    Sum,
    Sums,
    add_sums,
    combined,
    detail_sums,
    detail_turn_sums,
    floor_day,
    floor_hour,
)
from godoty_service.usage.rollup_store import StoredRollup
from godoty_service.usage.turn_openers import by_turn, opener
from godoty_service.usage.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSums:
    """The sums of the batch in progress; a document includes them if its last batch has this number.

    Attributes:
        number: The number of the batch; 0: there is none.
        sums: Its sums by key.
    """

    number: int = 0
    sums: Sums = field(default_factory=dict)

    def applied_to(self, stored: StoredRollup | None) -> bool:
        """Return whether a document includes the batch."""
        return stored is not None and stored.last_batch >= self.number


class GranularityComparison:
    """Compares the sums of one granularity with those of the next finer one, as if the batch were completed."""

    def __init__(self, wider: Granularity, batch: BatchSums) -> None:
        self._wider = wider
        self._batch = batch
        self._unmatched = dict(batch.sums)  # keys of the batch for which no document was added yet
        self._stored: Sums = {}
        self._expected: Sums = {}

    def add(self, stored: StoredRollup) -> None:
        """Add a document of either granularity."""
        more = self._unmatched.pop(stored.key, None)
        if more is None or self._batch.applied_to(stored):
            self._add(stored.key, stored.sum)
        else:
            self._add(stored.key, combined(stored.sum, more))

    def differences(self) -> Iterator[str]:
        """Yield a line for each difference."""
        for key, each in self._unmatched.items():
            self._add(key, each)
        by = "hours" if self._wider is Granularity.DAY else "quarters"
        for key in sorted({*self._stored, *self._expected}, key=_order):
            yield from _differences_of_key(key, self._stored.get(key), self._expected.get(key), by=by)

    def _add(self, key: RollupKey, total: Sum) -> None:
        if key.granularity is self._wider:
            self._stored[key] = total
        else:
            floor = floor_day if self._wider is Granularity.DAY else floor_hour
            add_sums(self._expected, {replace(key, granularity=self._wider, time=floor(key.time)): total})


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnOpeners:
    """The calls with which turns are counted.

    Attributes:
        rolled_up: Ids of those calls according to the rolled-up entries.
        in_batch: Ids of those calls according to the batch in progress.
        changing_turns: Ids of the turns that have calls in the batch.
    """

    rolled_up: set[str]
    in_batch: set[str]
    changing_turns: set[str]

    @classmethod
    def of(cls, calls: list[Document], batch: Batch | None) -> "TurnOpeners":
        """Determine them from all calls of some turns and the batch in progress."""
        first = [opener(turn, excluded=batch.ready if batch else ()) for turn in by_turn(calls)]
        ids = {*batch.ready, *(each.entry_id for each in batch.moved_turns)} if batch else set()
        return cls(
            rolled_up={each["_id"] for each in first if each is not None},
            in_batch=set(batch.turn_openers or ()) if batch else set(),
            changing_turns={each["turn_id"] for each in calls if each["_id"] in ids},
        )


@dataclass(slots=True)
class EntryTotals:
    """The sums of entries, at granularity DETAIL.

    Attributes:
        rolled_up: Of the rolled-up entries.
        in_batch: Of the entries of the batch in progress.
        faults: Inconsistencies of the entries themselves.
    """

    rolled_up: Sums = field(default_factory=dict)
    in_batch: Sums = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, page: list[EntryWithState], turns: TurnOpeners, batch: Batch | None, window: Window) -> None:
        """Add a page of entries."""
        ready = set(batch.ready) if batch else set()
        moved = {each.entry_id: each.time for each in batch.moved_turns if each.rolled_up} if batch else {}
        self.faults += _faults(page, turns)
        for each in page:
            entry, name = each.entry, each.entry.entry_id
            if name in ready:
                add_sums(self.in_batch, detail_sums([entry], turn_openers=turns.in_batch, window=window))
            elif each.rolled_up:
                time = max(each.final_from, (name not in moved and each.opens_time) or each.final_from)
                sums = detail_sums([entry], turn_openers=turns.rolled_up, window=Window(), final_time=time)
                add_sums(self.rolled_up, sums)
                if name in moved:
                    add_sums(self.in_batch, detail_turn_sums(entry, counted_from=moved[name]))


def entry_differences(stored: Iterable[StoredRollup], rolled_up: Sums, batch: BatchSums) -> Iterator[str]:
    """Yield a line for each document that is not the sum of its entries.

    Args:
        stored: The documents.
        rolled_up: The sums of the rolled-up entries.
        batch: The sums of the batch in progress.
    """
    by_key = {each.key: each for each in stored}
    for key in sorted({*by_key, *rolled_up, *batch.sums}, key=_order):
        found = by_key.get(key)
        expected: Sums = {key: rolled_up[key]} if key in rolled_up else {}
        if key in batch.sums and batch.applied_to(found):
            add_sums(expected, {key: batch.sums[key]})
        yield from _differences_of_key(key, None if found is None else found.sum, expected.get(key), by="entries")


def _differences_of_key(key: RollupKey, stored: Sum | None, expected: Sum | None, *, by: str) -> Iterator[str]:
    parts = (key.granularity.value, key.time.isoformat(), key.model, key.provider, key.agent)
    name = " ".join(filter(None, parts))
    if stored is None:
        if expected is not None:
            yield f"{name}: is missing"
        return
    if expected is None:
        yield f"{name}: is stored, but has no entries"
        return
    for each in fields(Totals):
        found, summed = getattr(stored.totals, each.name), getattr(expected.totals, each.name)
        if found != summed:
            yield f"{name}: {each.name}: stored {found}, by the {by} {summed}"
    if stored.last_change != expected.last_change:
        found_time, expected_time = stored.last_change.isoformat(), expected.last_change.isoformat()
        yield f"{name}: latest: stored {found_time}, by the {by} {expected_time}"


def _order(key: RollupKey) -> tuple[datetime, str, str, str, str]:
    return key.time, key.granularity.value, key.model, key.provider, key.agent


def _faults(page: list[EntryWithState], turns: TurnOpeners) -> Iterator[str]:
    for each in page:
        call, name = each.entry, each.entry.entry_id
        if not isinstance(call, ModelCall) or not each.rolled_up:
            continue
        if call.counts.open:
            yield f"call {name} is rolled up and {call.state.value}"
        was_first = each.opens_turn and not call.counts.turn  # until it turned out void
        is_first = name in turns.rolled_up
        if each.opens_turn != is_first and not was_first and call.turn_id not in turns.changing_turns:
            yield f"call {name} is {'' if each.opens_turn else 'not '}marked as its turn's first"
