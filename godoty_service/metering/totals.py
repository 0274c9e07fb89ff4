"""Sums of ledger entries. Pure arithmetic: the same fold serves sessions, turns and the proof."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from godoty_service.metering import money
from godoty_service.metering.call import Adjustment, CallState, Entry, ModelCall
from godoty_service.metering.states import contribution
from godoty_service.metering.usage import TokenUsage

NEWEST_RUNS = 50
NEWEST_TIMINGS = 100
ZERO = Decimal(0)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """A sum of entries.

    Attributes:
        cost: The settled calls' cost, and what adjustments added.
        usage: Their tokens, and those that are known of unresolved calls.
        model_calls: Calls that were sent, the pending ones included.
        turns: Turns with a call that is not void.
        pending_calls: Calls that are still open.
        unresolved_calls: Calls whose cost no record tells.
        unresolved_bound: What those with a finite bound cost at the most.
        unbounded_calls: Those without one.
    """

    cost: Decimal = ZERO
    usage: TokenUsage = field(default_factory=TokenUsage)
    model_calls: int = 0
    turns: int = 0
    pending_calls: int = 0
    unresolved_calls: int = 0
    unresolved_bound: Decimal = ZERO
    unbounded_calls: int = 0


class Run(NamedTuple):
    """A turn, as far as one served model took part in it. A tuple: a fold that is read has fifty of them."""

    turn_id: str
    model: str
    time: datetime
    cost: Decimal | None


class Timing(NamedTuple):
    """How fast a provider answered one call, in microseconds. A tuple: a fold that is read has a hundred."""

    provider: str
    time_to_first_token: int | None
    duration: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFold:
    """A session's entries 1 to `through`, folded: all that are final are in the sums, the others are named.

    Attributes:
        through: The number of the last entry that was taken.
        open: Numbers up to `through` whose calls were pending when they were taken.
        open_turns: The turns of those calls, in their order: their runs are kept until the last of them is closed.
        last_turn: The turn of the last entry.
        totals: The sum of the final ones; `turns` counts the open ones, too.
        by_model: The same by model.
        runs: The newest turns, the newest last, and older ones with an open call.
        timings: The newest answers, the newest last.
    """

    through: int = 0
    open: tuple[int, ...] = ()
    open_turns: tuple[str, ...] = ()
    last_turn: str = ""
    totals: Totals = field(default_factory=Totals)
    by_model: tuple[tuple[str, Totals], ...] = ()
    runs: tuple[Run, ...] = ()
    timings: tuple[Timing, ...] = ()

    def take(self, entries: list[Entry]) -> "SessionFold":
        """Take entries after `through` and those named in `open`; others change nothing, and neither does a repeat.

        A gap in the numbers ends it: what comes after is taken once the gap is filled.
        """
        fold = self
        for entry in sorted(entries, key=lambda each: each.number):
            if entry.number > fold.through + 1:
                break
            fold = _take_new(fold, entry) if entry.number > fold.through else _take_open(fold, entry)
        return fold

    def view(self) -> Totals:
        """The session's totals: the sums, and what is open beside them."""
        pending = len(self.open)
        return replace(self.totals, model_calls=self.totals.model_calls + pending, pending_calls=pending)


def fold(entries: list[Entry]) -> Totals:
    """Sum entries of any turn or session, whatever their numbers."""
    renumbered = [replace(entry, number=place) for place, entry in enumerate(entries, 1)]
    return SessionFold().take(renumbered).view()


def added(entry: Entry) -> Totals:
    """What one entry adds to a sum, but for its turn."""
    if isinstance(entry, Adjustment):
        moved = Totals(cost=entry.cost, usage=entry.usage or TokenUsage())
        return _plus(moved, _resolution(entry.bound)) if entry.resolves else moved
    counts, bound = contribution(entry), entry.upper_bound
    return Totals(
        cost=(counts.cost and entry.cost) or ZERO,
        usage=(counts.usage and entry.usage) or TokenUsage(),
        model_calls=int(counts.call),
        pending_calls=int(counts.pending),
        unresolved_calls=int(counts.unresolved),
        unresolved_bound=(counts.unresolved and bound) or ZERO,
        unbounded_calls=int(counts.unresolved and bound is None),
    )


def _resolution(bound: Decimal | None) -> Totals:
    """What it takes away that a call with this bound is no longer unresolved."""
    less = money.subtract(ZERO, bound or ZERO)
    return Totals(unresolved_calls=-1, unresolved_bound=less, unbounded_calls=-int(bound is None))


def _plus(left: Totals, right: Totals) -> Totals:
    return Totals(
        cost=money.add(left.cost, right.cost),
        usage=left.usage + right.usage,
        model_calls=left.model_calls + right.model_calls,
        turns=left.turns + right.turns,
        pending_calls=left.pending_calls + right.pending_calls,
        unresolved_calls=left.unresolved_calls + right.unresolved_calls,
        unresolved_bound=money.add(left.unresolved_bound, right.unresolved_bound),
        unbounded_calls=left.unbounded_calls + right.unbounded_calls,
    )


def _with_run(runs: tuple[Run, ...], turn_id: str, model: str, time: datetime, cost: Decimal | None) -> tuple[Run, ...]:
    for place, run in enumerate(runs):
        if run.turn_id == turn_id and run.model == model:
            known = [each for each in (run.cost, cost) if each is not None]
            joined = run._replace(cost=money.total(known) if known else None, time=min(run.time, time))
            return (*runs[:place], joined, *runs[place + 1 :])
    # By the time they began: a call that closes late does not make its turn the newest.
    added = (*runs, Run(turn_id=turn_id, model=model, time=time, cost=cost))
    return tuple(sorted(added, key=lambda run: run.time))


def _newest(runs: tuple[Run, ...], open_turns: tuple[str, ...]) -> tuple[Run, ...]:
    """Keep the newest runs, and those of turns with an open call: a turn must not be counted twice."""
    old, new = runs[:-NEWEST_RUNS], runs[-NEWEST_RUNS:]
    return (*(run for run in old if run.turn_id in open_turns), *new)


def _take_new(before: SessionFold, entry: Entry) -> SessionFold:
    fold = replace(before, through=entry.number)
    if isinstance(entry, Adjustment):
        return _adjust(fold, entry)
    fold = replace(fold, last_turn=entry.turn_id)
    if _opens_turn(before, entry):
        fold = _counting_turns(fold, 1)
    if entry.state is CallState.PENDING:
        return replace(fold, open=(*before.open, entry.number), open_turns=(*before.open_turns, entry.turn_id))
    return _close(fold, entry)


def _take_open(before: SessionFold, entry: Entry) -> SessionFold:
    if isinstance(entry, Adjustment) or entry.number not in before.open or entry.state is CallState.PENDING:
        return before
    place = before.open.index(entry.number)
    left = replace(
        before,
        open=(*before.open[:place], *before.open[place + 1 :]),
        open_turns=(*before.open_turns[:place], *before.open_turns[place + 1 :]),
    )
    if not contribution(entry).turn and not _knows_turn(left, entry.turn_id):  # it was counted while it was pending
        left = _counting_turns(left, -1)
    return _close(left, entry)


def _opens_turn(before: SessionFold, call: ModelCall) -> bool:
    """Whether a turn counts from a new call on."""
    if call.rule == 1:  # with its first call, whatever becomes of it
        return call.turn_id != before.last_turn
    return contribution(call).turn and not _knows_turn(before, call.turn_id)


def _knows_turn(fold: SessionFold, turn_id: str) -> bool:
    """Whether a turn has a call that is open, or one that is closed and not void."""
    return turn_id in fold.open_turns or any(run.turn_id == turn_id for run in fold.runs)


def _counting_turns(fold: SessionFold, more: int) -> SessionFold:
    return replace(fold, totals=replace(fold.totals, turns=fold.totals.turns + more))


def _close(before: SessionFold, call: ModelCall) -> SessionFold:
    if call.state is CallState.VOID:
        return before
    known = dict(before.by_model)
    new = not any(run.turn_id == call.turn_id and run.model == call.model for run in before.runs)
    booked = known.get(call.model, Totals())
    known[call.model] = replace(_plus(booked, added(call)), turns=booked.turns + new)
    timings = before.timings
    if call.duration is not None:
        first = call.time_to_first_token
        timing = Timing(
            call.provider or "", first // _MICROSECOND if first is not None else None, call.duration // _MICROSECOND
        )
        timings = (*timings, timing)[-NEWEST_TIMINGS:]
    return replace(
        before,
        totals=_plus(before.totals, added(call)),
        by_model=tuple(known.items()),
        runs=_newest(_with_run(before.runs, call.turn_id, call.model, call.start_time, call.cost), before.open_turns),
        timings=timings,
    )


def _adjust(before: SessionFold, change: Adjustment) -> SessionFold:
    known = dict(before.by_model)
    known[change.model] = _plus(known.get(change.model, Totals()), added(change))
    runs = before.runs
    if any(run.turn_id == change.turn_id and run.model == change.model for run in runs):
        runs = _with_run(runs, change.turn_id, change.model, change.time, change.cost)
    return replace(before, totals=_plus(before.totals, added(change)), by_model=tuple(known.items()), runs=runs)
