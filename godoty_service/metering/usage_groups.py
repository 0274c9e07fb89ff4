"""How a question wants its sums cut, and the sums so cut. Pure."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import islice
from zoneinfo import ZoneInfo

from godoty_service.metering import money
from godoty_service.metering.time_cells import Span, TimeGroup, cell_start, cells, spans
from godoty_service.metering.totals import Totals
from godoty_service.metering.usage_cells import QUARTER
from godoty_service.metering.usage_curve import QUARTERS, sum_of_curve
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
_STEPS = {TimeGroup.HOUR: 4, TimeGroup.DAY: QUARTERS, TimeGroup.MONTH: QUARTERS}  # a day that begins may begin a month
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

    @property
    def rolled_up(self) -> bool:
        """Whether there are roll-ups by these groups."""
        return not set(self.named) - _ROLLED_UP

    def plan(self, span: Span, changed: set[datetime]) -> Plan:
        """Tell what to read of a span, where the entries of these quarters have to be read."""
        if not self.rolled_up:
            return {Source.ENTRIES: [Range(span.start, span.end)]}
        whole = [(span.start, span.end)]
        stretches = cells(self.time, span.start, span.end, span) if self.named and self.time is not None else whole
        return plan(
            [Range(*each) for each in stretches],
            detailed=bool(self.named),
            widest=DAY if self.time is not TimeGroup.HOUR else _hour_in(span.offset),
            changed=changed,
        )

    def of_curve(self, curve: Document, ranges: Sequence[Range], span: Span) -> Iterator[tuple[Key, Totals]]:
        """Sum what a day's curve has in some ranges of a span, by group."""
        day: datetime = curve["time"]
        for each in islice(ranges, bisect_right(ranges, day, key=lambda each: each.end), None):
            if each.start >= day + DAY:
                break
            first, end = max((each.start - day) // QUARTER, 0), min((each.end - day) // QUARTER, QUARTERS)
            for start, stop in _cut(self.time, first, end, shift=span.offset // QUARTER):
                totals = sum_of_curve(curve, start, stop)
                if totals is not None:
                    yield self.key({"time": day + start * QUARTER}, span), totals

    def key(self, found: Document, span: Span) -> Key:
        """Read what a group of a span has in common; a time is that at which it begins."""
        return tuple(
            cell_start(each, self._zone, found["time"], span) if isinstance(each, TimeGroup) else found[each.value]
            for each in self._groups
        )

    def parse(self, parts: Sequence[str]) -> Key | None:
        """Return the key that `plain` wrote; None: it wrote none of these groups."""
        if len(parts) != len(self._groups):
            return None
        pairs = zip(self._groups, parts, strict=True)
        return tuple(
            datetime.fromisoformat(part).astimezone(UTC) if isinstance(group, TimeGroup) else part
            for group, part in pairs
        )

    def texts(self, key: Key) -> tuple[str, ...]:
        """Write a key; times in the zone's time."""
        return tuple(each.astimezone(self._zone).isoformat() if isinstance(each, datetime) else each for each in key)


def plain(key: Key) -> list[str]:
    """Write a key down; times in UTC."""
    return [each.astimezone(UTC).isoformat() if isinstance(each, datetime) else each for each in key]


class GroupSums(dict[Key, tuple[Totals, Decimal]]):
    """By group, the sum as it was known, and the cost that became known later.

    Of a page, only its groups are kept: those after a key, and of these at least the first `most`.
    """

    def __init__(self, *, after: Key | None = None, most: int | None = None) -> None:
        """Make sums of no groups.

        Args:
            after: Groups up to this key are left out; None: none is.
            most: So many groups are wanted; None: all.
        """
        super().__init__()
        self._after = after
        self._most = most
        self._end: Key | None = None

    @property
    def cut(self) -> bool:
        """Whether groups behind those that are kept were left out."""
        return self._end is not None

    def add(self, key: Key, totals: Totals, later: Decimal = money.ZERO) -> None:
        """Add to a group, if it is wanted."""
        if self._most is not None and len(self) > 2 * self._most:
            self._trim(self._most)
        if (self._after is not None and key <= self._after) or (self._end is not None and key >= self._end):
            return
        old = self.get(key)
        self[key] = (totals, later) if old is None else (plus(old[0], totals), money.add(old[1], later))

    def add_found(self, found: Iterable[Document], grouping: Grouping, span: Span) -> None:
        """Add groups as MongoDB summed them."""
        for each in found:
            self.add(grouping.key(each["_id"], span), read_totals(each), read_later(each))

    def _trim(self, most: int) -> None:
        """Drop the groups behind the first ones. None of them comes back: it would lack what it had."""
        ordered = sorted(self)
        self._end = ordered[most]
        for key in ordered[most:]:
            del self[key]

    def add_curves(self, curves: Iterable[Document], ranges: Sequence[Range], grouping: Grouping, span: Span) -> None:
        """Add what days' curves have in some ranges of a span."""
        for curve in curves:
            for key, totals in grouping.of_curve(curve, ranges, span):
                self.add(key, totals)


def _cut(time: TimeGroup | None, first: int, end: int, *, shift: int) -> Iterator[tuple[int, int]]:
    """Cut quarters of a day in UTC where groups begin in a zone whose clocks are so many quarters ahead."""
    while first < end:
        step = end - first if time is None else _STEPS[time] - (first + shift) % _STEPS[time]
        yield first, min(first + step, end)
        first += step


def _hour_in(offset: timedelta) -> timedelta:
    """Tell how long the documents are that hours of a zone are sums of."""
    return QUARTER if offset % HOUR else HOUR
