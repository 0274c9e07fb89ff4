"""Stores the adjustments that correct final calls, in the collection `ledger`."""

from godoty_service.errors import DuplicateKey
from godoty_service.ledger.codec import entry_from_document, new_entry_document
from godoty_service.ledger.entries import Adjustment, ModelCall
from godoty_service.mongo.collection import Collection, Document


class AdjustmentStore:
    """Inserts adjustments and finds them by tenant, id and call."""

    def __init__(self, collection: Collection) -> None:
        self._entries = collection

    async def get(self, tenant_id: str, entry_id: str) -> Adjustment | None:
        """Return an adjustment, or None."""
        return _decode(await self._entries.find_one(_one(tenant_id, entry_id)))

    async def of_call(self, call: ModelCall) -> list[Adjustment]:
        """Return all adjustments of a call, the oldest first."""
        query = {"corrects": call.call_id, "tenant_id": call.tenant_id, "kind": "adjustment"}
        found = await self._entries.find(query, sort=[("number", 1)])
        return [each for document in found if (each := _decode(document)) is not None]

    async def insert(self, adjustment: Adjustment) -> bool:
        """Insert an adjustment under exactly its number; return False if another entry has that number.

        Raises:
            DuplicateKey: An entry of its id exists.
            StorageUnavailable: The outcome of the insert is unknown.
        """
        try:
            await self._entries.insert_one(new_entry_document(adjustment))
        except DuplicateKey:
            if await self._entries.find_one({"_id": adjustment.entry_id}, fields={"_id": 1}):
                raise
            return False
        return True

    async def unapplied(self, *, limit: int) -> list[Adjustment]:
        """Return adjustments of all tenants that their session's totals or their tenant's budget may lack."""
        found = await self._entries.find({"unapplied": True}, limit=limit)
        return [each for document in found if (each := _decode(document)) is not None]

    async def is_unapplied(self, tenant_id: str, entry_id: str) -> bool:
        """Return whether its session's totals or its tenant's budget may lack an adjustment."""
        query = {**_one(tenant_id, entry_id), "unapplied": True}
        return await self._entries.find_one(query, fields={"_id": 1}) is not None

    async def mark_applied(self, tenant_id: str, entry_id: str) -> None:
        """Record that its session's totals and its tenant's budget include an adjustment."""
        await self._entries.update_one(_one(tenant_id, entry_id), {"$unset": {"unapplied": ""}})


def sums_of_adjustments(name: str, calls: Document) -> list[Document]:
    """Return the pipeline that sums the adjustments of the matching calls.

    It starts at the adjustments, which are few, and looks up the call of each.

    Args:
        name: The name of the ledger's collection.
        calls: Conditions on the calls, by field.
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


def _decode(document: Document | None) -> Adjustment | None:
    entry = entry_from_document(document) if document else None
    return entry if isinstance(entry, Adjustment) else None
