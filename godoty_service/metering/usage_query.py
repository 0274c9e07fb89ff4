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
from godoty_service.metering.usage_groups import Group, Grouping, GroupSums
from godoty_service.metering.usage_pipeline import Cut, grouped, of_entries, of_pending, of_rollups
from godoty_service.metering.usage_plan import Range, Source
from godoty_service.metering.usage_sums import NOTHING, plus
from godoty_service.mongo import Database, Document, Snapshot
from godoty_service.pieces import in_pieces

MOST_GROUPS = 10_000  # of an answer: more would not fit the message that clients take by default
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
class UsageRow:
    """The sum of a group, and what it has in common: a text or, in the zone's time, when it begins."""

    keys: tuple[str, ...]
    totals: Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageAnswer:
    """What is answered.

    Attributes:
        rows: The groups, in the order of their keys.
        totals: All of them together.
        as_of: What was known at this time is in it.
        later: What the range's calls cost that became known later; None: the question named no time.
    """

    rows: tuple[UsageRow, ...]
    totals: Totals
    as_of: datetime
    later: Decimal | None


class UsageQuery:
    """Sums by tenant, range and group."""

    def __init__(self, *, database: Database, booking: Booking, rollups: Rollups, entries: UsageEntries) -> None:
        """Build it.

        Args:
            database: Where snapshots are taken.
            booking: Takes up what is not rolled up yet.
            rollups: The sums.
            entries: What they are sums of.
        """
        self._database = database
        self._booking = booking
        self._rollups = rollups
        self._entries = entries

    async def ask(self, tenant_id: str, question: UsageQuestion) -> UsageAnswer:
        """Answer a question.

        Raises:
            InvalidRequest: `as_of` is in the future, or there are more than `MOST_GROUPS` groups.
        """
        if question.as_of is not None:
            await self._check_past(tenant_id, question.as_of)
        as_of = await self._booking.close(tenant_id, at=question.as_of)
        grouping = Grouping(question.groups, question.zone)
        whole = Range(max(question.start, _EARLIEST), min(question.end, _LATEST))
        sums = await self._consistent(tenant_id, whole, grouping, as_of)
        rows: list[UsageRow] = []
        totals, all_later = NOTHING, money.ZERO
        async for keys in in_pieces(sorted(sums)):
            for key in keys:
                each, later = sums[key]
                all_later = money.add(all_later, later)
                if each != NOTHING:
                    rows.append(UsageRow(keys=grouping.texts(key), totals=each))
            totals = plus(totals, *(sums[key][0] for key in keys))
        later_asked = all_later if question.as_of is not None else None
        return UsageAnswer(rows=tuple(rows), totals=totals, as_of=as_of, later=later_asked)

    async def _check_past(self, tenant_id: str, as_of: datetime) -> None:
        book = await self._booking.book(tenant_id)
        if (book.closed is None or as_of > book.closed) and as_of > await self._database.now():
            raise InvalidRequest.of("as_of", "must not be in the future")

    async def _consistent(self, tenant_id: str, whole: Range, grouping: Grouping, as_of: datetime) -> GroupSums:
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
    ) -> GroupSums:
        """Sum what the books have at a moment. What is being taken up counts as known after `as_of`."""
        rollups, entries = self._rollups.at(snapshot), self._entries.at(snapshot)
        changed = await rollups.changed(tenant_id, whole.start, whole.end, after=as_of)
        sums = GroupSums()
        for span in grouping.spans(whole):
            cut = grouping.cut(span)
            group = grouped(cut, fine=True, limit=MOST_GROUPS + 1)
            for source, ranges in grouping.plan(span, changed).items():
                if source is Source.CURVES:
                    async for some in in_pieces(await rollups.curves(tenant_id, ranges), at_once=_CURVES):
                        sums.add_curves(some, ranges, grouping, span)
                    continue
                if source is Source.ENTRIES:
                    found = await entries.aggregate([*of_entries(tenant_id, ranges, as_of=as_of), *group])
                else:
                    found = await _rolled_up(rollups, of_rollups(tenant_id, source.value, ranges), cut)
                await _add(sums, found, grouping, span)
            pending = of_pending(tenant_id, [Range(span.start, span.end)], as_of=as_of)
            await _add(sums, await entries.aggregate([*pending, *group]), grouping, span)
        return sums


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
