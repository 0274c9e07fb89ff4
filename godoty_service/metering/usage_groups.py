"""How a question wants its sums cut, and the sums so cut. Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from zoneinfo import ZoneInfo

from godoty_service.metering import money
from godoty_service.metering.rollups import QUARTER
from godoty_service.metering.time_cells import Span, TimeGroup, cell_start, cells, spans
from godoty_service.metering.totals import Totals
from godoty_service.metering.usage_pipeline import Cut, read_later, read_totals
from godoty_service.metering.usage_plan import DAY, HOUR, Plan, Range, Source, plan
from godoty_service.metering.usage_sums import plus
from godoty_service.mongo import Document


class NamedGroup(StrEnum):
    """What entries may have in common beside their time."""

    MODEL = "model"
    PROVIDER = "provider"
    AGENT = "agent"
    USER = "user"
    SESSION = "session"


Group = TimeGroup | NamedGroup
Key = tuple[datetime | str, ...]
_ROLLED_UP = frozenset({NamedGroup.MODEL, NamedGroup.PROVIDER, NamedGroup.AGENT})


class Grouping:
    """By what sums are cut.

    Attributes:
        time: The group of time, if there is one.
        named: The other groups.
    """

    def __init__(self, groups: tuple[Group, ...], zone: ZoneInfo) -> None:
        """Take what is asked.

        Args:
            groups: At most one of time.
            zone: Where hours, days and months are cut.
        """
        self._groups = groups
        self._zone = zone
        self.time = next((each for each in groups if isinstance(each, TimeGroup)), None)
        self.named = tuple(each for each in groups if isinstance(each, NamedGroup))

    def spans(self, whole: Range) -> list[Span]:
        """Cut a range where clocks change, if its sums are cut by time."""
        return list(spans(self._zone if self.time else ZoneInfo("UTC"), whole.start, whole.end))

    def cut(self, span: Span) -> Cut:
        """Tell how sums of a span are cut."""
        return Cut(names=tuple(each.value for each in self.named), time=self.time, offset=span.offset_text)

    def plan(self, span: Span, changed: set[datetime]) -> Plan:
        """Tell what to read of a span, where the entries of these quarters have to be read."""
        if set(self.named) - _ROLLED_UP:
            return {Source.ENTRIES: [Range(span.start, span.end)]}
        stretches = [(span.start, span.end)] if self.time is None else cells(self.time, span.start, span.end, span)
        return plan(
            [Range(*each) for each in stretches],
            detailed=bool(self.named),
            widest=DAY if self.time is not TimeGroup.HOUR else _hour_in(span.offset),
            changed=changed,
        )

    def key(self, found: Document, span: Span) -> Key:
        """Read what a group of a span has in common; a time is that at which it begins."""
        return tuple(
            cell_start(each, self._zone, found["time"], span) if isinstance(each, TimeGroup) else found[each.value]
            for each in self._groups
        )

    def texts(self, key: Key) -> tuple[str, ...]:
        """Write a key; times in the zone's time."""
        return tuple(each.astimezone(self._zone).isoformat() if isinstance(each, datetime) else each for each in key)


class GroupSums(dict[Key, tuple[Totals, Decimal]]):
    """By group, the sum as it was known, and the cost that became known later."""

    def add(self, found: Iterable[Document], grouping: Grouping, span: Span) -> None:
        """Add groups as MongoDB summed them."""
        for each in found:
            key = grouping.key(each["_id"], span)
            totals, later = read_totals(each), read_later(each)
            old = self.get(key)
            self[key] = (totals, later) if old is None else (plus(old[0], totals), money.add(old[1], later))


def _hour_in(offset: timedelta) -> timedelta:
    """Tell how long the documents are that hours of a zone are sums of."""
    return QUARTER if offset % HOUR else HOUR
