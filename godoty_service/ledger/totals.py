"""Totals of ledger entries. Pure arithmetic: the same code serves sessions, turns, roll-ups and verification."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import Any, NamedTuple

from godoty_service.ledger.entries import FIRST_AGENT, Adjustment, Entry, ModelCall
from godoty_service.pricing import money
from godoty_service.pricing.token_usage import TokenUsage

NEWEST_RUNS = 50
NEWEST_TIMINGS = 100
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """A sum over entries. Money is in US dollars.

    Attributes:
        cost: The settled calls' cost, plus all adjustments.
        usage: Their tokens, plus the known tokens of unresolved calls.
        model_calls: Calls that were sent, including the pending ones.
        turns: Turns with a call that is not void.
        pending_calls: Calls that are not closed yet.
        unresolved_calls: Calls whose cost no record states.
        unresolved_bound: The upper bounds of those that have one.
        unbounded_calls: Unresolved calls without an upper bound.
    """

    cost: Decimal = money.ZERO
    usage: TokenUsage = field(default_factory=TokenUsage)
    model_calls: int = 0
    turns: int = 0
    pending_calls: int = 0
    unresolved_calls: int = 0
    unresolved_bound: Decimal = money.ZERO
    unbounded_calls: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        pairs = zip(COUNTS, _COUNTS_OF(self), _COUNTS_OF(other), strict=True)
        sums: dict[str, Any] = {name: left + right for name, left, right in pairs}
        for name in AMOUNTS:
            sums[name] = money.add(getattr(self, name), getattr(other, name))
        return Totals(usage=self.usage + other.usage, **sums)

    @classmethod
    def sum(cls, totals: Sequence["Totals"]) -> "Totals":
        """Return the exact sum of many at once; raise `decimal.Inexact` if an amount has more than 34 digits."""
        counts, amounts = zip(*map(_COUNTS_OF, totals), strict=True), zip(*map(_AMOUNTS_OF, totals), strict=True)
        sums: dict[str, Any] = {name: sum(column) for name, column in zip(COUNTS, counts, strict=False)}
        sums |= {name: money.total(column) for name, column in zip(AMOUNTS, amounts, strict=False)}
        return cls(usage=TokenUsage.sum([each.usage for each in totals]), **sums)


AMOUNTS = tuple(each.name for each in fields(Totals) if each.type is Decimal)
COUNTS = tuple(each.name for each in fields(Totals) if each.type is int)
_AMOUNTS_OF = attrgetter(*AMOUNTS)
_COUNTS_OF = attrgetter(*COUNTS)


class Run(NamedTuple):
    """The calls of one turn that one model served. A tuple for speed: session totals have fifty of them."""

    turn_id: str
    model: str
    time: datetime
    cost: Decimal | None


class Timing(NamedTuple):
    """The latency of one call, in microseconds. A tuple for speed: session totals have a hundred of them."""

    provider: str
    time_to_first_token: int | None
    duration: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTotals:
    """The totals of a session's entries 1 to `last_number`: final entries are summed, open ones are listed.

    Attributes:
        last_number: The number of the last applied entry.
        open: Numbers of the applied calls that are still pending.
        open_turns: The turns of those calls, in the same order: their runs are retained until the last of them closes.
        last_turn: The turn of the last entry.
        totals: The sum of the final entries; `turns` includes those of open calls.
        by_model: The same by model.
        by_agent: The same by agent; each turn is counted for the agent that made its first call.
        runs: The newest runs, the newest last, and older ones with an open call.
        timings: The newest timings, the newest last.
    """

    last_number: int = 0
    open: tuple[int, ...] = ()
    open_turns: tuple[str, ...] = ()
    last_turn: str = ""
    totals: Totals = field(default_factory=Totals)
    by_model: tuple[tuple[str, Totals], ...] = ()
    by_agent: tuple[tuple[str, Totals], ...] = ()
    runs: tuple[Run, ...] = ()
    timings: tuple[Timing, ...] = ()

    def apply(self, entries: list[Entry]) -> "SessionTotals":
        """Return the totals with entries after `last_number` and closed ones of `open` added; others change nothing.

        A gap in the numbers ends it: later entries are applied once the gap is filled.
        """
        totals = self
        for entry in sorted(entries, key=lambda each: each.number):
            if entry.number > totals.last_number + 1:
                break
            totals = _apply_new(totals, entry) if entry.number > totals.last_number else _apply_open(totals, entry)
        return totals

    def current(self) -> Totals:
        """Return the sum of all entries, the open calls included."""
        pending = len(self.open)
        return replace(self.totals, model_calls=self.totals.model_calls + pending, pending_calls=pending)


def totals_of_entries(entries: list[Entry]) -> Totals:
    """Return the totals of entries of any turn or session, independent of their numbers."""
    if not entries:
        return Totals()
    turns, known, last_turn = 0, set(), ""
    for call in entries:
        if isinstance(call, Adjustment):
            continue
        turns += _counts_turn(call, known=call.turn_id in known, last_turn=last_turn)
        last_turn = call.turn_id
        if call.counts.turn:
            known.add(call.turn_id)
    return replace(Totals.sum([totals_of_entry(entry) for entry in entries]), turns=turns)


def totals_of_entry(entry: Entry) -> Totals:
    """Return the totals of one entry, without its turn."""
    if isinstance(entry, Adjustment):
        adjusted = Totals(cost=entry.cost, usage=entry.usage or TokenUsage())
        return adjusted + _resolution(entry.bound) if entry.resolves else adjusted
    counts, bound = entry.counts, entry.upper_bound
    return Totals(
        cost=entry.counted_cost or money.ZERO,
        usage=(counts.usage and entry.usage) or TokenUsage(),
        model_calls=int(counts.call),
        pending_calls=int(counts.open),
        unresolved_calls=int(counts.unresolved),
        unresolved_bound=(counts.unresolved and bound) or money.ZERO,
        unbounded_calls=int(counts.unresolved and bound is None),
    )


def _resolution(bound: Decimal | None) -> Totals:
    """Return the negative totals that resolving a call with this upper bound adds."""
    less = money.subtract(money.ZERO, bound or money.ZERO)
    return Totals(unresolved_calls=-1, unresolved_bound=less, unbounded_calls=-int(bound is None))


def _with_run(runs: tuple[Run, ...], turn_id: str, model: str, time: datetime, cost: Decimal | None) -> tuple[Run, ...]:
    for place, run in enumerate(runs):
        if run.turn_id == turn_id and run.model == model:
            known = [each for each in (run.cost, cost) if each is not None]
            joined = run._replace(cost=money.total(known) if known else None, time=min(run.time, time))
            return (*runs[:place], joined, *runs[place + 1 :])
    # Ordered by start time: a call that closes late does not make its turn the newest.
    added = (*runs, Run(turn_id=turn_id, model=model, time=time, cost=cost))
    return tuple(sorted(added, key=lambda run: run.time))


def _newest(runs: tuple[Run, ...], open_turns: tuple[str, ...]) -> tuple[Run, ...]:
    """Retain the newest runs, and those of turns with an open call: a turn must not be counted twice."""
    old, new = runs[:-NEWEST_RUNS], runs[-NEWEST_RUNS:]
    return (*(run for run in old if run.turn_id in open_turns), *new)


def _apply_new(before: SessionTotals, entry: Entry) -> SessionTotals:
    totals = replace(before, last_number=entry.number)
    if isinstance(entry, Adjustment):
        return _adjust(totals, entry)
    totals = replace(totals, last_turn=entry.turn_id)
    if _counts_turn(entry, known=_knows_turn(before, entry.turn_id), last_turn=before.last_turn):
        totals = _add_turns(totals, 1, agent=entry.agent)
    if entry.counts.open:
        return replace(totals, open=(*before.open, entry.number), open_turns=(*before.open_turns, entry.turn_id))
    return _close(totals, entry)


def _apply_open(before: SessionTotals, entry: Entry) -> SessionTotals:
    if isinstance(entry, Adjustment) or entry.number not in before.open or entry.counts.open:
        return before
    place = before.open.index(entry.number)
    totals = replace(
        before,
        open=(*before.open[:place], *before.open[place + 1 :]),
        open_turns=(*before.open_turns[:place], *before.open_turns[place + 1 :]),
    )
    if not entry.counts.turn and not _knows_turn(totals, entry.turn_id):  # counted while it was pending
        totals = _add_turns(totals, -1, agent=entry.agent)
    return _close(totals, entry)


def _counts_turn(call: ModelCall, *, known: bool, last_turn: str) -> bool:
    """Return whether a new call is the one that its turn counts with.

    Args:
        call: The call.
        known: Whether its turn has a call already that is open, or closed and not void.
        last_turn: The turn of the call before.
    """
    if call.rule == 1:  # with its first call, in any state
        return call.turn_id != last_turn
    return call.counts.turn and not known


def _knows_turn(totals: SessionTotals, turn_id: str) -> bool:
    """Return whether a turn has a call that is open, or one that is closed and not void."""
    return turn_id in totals.open_turns or any(run.turn_id == turn_id for run in totals.runs)


def _add_turns(before: SessionTotals, more: int, *, agent: str) -> SessionTotals:
    return replace(
        before,
        totals=replace(before.totals, turns=before.totals.turns + more),
        by_agent=_with_agent(before.by_agent, agent, Totals(turns=more)),
    )


def _with_agent(sums: tuple[tuple[str, Totals], ...], agent: str, more: Totals) -> tuple[tuple[str, Totals], ...]:
    by_agent = dict(sums)
    name = agent or FIRST_AGENT
    by_agent[name] = by_agent.get(name, Totals()) + more
    return tuple(by_agent.items())


def _close(before: SessionTotals, call: ModelCall) -> SessionTotals:
    if not call.counts.call:
        return before
    added, by_model = totals_of_entry(call), dict(before.by_model)
    known = by_model.get(call.model, Totals())
    is_new = not any(run.turn_id == call.turn_id and run.model == call.model for run in before.runs)
    by_model[call.model] = replace(known + added, turns=known.turns + is_new)
    return replace(
        before,
        totals=before.totals + added,
        by_model=tuple(by_model.items()),
        by_agent=_with_agent(before.by_agent, call.agent, added),
        runs=_newest(
            _with_run(before.runs, call.turn_id, call.model, call.start_time, call.counted_cost), before.open_turns
        ),
        timings=before.timings if call.duration is None else _with_timing(before.timings, call, call.duration),
    )


def _with_timing(timings: tuple[Timing, ...], call: ModelCall, duration: timedelta) -> tuple[Timing, ...]:
    first = call.time_to_first_token
    timing = Timing(
        provider=call.provider or "",
        time_to_first_token=None if first is None else first // _MICROSECOND,
        duration=duration // _MICROSECOND,
    )
    return (*timings, timing)[-NEWEST_TIMINGS:]


def _adjust(before: SessionTotals, adjustment: Adjustment) -> SessionTotals:
    added, by_model, runs = totals_of_entry(adjustment), dict(before.by_model), before.runs
    by_model[adjustment.model] = by_model.get(adjustment.model, Totals()) + added
    if any(run.turn_id == adjustment.turn_id and run.model == adjustment.model for run in runs):
        runs = _with_run(runs, adjustment.turn_id, adjustment.model, adjustment.time, adjustment.cost)
    return replace(
        before,
        totals=before.totals + added,
        by_model=tuple(by_model.items()),
        by_agent=_with_agent(before.by_agent, adjustment.agent, added),
        runs=runs,
    )
