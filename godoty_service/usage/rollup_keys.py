"""The keys of roll-ups (time, and in detail model, provider and agent), and the sums of entries by key. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from godoty_service.ledger.entries import Entry
from godoty_service.ledger.totals import Totals
from godoty_service.usage.entries import final_from
from godoty_service.usage.sums import part, plus
from godoty_service.usage.window import Window

QUARTER = timedelta(minutes=15)


class Granularity(StrEnum):
    """How finely entries are summed; all times are UTC.

    QUARTER sums by quarter of an hour alone; DETAIL (quarters), DETAIL_HOUR and DAY also by model, provider and agent.
    """

    QUARTER = "quarter"
    DETAIL = "detail"
    DETAIL_HOUR = "detail_hour"
    DAY = "day"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupKey:
    """What summed entries have in common; at granularity QUARTER, their time alone."""

    tenant_id: str
    granularity: Granularity
    time: datetime
    model: str = ""
    provider: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """The sum of a key; `last_change` is when its newest entry became visible."""

    totals: Totals
    last_change: datetime


Sums = dict[RollupKey, Sum]


def rollup_sums(
    entries: Iterable[Entry], *, turn_openers: set[str], window: Window, final_time: datetime | None = None
) -> Sums:
    """Return the sums of final entries by key, at every granularity.

    Args:
        entries: The entries.
        turn_openers: Ids of the calls with which their turns are counted.
        window: The times at which the entries can become visible.
        final_time: When they became visible, if that is stored.
    """
    return with_all_granularities(detail_sums(entries, turn_openers=turn_openers, window=window, final_time=final_time))


def detail_sums(
    entries: Iterable[Entry], *, turn_openers: set[str], window: Window, final_time: datetime | None = None
) -> Sums:
    """Return the sums of final entries by key, at granularity DETAIL alone; see `rollup_sums` for the arguments."""
    details: dict[RollupKey, list[Sum]] = {}
    for entry in entries:
        added = part(entry, opens_turn=entry.entry_id in turn_openers)
        details.setdefault(_detail_key(entry), []).append(
            Sum(totals=added, last_change=final_time or final_from(entry, window))
        )
    return {key: combined(*parts) for key, parts in details.items()}


def turn_sums(entry: Entry, *, counted_from: datetime) -> Sums:
    """Return the count of the turn that is counted with a call from a time on, at every granularity."""
    return with_all_granularities(detail_turn_sums(entry, counted_from=counted_from))


def detail_turn_sums(entry: Entry, *, counted_from: datetime) -> Sums:
    """Return the count of the turn that is counted with a call from a time on, at granularity DETAIL alone."""
    return {_detail_key(entry): Sum(totals=Totals(turns=1), last_change=counted_from)}


def with_all_granularities(details: Sums) -> Sums:
    """Return the sums at every granularity, from those at granularity DETAIL."""
    parts: dict[RollupKey, list[Sum]] = {}
    for key, each in details.items():
        for wider in _all_keys(key):
            parts.setdefault(wider, []).append(each)
    return {key: combined(*each) for key, each in parts.items()}


def add_sums(sums: Sums, more: Sums) -> None:
    """Add `more` to `sums`, in place."""
    for key, new in more.items():
        old = sums.get(key)
        sums[key] = new if old is None else combined(old, new)


def combined(*sums: Sum) -> Sum:
    """Return the sum of sums."""
    if len(sums) == 1:
        return sums[0]
    return Sum(totals=plus(*(each.totals for each in sums)), last_change=max(each.last_change for each in sums))


def floor_quarter(time: datetime) -> datetime:
    """Return the start of the quarter of an hour."""
    return time.replace(minute=time.minute // 15 * 15, second=0, microsecond=0)


def floor_hour(time: datetime) -> datetime:
    """Return the start of the hour in UTC."""
    return time.replace(minute=0, second=0, microsecond=0)


def floor_day(time: datetime) -> datetime:
    """Return the start of the day in UTC."""
    return time.replace(hour=0, minute=0, second=0, microsecond=0)


def _detail_key(entry: Entry) -> RollupKey:
    return RollupKey(
        tenant_id=entry.tenant_id,
        granularity=Granularity.DETAIL,
        time=floor_quarter(entry.start_time),
        model=entry.model,
        provider=entry.provider or "",
        agent=entry.agent,
    )


def _all_keys(detail: RollupKey) -> tuple[RollupKey, ...]:
    """Return the keys, one for each granularity, that include a key at granularity DETAIL."""
    return (
        RollupKey(tenant_id=detail.tenant_id, granularity=Granularity.QUARTER, time=detail.time),
        detail,
        replace(detail, granularity=Granularity.DETAIL_HOUR, time=floor_hour(detail.time)),
        replace(detail, granularity=Granularity.DAY, time=floor_day(detail.time)),
    )
