"""Reports for people: tables of the costliest groups, and of each day or month."""

from __future__ import annotations

import heapq
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal

from godoty.client import Godoty
from godoty.reasons import InvalidField
from godoty.types import Totals, UsageGroup, UsageRow
from godoty.usage import amounts
from godoty.usage.report import TIMES, Query, Report, fetch, key_value, name_of
from godoty.usage.table import OPEN, Line, Table, shown, table

_MOST_TIMES = 10_000  # lines of a table by time
_MOST_DAYS = 62  # in the overview; a longer range is shown by month
_OTHERS = (UsageGroup.MODEL, UsageGroup.AGENT, UsageGroup.USER)


@dataclass(frozen=True)
class Screen:
    """What tables are made for.

    Attributes:
        width: The columns of the terminal.
        top: The number of lines of a table that is not by time; the others are added up.
        blocks: Whether the terminal shows block characters.
    """

    width: int
    top: int
    blocks: bool


def overview(client: Godoty, query: Query, screen: Screen) -> Iterator[str]:
    """Yield what was spent in all, by day or month, and by model, agent and end user, all as of the same time."""
    time = UsageGroup.DAY if query.end - query.start <= timedelta(days=_MOST_DAYS) else UsageGroup.MONTH
    report = fetch(client, query, (time,))
    query = replace(query, as_of=report.as_of)
    tables = [_table(report, screen)]
    yield from _heading(report, screen)
    yield from ("", *tables[0].texts)
    for group in _OTHERS:
        try:
            tables.append(_table(fetch(client, query, (group,)), screen))
        except InvalidField as error:  # too many entries to be read one by one
            yield from ("", *_wrapped(f"By {name_of(group)}: {error.message}", screen))
        else:
            yield from ("", *tables[-1].texts)
    yield from _notes(report.totals, tables, screen)


def single(client: Godoty, query: Query, groups: tuple[UsageGroup, ...], screen: Screen) -> Iterator[str]:
    """Yield one table by all of the groups."""
    report = fetch(client, query, groups)
    found = _table(report, screen)
    yield from _heading(report, screen)
    yield from ("", *found.texts)
    yield from _notes(report.totals, [found], screen)


def _heading(report: Report, screen: Screen) -> Iterator[str]:
    query = report.query
    start, end = (_time_text(UsageGroup.HOUR, each.astimezone(query.zone)) for each in (query.start, query.end))
    zone = query.zone_name or "UTC"
    yield from _wrapped(f"Usage from {start} to {end} ({zone}), as of {report.as_of.isoformat()}", screen)


def _table(report: Report, screen: Screen) -> Table:
    """Return the table of a report."""
    if report.groups and report.groups[0] in TIMES:
        lines = _in_order(_lines(report))
        if len(report.groups) == 1:
            lines = _without_gaps(lines, report)
    else:
        lines = _costliest(_lines(report), screen.top)
    total = _line(("total",), report.totals)
    groups = [name_of(each) for each in report.groups]
    return table(groups, lines, total, width=screen.width, blocks=screen.blocks)


def _lines(report: Report) -> Iterator[Line]:
    """Yield the lines of a report's rows."""
    return (_line(_labels(report, row), row.totals) for row in report.rows)


def _line(labels: tuple[str, ...], totals: Totals) -> Line:
    return Line(
        labels,
        totals.cost_usd,
        calls=totals.model_calls,
        input_tokens=totals.usage.input_tokens,
        output_tokens=totals.usage.output_tokens,
        turns=totals.turns,
        open_calls=totals.pending_calls + totals.unresolved_calls,
    )


def _labels(report: Report, row: UsageRow) -> tuple[str, ...]:
    texts = []
    for group, key in zip(report.groups, row.keys, strict=True):
        value = key_value(group, key, report.query.zone)
        if group is UsageGroup.USER and value is None and key.user_reference:
            value = f"erased {key.user_reference}"
        texts.append("none" if value is None else _label(group, value))
    return tuple(texts)


def _label(group: UsageGroup, value: str | date) -> str:
    return shown(value) if isinstance(value, str) else _time_text(group, value)


def _time_text(group: UsageGroup, start: date) -> str:
    """Return the start of an hour, day or month as its table shows it."""
    if group is UsageGroup.MONTH:
        return f"{start:%Y-%m}"
    if isinstance(start, datetime) and group is UsageGroup.HOUR:
        return f"{start:%Y-%m-%d %H:%M}"
    return f"{start:%Y-%m-%d}"


def _in_order(lines: Iterable[Line]) -> list[Line]:
    """Return the lines as they come; those beyond the limit as one."""
    found: list[Line] = []
    for line in lines:
        if len(found) < _MOST_TIMES:
            found.append(line)
        elif len(found) == _MOST_TIMES:
            found.append(replace(line, labels=("later",)))
        else:
            found[-1] = found[-1].plus(line)
    return found


def _costliest(lines: Iterable[Line], most: int) -> list[Line]:
    """Return the lines with the highest cost, and the sum of all others as the last one."""
    top: list[tuple[Decimal, int, Line]] = []
    rest: list[Line] = []
    others = 0
    for number, line in enumerate(lines):
        heapq.heappush(top, (line.cost_usd or Decimal(0), -number, line))
        if len(top) > most:
            _, _, least = heapq.heappop(top)
            others += 1
            rest = [rest[0].plus(least)] if rest else [least]
    found = [line for _, _, line in sorted(top, key=lambda each: each[:2], reverse=True)]
    return found + [replace(line, labels=(f"others ({others:,})",)) for line in rest]


def _without_gaps(lines: list[Line], report: Report) -> list[Line]:
    """Return the lines of days or months, with those between in which nothing was spent."""
    (group,) = report.groups
    if group is UsageGroup.HOUR:
        return lines
    by_label = {line.labels: line for line in lines}
    zone = report.query.zone
    day = report.query.start.astimezone(zone).date()
    last = (min(report.query.end, report.as_of) - timedelta(microseconds=1)).astimezone(zone).date()
    while day <= last:
        labels = (_time_text(group, day),)
        by_label.setdefault(labels, Line(labels, Decimal(0), input_tokens=0, output_tokens=0))
        day += timedelta(days=1)
    return [by_label[labels] for labels in sorted(by_label)]


def _notes(totals: Totals, tables: Sequence[Table], screen: Screen) -> Iterator[str]:
    """Yield what the marks in the tables mean."""
    if any(each.rounded for each in tables):
        text = f"{amounts.ROUNDED} and {amounts.BELOW}: rounded; --format csv, json and parquet are exact."
        yield from ("", *_wrapped(text, screen))
    if totals.pending_calls or totals.unresolved_calls:
        bound = totals.unresolved_bound_usd
        at_most = "without an upper bound" if bound is None else f"at most {bound:f} USD"
        parts = [f"{totals.pending_calls:,} pending"] if totals.pending_calls else []
        parts += [f"{totals.unresolved_calls:,} unresolved ({at_most})"] if totals.unresolved_calls else []
        text = f"{OPEN}: the cost of open calls is not in the sums: {', '.join(parts)}."
        yield from ("", *_wrapped(text, screen))


def _wrapped(text: str, screen: Screen) -> Sequence[str]:
    return textwrap.wrap(text, max(screen.width, 20))
