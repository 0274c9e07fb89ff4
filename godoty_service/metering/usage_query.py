"""Answers what a tenant has used: exact at any moment, and the same again for the same `as_of`."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from godoty_service.errors import InvalidRequest, SnapshotLost, StorageUnavailable
from godoty_service.metering import money
from godoty_service.metering.booking import Booking
from godoty_service.metering.rollups import Rollups
from godoty_service.metering.time_cells import Span
from godoty_service.metering.totals import Totals
from godoty_service.metering.usage_entries import UsageEntries
from godoty_service.metering.usage_groups import Group, Grouping, GroupSums, Key
from godoty_service.metering.usage_pipeline import Cut, grouped, of_pending, of_rollups, read_later, read_totals
from godoty_service.metering.usage_plan import Range, Source, without
from godoty_service.metering.usage_sums import NOTHING, is_zero, plus
from godoty_service.metering.usage_walk import EntryWalk, WalkLimits
from godoty_service.mongo import Database, Document, Snapshot
from godoty_service.pieces import in_pieces

MOST_GROUPS = 10_000  # of a page
# There are no entries before or after; zones have had whole quarters of an hour ever since.
_EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
_CURVES = 4  # that are summed at once, at up to 24 groups each
_TRIES = 5  # snapshots, where indexes are just being made


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuestion:
    """What is asked.

    Attributes:
        start: From this time on.
        end: Until just before this time.
        groups: At most one of time.
        zone: Where hours, days and months are cut.
        as_of: What was known at this time; None: now.
    """

    start: datetime
    end: datetime
    groups: tuple[Group, ...]
    zone: ZoneInfo
    as_of: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which groups of an answer are wanted: at most `size`, that come after a key."""

    size: int = MOST_GROUPS
    after: Key | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """The sum of a group, and what it has in common: a text or, in the zone's time, when it begins.

    `key` is the same as a place in the order of the groups.
    """

    key: Key
    keys: tuple[str, ...]
    totals: Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageAnswer:
    """What is answered.

    Attributes:
        rows: The groups of the page, in the order of their keys.
        totals: All groups together, those of other pages as well.
        as_of: What was known at this time is in it.
        later: What the range's calls cost that became known later; None: the question named no time.
        end: The key of the page's last group; None: there are no more.
    """

    rows: tuple[UsageRow, ...]
    totals: Totals
    as_of: datetime
    later: Decimal | None
    end: Key | None = None


_InPart = tuple[GroupSums, list[tuple[Span, Range]]]  # sums, and stretches whose entries are not in them


@dataclass(slots=True)
class _Whole:
    """All groups of an answer together: their sum, and the cost that became known later."""

    totals: Totals = NOTHING
    later: Decimal = money.ZERO

    def add(self, *groups: tuple[Totals, Decimal]) -> None:
        self.totals = plus(self.totals, *(totals for totals, _ in groups))
        self.later = money.total([self.later, *(later for _, later in groups)])


class UsageQuery:
    """Sums by tenant, range and group."""

    def __init__(
        self, *, database: Database, booking: Booking, rollups: Rollups, entries: UsageEntries, limits: WalkLimits
    ) -> None:
        """Build it.

        Args:
            database: Where snapshots are taken.
            booking: Takes up what is not rolled up yet.
            rollups: The sums.
            entries: What they are sums of.
            limits: How many entries are read one by one.
        """
        self._database = database
        self._booking = booking
        self._rollups = rollups
        self._entries = entries
        self._limits = limits

    async def ask(self, tenant_id: str, question: UsageQuestion, page: Page | None = None) -> UsageAnswer:
        """Answer a question; without a page, by its first `MOST_GROUPS` groups.

        Raises:
            InvalidRequest: `as_of` is in the future, the groups are roll-ups' and more than `MOST_GROUPS`, or more
                entries than the bound must be read one by one.
        """
        page = page or Page()
        if question.as_of is not None:
            await self._check_past(tenant_id, question.as_of)
        as_of = await self._booking.close(tenant_id, at=question.as_of)
        grouping = Grouping(question.groups, question.zone)
        whole = Range(max(question.start, _EARLIEST), min(question.end, _LATEST))
        if grouping.rolled_up:
            sums, together = await self._rolled_up(tenant_id, whole, grouping, as_of)
        else:
            sums, together = await self._walked(tenant_id, whole, grouping, as_of, page)
        keys = sorted(key for key in sums if page.after is None or key > page.after)
        rows: list[UsageRow] = []
        async for some in in_pieces(keys[: page.size]):
            rows += [
                UsageRow(key=key, keys=grouping.texts(key), totals=sums[key][0])
                for key in some
                if not is_zero(sums[key][0])
            ]
        return UsageAnswer(
            rows=tuple(rows),
            totals=together.totals,
            as_of=as_of,
            later=together.later if question.as_of is not None else None,
            end=keys[page.size - 1] if len(keys) > page.size or (sums.cut and keys) else None,
        )

    async def _rolled_up(
        self, tenant_id: str, whole: Range, grouping: Grouping, as_of: datetime
    ) -> tuple[GroupSums, _Whole]:
        """Sum roll-ups as they were at one moment, and what they have not from the entries."""
        sums, stretches = await self._consistent(tenant_id, whole, grouping, as_of)
        walk = self._walk(tenant_id, as_of)
        for _, stretch in stretches:
            await walk.check(stretch)
        for span, stretch in stretches:
            async for found in walk.sums(stretch, grouping.cut(span)):
                await _add(sums, found, grouping, span)
        together = _Whole()
        async for some in in_pieces(list(sums.values())):
            together.add(*some)
        return sums, together

    async def _walked(
        self, tenant_id: str, whole: Range, grouping: Grouping, as_of: datetime, page: Page
    ) -> tuple[GroupSums, _Whole]:
        """Sum entries, of which there may be more groups than memory should hold: those of the page are kept."""
        sums, together = GroupSums(after=page.after, most=page.size), _Whole()
        walk = self._walk(tenant_id, as_of)
        await walk.check(whole)
        for span in grouping.spans(whole):
            async for found in walk.sums(Range(span.start, span.end), grouping.cut(span)):
                async for some in in_pieces(found):
                    sums.add_found(some, grouping, span)
                    together.add(*((read_totals(each), read_later(each)) for each in some))
        return sums, together

    def _walk(self, tenant_id: str, as_of: datetime) -> EntryWalk:
        return EntryWalk(self._entries, tenant_id, as_of=as_of, limits=self._limits)

    async def _check_past(self, tenant_id: str, as_of: datetime) -> None:
        book = await self._booking.book(tenant_id)
        if (book.closed is None or as_of > book.closed) and as_of > await self._database.now():
            raise InvalidRequest.of("as_of", "must not be in the future")

    async def _consistent(self, tenant_id: str, whole: Range, grouping: Grouping, as_of: datetime) -> _InPart:
        for _ in range(_TRIES):
            try:
                async with self._database.snapshot() as snapshot:
                    book = await self._booking.at(snapshot).find(tenant_id)
                    if book is not None and book.closed is not None and book.closed >= as_of:
                        return await self._sum(tenant_id, whole, grouping, as_of, snapshot)
            except SnapshotLost:
                continue
        raise StorageUnavailable("The database cannot be reached just now.")

    async def _sum(
        self, tenant_id: str, whole: Range, grouping: Grouping, as_of: datetime, snapshot: Snapshot
    ) -> _InPart:
        """Sum what the roll-ups have at a moment, and return the stretches whose entries are to be read.

        What is being taken up counts as known after `as_of`.
        """
        rollups, entries = self._rollups.at(snapshot), self._entries.at(snapshot)
        changed = await rollups.changed(tenant_id, whole.start, whole.end, after=as_of)
        sums = GroupSums()
        stretches: list[tuple[Span, Range]] = []
        for span in grouping.spans(whole):
            cut = grouping.cut(span)
            group = grouped(cut, fine=True, limit=MOST_GROUPS + 1)
            for source, ranges in grouping.plan(span, changed).items():
                if source is Source.CURVES:
                    async for some in in_pieces(await rollups.curves(tenant_id, ranges), at_once=_CURVES):
                        sums.add_curves(some, ranges, grouping, span)
                    continue
                if source is Source.ENTRIES:
                    stretches += [(span, each) for each in ranges]
                    continue
                found = await _rolled_up(rollups, of_rollups(tenant_id, source.value, ranges), cut)
                await _add(sums, found, grouping, span)
            rest = without(Range(span.start, span.end), [each for of, each in stretches if of is span])
            if rest:
                pending = of_pending(tenant_id, rest, as_of=as_of)
                await _add(sums, await entries.aggregate([*pending, *group]), grouping, span)
        return sums, stretches


async def _add(sums: GroupSums, found: list[Document], grouping: Grouping, span: Span) -> None:
    """Add groups as MongoDB summed them.

    Raises:
        InvalidRequest: They are more than `MOST_GROUPS`.
    """
    if len(found) <= MOST_GROUPS:
        async for some in in_pieces(found):
            sums.add_found(some, grouping, span)
    if max(len(found), len(sums)) > MOST_GROUPS:
        what = f"must not give more than {MOST_GROUPS} groups: ask for a shorter time, or for fewer or longer groups"
        raise InvalidRequest.of("group_by", what)


async def _rolled_up(rollups: Rollups, chosen: list[Document], cut: Cut) -> list[Document]:
    """Sum roll-ups: at once where no amount has so many decimals that a sum may not hold them, else in two parts."""
    limit = MOST_GROUPS + 1
    found = await rollups.aggregate([*chosen, *grouped(cut, fine=False, limit=limit)])
    if any(each["fine"] for each in found):
        found = await rollups.aggregate([*chosen, *grouped(cut, fine=True, limit=limit)])
    return found
