"""Sums ledger entries in pieces of bounded size, for sums that the roll-ups do not have.

Once the watermark has reached a report's `as_of`, an entry contributes the same at that time whenever it is read,
rolled up or not (`pipeline.entry_stages`). The pieces therefore need no common snapshot, which MongoDB would have to
retain for minutes.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from godoty_service.aio.cooperative import yielding_batches
from godoty_service.errors import InvalidRequest
from godoty_service.ledger.entries import ModelCall
from godoty_service.mongo.collection import Document
from godoty_service.usage.entries import UsageEntries
from godoty_service.usage.pipeline import GroupSpec, entry_stages, group_stages
from godoty_service.usage.read_plan import Range
from godoty_service.usage.rollup_keys import Sums, add_sums, rollup_sums
from godoty_service.usage.turn_openers import by_turn, opener
from godoty_service.usage.window import Window

_COUNT_PIECES = 5  # pieces counted in one operation, which reads the index alone


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanLimits:
    """Bounds on the entries that are read.

    Attributes:
        piece: Entries an operation.
        entries: Entries a report.
    """

    piece: int
    entries: int


class EntryScan:
    """Reads entries one by one for one report."""

    def __init__(self, entries: UsageEntries, tenant_id: str, *, as_of: datetime, limits: ScanLimits) -> None:
        self._entries = entries
        self._tenant_id = tenant_id
        self._as_of = as_of
        self._limits = limits
        self._remaining = limits.entries

    async def check(self, span: Range) -> None:
        """Count the entries of a range against the report's bound, before any is summed.

        Raises:
            InvalidRequest: The report would read more entries than it may.
        """
        piece = _COUNT_PIECES * self._limits.piece
        self._remaining -= await self._entries.count(
            self._tenant_id, span.start, span.end, limit=self._remaining, piece=piece
        )
        if self._remaining < 0:
            what = (
                f"the range has more than {self._limits.entries} entries, which sums by end user, session or "
                "API key, or for an earlier as_of, read one by one: request a shorter time range"
            )
            raise InvalidRequest.of("end_time", what)

    async def sums(self, span: Range, spec: GroupSpec) -> AsyncIterator[list[Document]]:
        """Yield the sums of each piece of a range by group."""
        size = self._limits.piece
        group = group_stages(spec, split_digits=True, limit=size, with_last=True)
        after: Document | None = None
        while True:
            chosen = entry_stages(self._tenant_id, span, as_of=self._as_of, after=after, limit=size)
            found = await self._entries.aggregate([*chosen, *group])
            yield found
            if sum(each["entries"] for each in found) < size:
                return
            after = max((each["last"] for each in found), key=lambda each: (each["time"], each["number"], each["id"]))


_DAY = timedelta(days=1)


async def sums_of_day(entries: UsageEntries, tenant_id: str, day: datetime) -> Sums:
    """Return the sums of a day's rolled-up entries, at every granularity."""
    sums: Sums = {}
    async for page in entries.iterate_by_time(tenant_id, day, day + _DAY):
        turns = {each.entry.turn_id for each in page if isinstance(each.entry, ModelCall)}
        calls = await entries.turn_calls(tenant_id, turns)
        opening = {first["_id"] for turn in by_turn(calls) if (first := opener(turn)) is not None}
        async for some in yielding_batches([each for each in page if each.rolled_up]):
            for each in some:
                time = max(each.final_from, each.opens_time or each.final_from)
                add_sums(sums, rollup_sums([each.entry], turn_openers=opening, window=Window(), final_time=time))
    return sums
