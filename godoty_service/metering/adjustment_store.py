"""The ledger's adjustments: what corrects calls that are final. They stand in the collection `ledger`."""

from godoty_service.errors import DuplicateKey
from godoty_service.metering.call import Adjustment, ModelCall
from godoty_service.metering.documents import entry_from_document, new_entry_document
from godoty_service.mongo import Collection, Document


class AdjustmentStore:
    """Adjustments by tenant, id and call."""

    def __init__(self, collection: Collection) -> None:
        self._entries = collection

    async def get(self, tenant_id: str, entry_id: str) -> Adjustment | None:
        """Return an adjustment, or None."""
        return _read(await self._entries.find_one(_one(tenant_id, entry_id)))

    async def of_call(self, call: ModelCall) -> list[Adjustment]:
        """Return all adjustments of a call, the oldest first."""
        query = {"corrects": call.call_id, "tenant_id": call.tenant_id, "kind": "adjustment"}
        found = await self._entries.find(query, sort=[("number", 1)])
        return [each for document in found if (each := _read(document)) is not None]

    async def insert(self, adjustment: Adjustment) -> bool:
        """Insert an adjustment under exactly its number; return False if another entry has that number.

        Raises:
            DuplicateKey: There is an entry of its id.
            StorageUnavailable: It is not known to be inserted.
        """
        try:
            await self._entries.insert_one(new_entry_document(adjustment))
        except DuplicateKey:
            if await self._entries.find_one({"_id": adjustment.entry_id}, fields={"_id": 1}):
                raise
            return False
        return True

    async def unapplied(self, *, limit: int) -> list[Adjustment]:
        """Return adjustments of all tenants that may lack in their session's sums or their tenant's budget."""
        found = await self._entries.find({"unapplied": True}, limit=limit)
        return [each for document in found if (each := _read(document)) is not None]

    async def is_unapplied(self, tenant_id: str, entry_id: str) -> bool:
        """Return whether an adjustment may lack in its session's sums or its tenant's budget."""
        query = {**_one(tenant_id, entry_id), "unapplied": True}
        return await self._entries.find_one(query, fields={"_id": 1}) is not None

    async def mark_applied(self, tenant_id: str, entry_id: str) -> None:
        """Record that the session's sums and the tenant's budget have an adjustment."""
        await self._entries.update_one(_one(tenant_id, entry_id), {"$unset": {"unapplied": ""}})


def sums_of_adjustments(name: str, calls: Document) -> list[Document]:
    """Express the sum of what adjusts some calls: adjustments are few, and each leads to its call.

    Args:
        name: The ledger's collection.
        calls: Which calls, by fields and their conditions.
    """
    resolved = {"$sum": {"$cond": ["$resolves", 1, 0]}}
    return [
        {"$match": {"corrects": {"$exists": True}}},
        {"$lookup": {"from": name, "localField": "corrects", "foreignField": "_id", "as": "call"}},
        {"$match": {f"call.{field}": wanted for field, wanted in calls.items()}},
        {"$group": {"_id": None, "cost": {"$sum": "$cost"}, "resolved": resolved}},
    ]


def _one(tenant_id: str, entry_id: str) -> Document:
    return {"_id": entry_id, "tenant_id": tenant_id, "kind": "adjustment"}


def _read(document: Document | None) -> Adjustment | None:
    entry = entry_from_document(document) if document else None
    return entry if isinstance(entry, Adjustment) else None
