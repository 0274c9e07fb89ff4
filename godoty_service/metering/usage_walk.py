"""Sums ledger entries in pieces, each of at most so many: for what no roll-up has.

Each entry gives the same at the answer's `as_of` whenever it is read, booked or not (`usage_pipeline.of_entries`), as
the books are closed through that time. So the pieces need no common snapshot, which MongoDB would keep for minutes.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from godoty_service.errors import InvalidRequest
from godoty_service.metering.usage_entries import UsageEntries
from godoty_service.metering.usage_pipeline import Cut, grouped, of_entries
from godoty_service.metering.usage_plan import Range
from godoty_service.mongo import Document

_COUNTED = 5  # pieces whose entries are counted in one operation: by the index alone


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkLimits:
    """How much is read.

    Attributes:
        piece: Entries of one database operation.
        entries: Entries of one answer.
    """

    piece: int
    entries: int


class EntryWalk:
    """The entries that one answer reads one by one."""

    def __init__(self, entries: UsageEntries, tenant_id: str, *, as_of: datetime, limits: WalkLimits) -> None:
        self._entries = entries
        self._tenant_id = tenant_id
        self._as_of = as_of
        self._limits = limits
        self._left = limits.entries

    async def check(self, stretch: Range) -> None:
        """Count the entries of a stretch against the bound, before any is summed.

        Raises:
            InvalidRequest: They are more than an answer may read.
        """
        piece = _COUNTED * self._limits.piece
        self._left -= await self._entries.count(
            self._tenant_id, stretch.start, stretch.end, limit=self._left, piece=piece
        )
        if self._left < 0:
            what = (
                f"the range has more than {self._limits.entries} entries, which sums by end user or session, or for an "
                "earlier as_of, read one by one: ask for a shorter time"
            )
            raise InvalidRequest.of("end_time", what)

    async def sums(self, stretch: Range, cut: Cut) -> AsyncIterator[list[Document]]:
        """Sum the entries of a stretch, piece by piece."""
        size = self._limits.piece
        group = grouped(cut, fine=True, limit=size, places=True)
        after: Document | None = None
        while True:
            chosen = of_entries(self._tenant_id, stretch, as_of=self._as_of, after=after, limit=size)
            found = await self._entries.aggregate([*chosen, *group])
            yield found
            if sum(each["entries"] for each in found) < size:
                return
            after = max((each["last"] for each in found), key=lambda each: (each["time"], each["number"], each["id"]))
