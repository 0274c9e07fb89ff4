"""Answers what a tenant has used: exact at any moment, and the same again for the same `as_of`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from zoneinfo import ZoneInfo

from godoty_service.errors import InvalidRequest, StorageUnavailable
from godoty_service.metering import money
from godoty_service.metering.booking import Booking
from godoty_service.metering.rollups import Rollups
from godoty_service.metering.time_cells import Span, TimeGroup, cell_start, one_cell, spans
from godoty_service.metering.totals import Totals
from godoty_service.metering.usage_entries import UsageEntries
from godoty_service.metering.usage_pipeline import (
    Cut,
    grouped,
    of_entries,
    of_pending,
    of_rollups,
    read_amount,
    read_totals,
)
from godoty_service.metering.usage_plan import Range, Source, plan
from godoty_service.metering.usage_sums import NOTHING, plus
from godoty_service.mongo import Database, Document, Snapshot

# There are no entries before or after; zones have had whole quarters of an hour ever since.
_EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
_TRIES = 5  # snapshots, where indexes are just being made

Key = tuple[datetime | str, ...]


class NamedGroup(StrEnum):
    """What entries may have in common beside their time."""

    MODEL = "model"
    PROVIDER = "provider"
    AGENT = "agent"
    USER = "user"
    SESSION = "session"


Group = TimeGroup | NamedGroup
_ROLLED_UP = frozenset({NamedGroup.MODEL, NamedGroup.PROVIDER, NamedGroup.AGENT})


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
            InvalidRequest: `as_of` is in the future.
        """
        if question.as_of is not None:
            await self._check_past(tenant_id, question.as_of)
        as_of = await self._booking.close(tenant_id, at=question.as_of)
        sums = await self._consistent(tenant_id, question, as_of)
        rows = sorted((key, totals) for key, (totals, _) in sums.items() if totals != NOTHING)
        later = money.total(later for _, later in sums.values())
        return UsageAnswer(
            rows=tuple(UsageRow(keys=_texts(key, question.zone), totals=each) for key, each in rows),
            totals=plus(*(each for _, each in rows)),
            as_of=as_of,
            later=later if question.as_of is not None else None,
        )

    async def _check_past(self, tenant_id: str, as_of: datetime) -> None:
        book = await self._booking.book(tenant_id)
        if (book.closed is None or as_of > book.closed) and as_of > await self._database.now():
            raise InvalidRequest.of("as_of", "must not be in the future")

    async def _consistent(self, tenant_id: str, question: UsageQuestion, as_of: datetime) -> "_Sums":
        for attempt in range(_TRIES):
            try:
                async with self._database.snapshot() as snapshot:
                    book = await self._booking.at(snapshot).find(tenant_id)
                    if book is not None and book.closed is not None and book.closed >= as_of:
                        return await self._sum(tenant_id, question, as_of, snapshot)
            except StorageUnavailable:
                if attempt + 1 == _TRIES:
                    raise
        raise StorageUnavailable("The database cannot be reached just now.")

    async def _sum(self, tenant_id: str, question: UsageQuestion, as_of: datetime, snapshot: Snapshot) -> "_Sums":
        """Sum what the books have at a moment. What is being taken up counts as known after `as_of`."""
        whole = Range(max(question.start, _EARLIEST), min(question.end, _LATEST))
        rollups, entries = self._rollups.at(snapshot), self._entries.at(snapshot)
        changed = await rollups.changed(tenant_id, whole.start, whole.end, after=as_of)
        wanted = _Wanted.of(question)
        sums = _Sums()
        for span in wanted.spans(whole):
            cut = Cut(names=wanted.names, time=wanted.time, offset=span.offset_text)
            group = grouped(cut, fine=True)
            within = Range(span.start, span.end)
            pieces = wanted.plan(within, span, changed)
            for source, ranges in pieces.items():
                if source is Source.ENTRIES:
                    found = await entries.aggregate([*of_entries(tenant_id, ranges, as_of=as_of), *group])
                else:
                    found = await _rolled_up(rollups, of_rollups(tenant_id, source.value, ranges), cut)
                sums.add(found, wanted, span)
            sums.add(await entries.aggregate([*of_pending(tenant_id, [within], as_of=as_of), *group]), wanted, span)
        return sums


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """How a question wants its sums cut."""

    groups: tuple[Group, ...]
    zone: ZoneInfo

    @classmethod
    def of(cls, question: UsageQuestion) -> "_Wanted":
        return cls(groups=question.groups, zone=question.zone)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(each.value for each in self.groups if isinstance(each, NamedGroup))

    @property
    def time(self) -> TimeGroup | None:
        return next((each for each in self.groups if isinstance(each, TimeGroup)), None)

    def spans(self, whole: Range) -> list[Span]:
        """Cut a range where clocks change, if its sums are cut by time."""
        return list(spans(self.zone if self.time else ZoneInfo("UTC"), whole.start, whole.end))

    def plan(self, within: Range, span: Span, changed: set[datetime]) -> dict[Source, list[Range]]:
        named = {each for each in self.groups if isinstance(each, NamedGroup)}
        if named - _ROLLED_UP:
            return {Source.ENTRIES: [within]}

        return plan(
            within,
            detailed=bool(named),
            fits=lambda piece: self.time is None or one_cell(self.time, piece.start, piece.end, span),
            changed=changed,
        )

    def key(self, found: Document, span: Span) -> Key:
        return tuple(
            cell_start(each, self.zone, found["time"], span) if isinstance(each, TimeGroup) else found[each.value]
            for each in self.groups
        )


class _Sums(dict[Key, tuple[Totals, Decimal]]):
    """By group, the sum as it was known, and the cost that became known later."""

    def add(self, found: Sequence[Document], wanted: _Wanted, span: Span) -> None:
        for each in found:
            key = wanted.key(each["_id"], span)
            new = (read_totals(each), read_amount(each, "later"))
            old = self.get(key)
            self[key] = new if old is None else (plus(old[0], new[0]), money.add(old[1], new[1]))


async def _rolled_up(rollups: Rollups, chosen: list[Document], cut: Cut) -> list[Document]:
    """Sum roll-ups: at once where no amount has so many decimals that a sum may not hold them, else in two parts."""
    found = await rollups.aggregate([*chosen, *grouped(cut, fine=False)])
    if any(each["fine"] for each in found):
        found = await rollups.aggregate([*chosen, *grouped(cut, fine=True)])
    return found


def _texts(key: Key, zone: ZoneInfo) -> tuple[str, ...]:
    return tuple(each.astimezone(zone).isoformat() if isinstance(each, datetime) else each for each in key)
