"""The slots of tenants' budgets through which adjustments are applied, one at a time (`corrections.py`)."""

from dataclasses import dataclass
from datetime import datetime

from godoty_service.budgets.calendar import CalendarOf
from godoty_service.budgets.charges import adjustment_charge
from godoty_service.budgets.document import adjustment_change, latest_change
from godoty_service.ledger.entries import Adjustment
from godoty_service.mongo.collection import Collection, Document


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionSlot:
    """The slot of a tenant's budget.

    Attributes:
        revision: The number of corrections so far.
        adjustment_id: The adjustment that was added but may not be marked as applied; None: the slot is empty.
        since: Earlier adjustments are included in the opening balance.
    """

    revision: int
    adjustment_id: str | None
    since: datetime


class CorrectionSlots:
    """Reads and writes the slots, in the documents of `BudgetStore`."""

    def __init__(self, budgets: Collection, calendar_of: CalendarOf) -> None:
        self._budgets = budgets
        self._calendar_of = calendar_of

    async def get(self, tenant_id: str) -> CorrectionSlot | None:
        """Return the slot of a tenant's budget; None: the tenant is not tracked."""
        found = await self._budgets.find_one({"_id": tenant_id}, fields={"since": 1, "correction": 1})
        if found is None:
            return None
        last = found.get("correction") or {}
        return CorrectionSlot(
            revision=last.get("revision", 0), adjustment_id=last.get("adjustment_id"), since=found["since"]
        )

    async def begin(self, tenant_id: str, slot: CorrectionSlot, adjustment: Adjustment) -> bool:
        """Add the charge of an adjustment, in the windows of its call's start that are not pruned.

        Returns False if another correction has started since the slot was read. An adjustment before `since` is in the
        opening balance and adds nothing.
        """
        started = {"revision": slot.revision + 1, "adjustment_id": adjustment.entry_id}
        later = {"$lte": ["$since", adjustment.time]}
        keys = (await self._calendar_of(tenant_id)).keys(adjustment.start_time)
        added = adjustment_change(keys, adjustment_charge(adjustment), condition=later)
        return await self._budgets.update_one(
            {"_id": tenant_id, **_unchanged(slot), "correction.adjustment_id": None},
            [{"$set": {**added, **latest_change(adjustment.time), "correction": {"$literal": started}}}],
        )

    async def end(self, tenant_id: str, slot: CorrectionSlot) -> None:
        """Clear the slot, whose adjustment is marked as applied."""
        await self._budgets.update_one(
            {"_id": tenant_id, "correction.revision": slot.revision}, {"$set": {"correction.adjustment_id": None}}
        )


def _unchanged(slot: CorrectionSlot) -> Document:
    return {"correction.revision": slot.revision} if slot.revision else {"correction": None}
