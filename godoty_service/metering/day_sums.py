"""Sums a day's entries as the roll-ups hold them, from the entries themselves."""

from datetime import datetime, timedelta

from godoty_service.metering.call import ModelCall
from godoty_service.metering.turn_openers import by_turn, opener
from godoty_service.metering.usage_cells import Sums, add_sums, sums_of
from godoty_service.metering.usage_entries import UsageEntries
from godoty_service.metering.usage_window import Window
from godoty_service.pieces import in_pieces

_DAY = timedelta(days=1)


async def sums_of_day(entries: UsageEntries, tenant_id: str, day: datetime) -> Sums:
    """Return the sums, at every level, of a day's entries that are taken up."""
    sums: Sums = {}
    async for page in entries.by_time(tenant_id, day, day + _DAY):
        turns = {each.entry.turn_id for each in page if isinstance(each.entry, ModelCall)}
        calls = await entries.turn_calls(tenant_id, turns)
        opening = {first["_id"] for turn in by_turn(calls) if (first := opener(turn)) is not None}
        async for some in in_pieces([each for each in page if each.booked]):
            for each in some:
                known = max(each.known, each.opens_time or each.known)
                add_sums(sums, sums_of([each.entry], opening=opening, window=Window(), known=known))
    return sums
