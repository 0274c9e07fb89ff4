"""Which shares of budgets were reported. Owns `webhook_budget_marks`, one document per tenant."""

from collections.abc import Sequence

from godoty_service.budgets.thresholds import Mark, Marks
from godoty_service.mongo.collection import Collection

_MOST = 500  # of a tenant: those of the latest windows remain


class BudgetMarks:
    """Marks by tenant."""

    COLLECTION = "webhook_budget_marks"

    def __init__(self, collection: Collection) -> None:
        """Create the store.

        Args:
            collection: `webhook_budget_marks`.
        """
        self._documents = collection

    async def read(self, tenant_ids: Sequence[str]) -> dict[str, Marks]:
        """Return the marks of those of some tenants that have any."""
        found = await self._documents.find({"_id": {"$in": list(tenant_ids)}})
        return {each["_id"]: {(mark[0], mark[1], mark[2]): mark[3] for mark in each["marks"]} for each in found}

    async def raise_to(self, tenant_id: str, known: Marks, reached: Marks) -> None:
        """Raise marks to the shares that were reached.

        Args:
            tenant_id: The tenant.
            known: The marks as they were read.
            reached: The shares.
        """
        raised: dict[Mark, int] = {**known}
        for mark, percent in reached.items():
            raised[mark] = max(percent, raised.get(mark, 0))
        latest = sorted(raised.items(), key=lambda each: each[0][1])[-_MOST:]
        marks = [[*mark, percent] for mark, percent in latest]
        await self._documents.update_one({"_id": tenant_id}, {"$set": {"marks": marks}}, upsert=True)

    async def erase(self, tenant_id: str) -> None:
        """Delete the marks of a tenant."""
        await self._documents.delete_one({"_id": tenant_id})
