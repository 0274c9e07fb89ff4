"""Runs usage queries: exact as of any time, and repeatable for the same `as_of`."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from godoty_service.aio.cooperative import yielding_batches
from godoty_service.errors import InvalidRequest, SnapshotLost, StorageUnavailable
from godoty_service.ledger.totals import Totals
from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Document, Snapshot
from godoty_service.pricing import money
from godoty_service.usage.calendar import OffsetInterval
from godoty_service.usage.entries import UsageEntries
from godoty_service.usage.entry_scan import EntryScan, ScanLimits
from godoty_service.usage.grouping import Group, Grouping, GroupSums, Key, NamedGroup
from godoty_service.usage.ledger_pages import reach_watermark
from godoty_service.usage.pipeline import (
    NAME_MARK,
    GroupSpec,
    group_stages,
    pending_stages,
    read_later_cost,
    read_totals,
    rollup_stages,
)
from godoty_service.usage.read_plan import Range, Source, subtract_ranges
from godoty_service.usage.rollup_job import RollupJob
from godoty_service.usage.rollup_store import RollupStore
from godoty_service.usage.sums import NOTHING, is_zero, plus
from godoty_service.users.references import UserReferences

MAX_GROUPS = 10_000  # a page
# No entries are earlier or later. Within this range, the offsets of time zones are multiples of a quarter of an hour.
_MIN_TIME = datetime(2020, 1, 1, tzinfo=UTC)
_MAX_TIME = datetime(2200, 1, 1, tzinfo=UTC)
_SERIES_AT_ONCE = 4  # day series summed before the event loop runs, each with up to 24 groups
_TRIES = 5  # snapshots: one is lost while an index is being built


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """A query of a tenant's usage.

    Attributes:
        start: The start of the time range.
        end: Its end, exclusive.
        groups: How to group; at most one group of time.
        zone: The time zone of hours, days and months.
        as_of: Report what was visible at this time; None: now.
    """

    start: datetime
    end: datetime
    groups: tuple[Group, ...]
    zone: ZoneInfo
    as_of: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which groups of a report to return: at most `size` groups after a key."""

    size: int = MAX_GROUPS
    after: Key | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """The sum of a group.

    Attributes:
        key: The position of the group in the order of the groups; an end user is its reference.
        keys: The values that the group has in common, as text; a time is the start of its period, in the query's zone,
            and an end user its name, or its reference if it was erased.
        totals: The sum.
        user: The name of the group's end user; empty: it was erased, or the sums are not grouped by end user.
    """

    key: Key
    keys: tuple[str, ...]
    totals: Totals
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """The result of a usage query.

    Attributes:
        rows: The groups of the page, ordered by key.
        totals: The sum of all groups, including those of other pages.
        as_of: The report includes what was visible at this time.
        later_cost: The cost of the range's calls, in US dollars, that became visible later; None: the query had no
            `as_of`.
        end: The key of the page's last group; None: there are no more groups.
    """

    rows: tuple[UsageRow, ...]
    totals: Totals
    as_of: datetime
    later_cost: Decimal | None
    end: Key | None = None


_Partial = tuple[GroupSums, list[tuple[OffsetInterval, Range]]]  # sums, and ranges whose entries they do not include


@dataclass(slots=True)
class _Overall:
    """The sum of all groups of a report, and the cost that became visible later."""

    totals: Totals = NOTHING
    later_cost: Decimal = money.ZERO

    def add(self, *groups: tuple[Totals, Decimal]) -> None:
        self.totals = plus(self.totals, *(totals for totals, _ in groups))
        self.later_cost = money.total([self.later_cost, *(later_cost for _, later_cost in groups)])


class UsageQueries:
    """Runs queries by tenant."""

    def __init__(
        self,
        *,
        database: Database,
        rollup_job: RollupJob,
        rollups: RollupStore,
        entries: UsageEntries,
        users: UserReferences,
        limits: ScanLimits,
    ) -> None:
        """Create it.

        Args:
            database: Takes snapshots.
            rollup_job: Rolls up queued entries and advances the watermark.
            rollups: The sums.
            entries: The entries.
            users: The references and names of end users.
            limits: Bounds on the entries that are read one by one.
        """
        self._database = database
        self._rollup_job = rollup_job
        self._rollups = rollups
        self._entries = entries
        self._users = users
        self._limits = limits

    async def run(self, tenant_id: str, query: UsageQuery, page: Page | None = None) -> UsageReport:
        """Run a query; without a page, return its first `MAX_GROUPS` groups.

        Raises:
            InvalidRequest: `as_of` is in the future, the roll-ups have more than `MAX_GROUPS` groups, or more entries
                than the limit would have to be read one by one.
        """
        page = page or Page()
        if query.as_of is not None:
            await reach_watermark(self._rollup_job, tenant_id, query.as_of, now=self._database.now)
        as_of = query.as_of or await self._rollup_job.advance_watermark(tenant_id)
        grouping = Grouping(query.groups, query.zone)
        whole = Range(max(query.start, _MIN_TIME), min(query.end, _MAX_TIME))
        if grouping.rolled_up:
            sums, overall = await self._sum_rollups(tenant_id, whole, grouping, as_of)
        else:
            sums, overall = await self._scan(tenant_id, whole, grouping, as_of, page)
        keys = sorted(key for key in sums if page.after is None or key > page.after)
        return UsageReport(
            rows=await self._rows(tenant_id, sums, keys[: page.size], grouping),
            totals=overall.totals,
            as_of=as_of,
            later_cost=overall.later_cost if query.as_of is not None else None,
            end=keys[page.size - 1] if len(keys) > page.size or (sums.truncated and keys) else None,
        )

    async def _sum_rollups(
        self, tenant_id: str, whole: Range, grouping: Grouping, as_of: datetime
    ) -> tuple[GroupSums, _Overall]:
        """Sum the roll-ups of one snapshot, and the entries of the ranges that they do not cover."""
        sums, uncovered = await self._sum_consistently(tenant_id, whole, grouping, as_of)
        scan = self._entry_scan(tenant_id, as_of)
        for _, each in uncovered:
            await scan.check(each)
        for interval, each in uncovered:
            async for found in scan.sums(each, grouping.spec(interval)):
                await _add(sums, found, grouping, interval)
        overall = _Overall()
        async for some in yielding_batches(list(sums.values())):
            overall.add(*some)
        return sums, overall

    async def _scan(
        self, tenant_id: str, whole: Range, grouping: Grouping, as_of: datetime, page: Page
    ) -> tuple[GroupSums, _Overall]:
        """Sum entries, retaining only the groups of the page: all of them may not fit in memory."""
        sums, overall = GroupSums(after=page.after, most=page.size), _Overall()
        scan = self._entry_scan(tenant_id, as_of)
        await scan.check(whole)
        for interval in grouping.intervals(whole):
            async for found in scan.sums(Range(interval.start, interval.end), grouping.spec(interval)):
                if NamedGroup.USER in grouping.named:
                    await self._replace_names(tenant_id, found)
                async for some in yielding_batches(found):
                    sums.add_documents(some, grouping, interval)
                    overall.add(*((read_totals(each), read_later_cost(each)) for each in some))
        return sums, overall

    async def _replace_names(self, tenant_id: str, found: list[Document]) -> None:
        """Replace the end users' names that entries of schema 1 have: both forms of a user are one group."""
        named = [each["_id"] for each in found if each["_id"]["user"].startswith(NAME_MARK)]
        if named:
            names = {each["user"].removeprefix(NAME_MARK) for each in named}
            references = await self._users.of_names(tenant_id, names)
            for each in named:
                each["user"] = references[each["user"].removeprefix(NAME_MARK)]

    async def _rows(self, tenant_id: str, sums: GroupSums, keys: list[Key], grouping: Grouping) -> tuple[UsageRow, ...]:
        """Return the rows of a page, with the names of their end users."""
        place = grouping.place_of(NamedGroup.USER)
        names: dict[str, str] = {}
        if place is not None:
            names = await self._users.names(tenant_id, {str(key[place]) for key in keys})
        rows: list[UsageRow] = []
        async for some in yielding_batches(keys):
            for key in some:
                if is_zero(sums[key][0]):
                    continue
                texts, user = grouping.texts(key), ""
                if place is not None:
                    user = names.get(texts[place], "")
                    texts = (*texts[:place], user or texts[place], *texts[place + 1 :])
                rows.append(UsageRow(key=key, keys=texts, totals=sums[key][0], user=user))
        return tuple(rows)

    def _entry_scan(self, tenant_id: str, as_of: datetime) -> EntryScan:
        return EntryScan(self._entries, tenant_id, as_of=as_of, limits=self._limits)

    async def _sum_consistently(self, tenant_id: str, whole: Range, grouping: Grouping, as_of: datetime) -> _Partial:
        """Sum the roll-ups in a snapshot in which the watermark has reached `as_of`."""
        for _ in range(_TRIES):
            try:
                async with self._database.snapshot() as snapshot:
                    state = await self._rollup_job.read_at(snapshot).get(tenant_id)
                    if state is not None and state.watermark is not None and state.watermark >= as_of:
                        return await self._sum(tenant_id, whole, grouping, as_of, snapshot)
            except SnapshotLost:
                continue
        raise StorageUnavailable("The database cannot be reached just now.")

    async def _sum(
        self, tenant_id: str, whole: Range, grouping: Grouping, as_of: datetime, snapshot: Snapshot
    ) -> _Partial:
        """Sum the roll-ups of a snapshot; return the sums, and the ranges whose entries must be read.

        A batch in progress becomes visible after `as_of`, so its quarters are among these ranges.
        """
        rollups, entries = self._rollups.read_at(snapshot), self._entries.read_at(snapshot)
        changed = await rollups.changed_quarters(tenant_id, whole.start, whole.end, after=as_of)
        sums = GroupSums()
        uncovered: list[tuple[OffsetInterval, Range]] = []
        for interval in grouping.intervals(whole):
            spec = grouping.spec(interval)
            for source, ranges in grouping.plan(interval, changed).items():
                if source is Source.DAY_SERIES:
                    days = await rollups.day_series(tenant_id, ranges)
                    async for some in yielding_batches(days, size=_SERIES_AT_ONCE):
                        sums.add_series(some, ranges, grouping, interval)
                elif source is Source.ENTRIES:
                    uncovered += [(interval, each) for each in ranges]
                else:
                    found = await _group_rollups(rollups, rollup_stages(tenant_id, source.value, ranges), spec)
                    await _add(sums, found, grouping, interval)
            covered = subtract_ranges(
                Range(interval.start, interval.end), [each for of, each in uncovered if of is interval]
            )
            if covered:
                pending = pending_stages(tenant_id, covered, as_of=as_of)
                group = group_stages(spec, split_digits=True, limit=MAX_GROUPS + 1)
                await _add(sums, await entries.aggregate([*pending, *group]), grouping, interval)
        return sums, uncovered


async def _add(sums: GroupSums, found: list[Document], grouping: Grouping, interval: OffsetInterval) -> None:
    """Add groups that MongoDB summed.

    Raises:
        InvalidRequest: There are more than `MAX_GROUPS`.
    """
    if len(found) <= MAX_GROUPS:
        async for some in yielding_batches(found):
            sums.add_documents(some, grouping, interval)
    if max(len(found), len(sums)) > MAX_GROUPS:
        what = (
            f"must not give more than {MAX_GROUPS} groups: request a shorter time range, or fewer groups or longer "
            "periods"
        )
        raise InvalidRequest.of("group_by", what)


async def _group_rollups(rollups: RollupStore, match: list[Document], spec: GroupSpec) -> list[Document]:
    """Sum roll-ups by group; in two parts only if MongoDB could round the sum of the amounts."""
    limit = MAX_GROUPS + 1
    found = await rollups.aggregate([*match, *group_stages(spec, split_digits=False, limit=limit)])
    if any(each["fine"] for each in found):
        found = await rollups.aggregate([*match, *group_stages(spec, split_digits=True, limit=limit)])
    return found
