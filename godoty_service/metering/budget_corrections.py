"""Counts an adjustment in its tenant's budget exactly once, whatever dies in between, without a transaction.

An adjustment is inserted with the mark `unapplied`. The budget's document has one slot for corrections:

1. If the slot is taken, finish its adjustment first: mark it as applied, then free the slot.
2. Read the slot, which is free, then whether the adjustment is still marked. If it is, it is not counted yet.
3. Add its amount and put it into the slot in one update, if the slot's revision is still the one that was read.
4. Mark the adjustment as applied, then free the slot.

A server that stops anywhere leaves a marked adjustment, a taken slot, or both; the next correction or sweep goes on.
"""

from godoty_service.metering.adjustment_store import AdjustmentStore
from godoty_service.metering.budgets import Budgets
from godoty_service.metering.call import Adjustment


async def count_adjustment(adjustment: Adjustment, *, budgets: Budgets, adjustments: AdjustmentStore) -> None:
    """Count an adjustment, unless it is counted, and mark it as applied.

    Raises:
        StorageUnavailable: It may not be counted; it stays marked.
    """
    tenant_id = adjustment.tenant_id
    while True:
        slot = await budgets.correction(tenant_id)
        if slot is None:  # no budget was ever set; a later one begins with a statement that has the adjustment
            await adjustments.mark_applied(tenant_id, adjustment.entry_id)
            return
        if slot.adjustment_id is not None:
            await adjustments.mark_applied(tenant_id, slot.adjustment_id)
            await budgets.end_correction(tenant_id, slot)
        elif await adjustments.is_unapplied(tenant_id, adjustment.entry_id):
            await budgets.begin_correction(tenant_id, slot, adjustment)
        else:
            return
