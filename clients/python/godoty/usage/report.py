"""Usage by groups, as rows that have the same columns in each format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from decimal import Decimal
from typing import TypeAlias

from godoty.client import Godoty
from godoty.types import Totals, UsageGroup, UsageKey, UsageRow

Value: TypeAlias = str | int | Decimal | date | datetime | None
Row: TypeAlias = dict[str, Value]

TIMES = (UsageGroup.HOUR, UsageGroup.DAY, UsageGroup.MONTH)

_NUMBERS = ("model_calls", "turns")
_TOKENS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)
_OPEN = ("pending_calls", "unresolved_calls")


@dataclass(frozen=True)
class Query:
    """What is asked.

    Attributes:
        start: The start of the range, inclusive.
        end: Its end, exclusive.
        zone: The zone of hours, days and months.
        zone_name: Its IANA name; empty for UTC.
        as_of: The time at which the totals were known. None: now.
        tenant_id: Another tenant than the key's. Empty: the key's own.
    """

    start: datetime
    end: datetime
    zone: tzinfo
    zone_name: str = ""
    as_of: datetime | None = None
    tenant_id: str = ""


@dataclass(frozen=True)
class Report:
    """Totals of a time range.

    Attributes:
        query: What was asked.
        groups: The groups of the rows.
        totals: The sum of all rows.
        as_of: The time at which the totals were known.
        rows: The rows in the order of their keys, which are read page by page.
    """

    query: Query
    groups: tuple[UsageGroup, ...]
    totals: Totals
    as_of: datetime
    rows: Iterator[UsageRow]

    @property
    def columns(self) -> dict[str, type]:
        """The columns of the rows, with their types; each value may be None, which is unknown, or none."""
        keys: dict[str, type] = {}
        for group in self.groups:
            keys[name_of(group)] = {UsageGroup.HOUR: datetime}.get(group, date) if group in TIMES else str
            if group is UsageGroup.USER:
                keys["user_reference"] = str
        counts: dict[str, type] = dict.fromkeys((*_NUMBERS, *_TOKENS, *_OPEN), int)
        return keys | {"cost_usd": Decimal} | counts | {"unresolved_bound_usd": Decimal}

    def row(self, row: UsageRow) -> Row:
        """Return a row with its keys."""
        keys: Row = {}
        for group, key in zip(self.groups, row.keys, strict=True):
            keys[name_of(group)] = key_value(group, key, self.query.zone)
            if group is UsageGroup.USER:
                keys["user_reference"] = key.user_reference or None
        return keys | numbers(row.totals)


def fetch(client: Godoty, query: Query, groups: tuple[UsageGroup, ...]) -> Report:
    """Return a report; all of its rows are known at the same time."""
    span = (query.start, query.end)
    report = client.billing.usage(
        *span, group_by=groups, time_zone=query.zone_name, as_of=query.as_of, tenant_id=query.tenant_id
    )
    rows = iter(report.rows)
    if report.next_page_token:
        rows = client.billing.usage_rows(
            *span, group_by=groups, time_zone=query.zone_name, as_of=report.as_of, tenant_id=query.tenant_id
        )
    return Report(query, groups, report.totals, report.as_of, rows)


def name_of(group: UsageGroup) -> str:
    """Return the name of a group, as options and columns have it."""
    return group.value.lower()


def key_value(group: UsageGroup, key: UsageKey, zone: tzinfo) -> str | date | datetime | None:
    """Return the value of a key; days and months are dates of the zone."""
    match group:
        case UsageGroup.HOUR | UsageGroup.DAY | UsageGroup.MONTH:
            start = key.time.astimezone(zone) if key.time is not None else None
            return start if start is None or group is UsageGroup.HOUR else start.date()
        case UsageGroup.SESSION:
            return key.session_id
        case UsageGroup.API_KEY:
            return key.api_key_id
        case _:
            found: str | None = getattr(key, name_of(group))
            return found


def numbers(totals: Totals) -> Row:
    """Return totals as columns."""
    return {
        "cost_usd": totals.cost_usd,
        **{name: getattr(totals, name) for name in _NUMBERS},
        **{name: getattr(totals.usage, name) for name in _TOKENS},
        **{name: getattr(totals, name) for name in _OPEN},
        "unresolved_bound_usd": totals.unresolved_bound_usd,
    }
