"""Applies an adjustment to its tenant's budget exactly once, without a transaction and whichever server dies.

An adjustment is inserted with the mark `unapplied`. The budget document has one slot for corrections:

1. If the slot is occupied, complete its adjustment first: mark it as applied, then clear the slot.
2. Read the empty slot, then whether the adjustment is still marked. If it is, it has not been applied yet.
3. Add its charge and write its id to the slot in one update, which matches only the slot's revision that was read.
4. Mark the adjustment as applied, then clear the slot.

A server that stops at any point leaves behind a marked adjustment, an occupied slot, or both; the next correction or
maintenance run continues from there.
"""

from godoty_service.budgets.store import BudgetStore
from godoty_service.ledger.adjustment_store import AdjustmentStore
from godoty_service.ledger.entries import Adjustment


async def apply_adjustment(adjustment: Adjustment, *, budgets: BudgetStore, adjustments: AdjustmentStore) -> None:
    """Apply an adjustment, unless it is applied already, and mark it as applied.

    Raises:
        StorageUnavailable: It may not have been applied; it stays marked.
    """
    tenant_id = adjustment.tenant_id
    while True:
        slot = await budgets.corrections.get(tenant_id)
        if slot is None:  # no budget was ever set; the opening balance of a later one includes the adjustment
            await adjustments.mark_applied(tenant_id, adjustment.entry_id)
            return
        if slot.adjustment_id is not None:
            await adjustments.mark_applied(tenant_id, slot.adjustment_id)
            await budgets.corrections.end(tenant_id, slot)
        elif await adjustments.is_unapplied(tenant_id, adjustment.entry_id):
            await budgets.corrections.begin(tenant_id, slot, adjustment)
        else:
            return
