"""Proves the roll-ups: recomputes each day's documents from its entries and names each difference. Reads only."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta

from godoty_service.metering.booking import Batch, Booking
from godoty_service.metering.call import CallState, ModelCall
from godoty_service.metering.rollups import Kept, Rollups
from godoty_service.metering.states import contribution
from godoty_service.metering.totals import Totals
from godoty_service.metering.turn_openers import by_turn, opener
from godoty_service.metering.usage_cells import Cell, Sum, Sums, add_sums, floor_day, sums_of, turn_of
from godoty_service.metering.usage_entries import Marked, UsageEntries, entry_id
from godoty_service.metering.usage_window import Window
from godoty_service.metering.verification import Difference
from godoty_service.mongo import Database, Document, Snapshot

_DAY = timedelta(days=1)
_START = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Day:
    """A day's sums, by its entries.

    Attributes:
        booked: Of those that are taken up.
        moving: Of those that are being taken up: a document has them once it is folded up to their batch.
        faults: What is wrong with entries themselves.
    """

    booked: Sums = field(default_factory=dict)
    moving: Sums = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turns:
    """With which calls turns count.

    Attributes:
        opening: By what is taken up.
        taking: By what is being taken up.
        moving: Turns that have calls in the latter.
    """

    opening: set[str]
    taking: set[str]
    moving: set[str]

    @classmethod
    def of(cls, calls: list[Document], batch: Batch | None) -> "_Turns":
        """Find out by all calls of some turns, and by the batch that is being taken up."""
        first = [opener(turn, but=batch.final if batch else ()) for turn in by_turn(calls)]
        taking = {*batch.final, *(each.entry_id for each in batch.moved)} if batch else set()
        return cls(
            opening={each["_id"] for each in first if each is not None},
            taking=set(batch.opening or ()) if batch else set(),
            moving={each["turn_id"] for each in calls if each["_id"] in taking},
        )


async def verify_usage(
    *, database: Database, entries: UsageEntries, rollups: Rollups, booking: Booking, tenant_id: str | None = None
) -> AsyncIterator[Difference]:
    """Verify one tenant's roll-ups, or everybody's, while servers go on; in the memory that a day's documents need.

    Args:
        database: Where snapshots are taken: each day is looked at as it was at one moment.
        entries: The entries.
        rollups: Their sums.
        booking: Tells which entries are being taken up.
        tenant_id: Whose; None: everybody's.
    """
    tenant = tenant_id if tenant_id is not None else await _next_tenant(entries, rollups, "")
    while tenant is not None:
        day = await _next_day(entries, rollups, tenant, _START)
        while day is not None:
            async with database.snapshot() as snapshot:
                found = await _differences(tenant, day, snapshot, entries=entries, rollups=rollups, booking=booking)
            for what in found:
                yield Difference(tenant_id=tenant, session_id="", what=f"usage {what}")
            day = await _next_day(entries, rollups, tenant, day + _DAY)
        tenant = None if tenant_id is not None else await _next_tenant(entries, rollups, tenant)


async def _next_tenant(entries: UsageEntries, rollups: Rollups, after: str) -> str | None:
    found = (await entries.tenant_after(after), await rollups.tenant_after(after))
    return min(filter(None, found), default=None)


async def _next_day(entries: UsageEntries, rollups: Rollups, tenant_id: str, start: datetime) -> datetime | None:
    found = (await entries.first_time(tenant_id, start), await rollups.first_time(tenant_id, start))
    return min((floor_day(each) for each in found if each is not None), default=None)


async def _differences(
    tenant_id: str, day: datetime, snapshot: Snapshot, *, entries: UsageEntries, rollups: Rollups, booking: Booking
) -> list[str]:
    book = await booking.at(snapshot).find(tenant_id)
    window, batch = (book.window, book.batch) if book else (Window(), None)
    summed = _Day()
    async for page in entries.at(snapshot).by_time(tenant_id, day, day + _DAY):
        calls = [each.entry for each in page if isinstance(each.entry, ModelCall)]
        turns = await entries.at(snapshot).turn_calls(tenant_id, {call.turn_id for call in calls})
        _add_page(summed, page, _Turns.of(turns, batch), batch, window)
    kept = {each.cell: each async for each in rollups.at(snapshot).of_day(tenant_id, day)}
    return [*summed.faults, *_compared(kept, summed, batch)]


def _add_page(summed: _Day, page: list[Marked], turns: _Turns, batch: Batch | None, window: Window) -> None:
    moving = set(batch.final) if batch else set()
    moved = {each.entry_id: each.time for each in batch.moved if each.booked} if batch else {}
    summed.faults += _faults(page, turns)
    for each in page:
        entry, name = each.entry, entry_id(each.entry)
        if name in moving:
            add_sums(summed.moving, sums_of([entry], opening=turns.taking, window=window))
        elif each.booked:
            known = max(each.known, (name not in moved and each.opens_time) or each.known)
            add_sums(summed.booked, sums_of([entry], opening=turns.opening, window=Window(), known=known))
            if name in moved:
                add_sums(summed.moving, turn_of(entry, known=moved[name]))


def _faults(page: list[Marked], turns: _Turns) -> Iterator[str]:
    for each in page:
        call, name = each.entry, entry_id(each.entry)
        if not isinstance(call, ModelCall) or not each.booked:
            continue
        if call.state is CallState.PENDING:
            yield f"call {name} is taken up and pending"
        was_first = each.opens_turn and not contribution(call).turn  # until it was void
        if each.opens_turn != (name in turns.opening) and not was_first and call.turn_id not in turns.moving:
            yield f"call {name} is {'' if each.opens_turn else 'not '}marked as its turn's first"


def _compared(kept: dict[Cell, Kept], summed: _Day, batch: Batch | None) -> Iterator[str]:
    for cell in sorted({*kept, *summed.booked, *summed.moving}, key=_place):
        found = kept.get(cell)
        true: Sums = {cell: summed.booked[cell]} if cell in summed.booked else {}
        if found is not None and batch is not None and found.through >= batch.number and cell in summed.moving:
            add_sums(true, {cell: summed.moving[cell]})
        name = " ".join(filter(None, (cell.level.value, cell.time.isoformat(), cell.model, cell.provider, cell.agent)))
        if found is None:
            if true:
                yield f"{name}: is missing"
        elif cell not in true:
            yield f"{name}: is kept, and no entry is in it"
        else:
            yield from _unequal(name, found.sum, true[cell])


def _unequal(name: str, kept: Sum, true: Sum) -> Iterator[str]:
    for each in fields(Totals):
        shown, summed = getattr(kept.totals, each.name), getattr(true.totals, each.name)
        if shown != summed:
            yield f"{name}: {each.name}: kept {shown}, by the entries {summed}"
    if kept.latest != true.latest:
        yield f"{name}: latest: kept {kept.latest.isoformat()}, by the entries {true.latest.isoformat()}"


def _place(cell: Cell) -> tuple[datetime, str, str, str, str]:
    return cell.time, cell.level.value, cell.model, cell.provider, cell.agent
