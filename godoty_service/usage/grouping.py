"""Groups usage sums by time, model, provider, agent, its version, user, session or API key. Pure."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import islice
from zoneinfo import ZoneInfo

from godoty_service.ledger.totals import Totals
from godoty_service.mongo.collection import Document
from godoty_service.pricing import money
from godoty_service.usage.calendar import OffsetInterval, TimeGroup, offset_intervals, period_start, split_periods
from godoty_service.usage.day_series import QUARTERS, DaySeries
from godoty_service.usage.pipeline import GroupSpec, read_later_cost, read_totals
from godoty_service.usage.read_plan import DAY, HOUR, Range, ReadPlan, Source, read_plan
from godoty_service.usage.rollup_keys import QUARTER
from godoty_service.usage.sums import plus


class NamedGroup(StrEnum):
    """The fields, besides time, by which usage can be grouped."""

    MODEL = "model"
    PROVIDER = "provider"
    AGENT = "agent"
    AGENT_VERSION = "agent_version"
    USER = "user"
    SESSION = "session"
    API_KEY = "api_key"


Group = TimeGroup | NamedGroup
Key = tuple[datetime | str, ...]
# The quarters after which a new group can begin: any day may begin a month.
_STEPS = {TimeGroup.HOUR: 4, TimeGroup.DAY: QUARTERS, TimeGroup.MONTH: QUARTERS}
_ROLLED_UP = frozenset({NamedGroup.MODEL, NamedGroup.PROVIDER, NamedGroup.AGENT})


class Grouping:
    """How a query groups its sums.

    Attributes:
        time: The group of time, if any.
        named: The other groups.
    """

    def __init__(self, groups: tuple[Group, ...], zone: ZoneInfo) -> None:
        """Create it.

        Args:
            groups: The groups; at most one of time.
            zone: The time zone of hours, days and months.
        """
        self._groups = groups
        self._zone = zone
        self.time = next((each for each in groups if isinstance(each, TimeGroup)), None)
        self.named = tuple(each for each in groups if isinstance(each, NamedGroup))

    def intervals(self, whole: Range) -> list[OffsetInterval]:
        """Split a range where the clocks change, if it is grouped by time."""
        return list(offset_intervals(self._zone if self.time else ZoneInfo("UTC"), whole.start, whole.end))

    def spec(self, interval: OffsetInterval) -> GroupSpec:
        """Return how to group the sums of an interval."""
        return GroupSpec(names=tuple(each.value for each in self.named), time=self.time, offset=interval.offset_text)

    @property
    def rolled_up(self) -> bool:
        """Whether the roll-ups have sums by these groups."""
        return not set(self.named) - _ROLLED_UP

    def plan(self, interval: OffsetInterval, changed: set[datetime]) -> ReadPlan:
        """Return the read plan of an interval; the entries of the `changed` quarters must be read."""
        if not self.rolled_up:
            return {Source.ENTRIES: [Range(interval.start, interval.end)]}
        periods: Iterable[tuple[datetime, datetime]] = [(interval.start, interval.end)]
        if self.named and self.time is not None:
            periods = split_periods(self.time, interval.start, interval.end, interval)
        return read_plan(
            [Range(*each) for each in periods],
            detailed=bool(self.named),
            widest=DAY if self.time is not TimeGroup.HOUR else _hour_in(interval.offset),
            changed=changed,
        )

    def series_groups(
        self, series: Document, ranges: Sequence[Range], interval: OffsetInterval
    ) -> Iterator[tuple[Key, Totals]]:
        """Yield the sums by group of a day series, within some ranges of an interval."""
        day: datetime = series["time"]
        sums = DaySeries(series)
        for each in islice(ranges, bisect_right(ranges, day, key=lambda each: each.end), None):
            if each.start >= day + DAY:
                break
            first, end = max((each.start - day) // QUARTER, 0), min((each.end - day) // QUARTER, QUARTERS)
            for start, stop in _split(self.time, first, end, shift=interval.offset // QUARTER):
                totals = sums.totals(start, stop)
                if totals is not None:
                    yield self.group_key({"time": day + start * QUARTER}, interval), totals

    def group_key(self, found: Document, interval: OffsetInterval) -> Key:
        """Return the key of a group that MongoDB summed; a time is the start of its period."""
        return tuple(
            period_start(each, self._zone, found["time"], interval)
            if isinstance(each, TimeGroup)
            else found[each.value]
            for each in self._groups
        )

    def parse_key(self, parts: Sequence[str]) -> Key | None:
        """Return the key that `key_to_texts` encoded; None: it has other groups."""
        if len(parts) != len(self._groups):
            return None
        pairs = zip(self._groups, parts, strict=True)
        return tuple(
            datetime.fromisoformat(part).astimezone(UTC) if isinstance(group, TimeGroup) else part
            for group, part in pairs
        )

    def place_of(self, group: Group) -> int | None:
        """Return the place of a group in the keys; None: the sums are not grouped by it."""
        return self._groups.index(group) if group in self._groups else None

    def texts(self, key: Key) -> tuple[str, ...]:
        """Return a key as text, times in the zone's time."""
        return tuple(each.astimezone(self._zone).isoformat() if isinstance(each, datetime) else each for each in key)


def key_to_texts(key: Key) -> list[str]:
    """Encode a key as text, times in UTC."""
    return [each.astimezone(UTC).isoformat() if isinstance(each, datetime) else each for each in key]


class GroupSums(dict[Key, tuple[Totals, Decimal]]):
    """The sum of each group as of the report's time, and the cost that became visible later.

    For a page, only its groups are retained: those after a key, and of these at least the first `most`.
    """

    def __init__(self, *, after: Key | None = None, most: int | None = None) -> None:
        """Create it without groups.

        Args:
            after: Groups up to this key are omitted; None: none.
            most: The number of groups to retain; None: all.
        """
        super().__init__()
        self._after = after
        self._most = most
        self._end: Key | None = None

    @property
    def truncated(self) -> bool:
        """Whether groups after the retained ones were dropped."""
        return self._end is not None

    def add(self, key: Key, totals: Totals, later_cost: Decimal = money.ZERO) -> None:
        """Add to a group, unless it is outside of the page."""
        if self._most is not None and len(self) > 2 * self._most:
            self._trim(self._most)
        if (self._after is not None and key <= self._after) or (self._end is not None and key >= self._end):
            return
        old = self.get(key)
        self[key] = (totals, later_cost) if old is None else (plus(old[0], totals), money.add(old[1], later_cost))

    def add_documents(self, found: Iterable[Document], grouping: Grouping, interval: OffsetInterval) -> None:
        """Add groups that MongoDB summed."""
        for each in found:
            self.add(grouping.group_key(each["_id"], interval), read_totals(each), read_later_cost(each))

    def _trim(self, most: int) -> None:
        """Drop the groups after the first ones for good: if one were added again, its earlier sums would be missing."""
        ordered = sorted(self)
        self._end = ordered[most]
        for key in ordered[most:]:
            del self[key]

    def add_series(
        self, days: Iterable[Document], ranges: Sequence[Range], grouping: Grouping, interval: OffsetInterval
    ) -> None:
        """Add the sums of day series, within some ranges of an interval."""
        for series in days:
            for key, totals in grouping.series_groups(series, ranges, interval):
                self.add(key, totals)


def _split(time: TimeGroup | None, first: int, end: int, *, shift: int) -> Iterator[tuple[int, int]]:
    """Split quarters of a UTC day where groups begin in a zone whose clocks are `shift` quarters ahead."""
    while first < end:
        step = end - first if time is None else _STEPS[time] - (first + shift) % _STEPS[time]
        yield first, min(first + step, end)
        first += step


def _hour_in(offset: timedelta) -> timedelta:
    """Return the length of the documents that sum to hours of a zone with this offset."""
    return QUARTER if offset % HOUR else HOUR
