"""Exports a tenant's ledger entries as of one time: each entry that the ledger held by then, once.

The usage books are closed through that time first, so that membership is fixed by marks on the entries: an entry that
is inserted later is dated after it, also if its call started earlier. Pages follow fields that never change (start
time, number, id) by queries of their own, so a client may be slow, and memory holds one page.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime

from godoty_service.metering.booking import Booking
from godoty_service.metering.call import Entry
from godoty_service.metering.ledger_pages import EntryFilter, LedgerPages

PAGE = 500  # entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """An export that has begun: its time, and its pages, each in the state in which it is read."""

    as_of: datetime
    pages: AsyncIterator[list[Entry]]


class LedgerExport:
    """Begins exports."""

    def __init__(self, *, booking: Booking, pages: LedgerPages) -> None:
        self._booking = booking
        self._pages = pages

    async def begin(self, tenant_id: str, which: EntryFilter, *, size: int = PAGE) -> Export:
        """Fix the entries of an export.

        Args:
            tenant_id: The tenant.
            which: Which of its entries.
            size: Entries of a page.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        as_of = await self._booking.close(tenant_id)
        chosen = replace(which, known_by=as_of)
        return Export(as_of=as_of, pages=self._pages.pages(tenant_id, chosen, size=size))
