"""The unresolved calls of which webhooks are to be notified.

The entry has the mark from the update on that closes it as unresolved, so no call is unresolved without it. It is
removed once the deliveries are stored.
"""

from collections.abc import Sequence
from typing import Final

from godoty_service.ledger.codec import call_from_document
from godoty_service.ledger.entries import ModelCall
from godoty_service.mongo.collection import Collection, Document

PENDING: Final[Document] = {"outbox": True}


class UnresolvedOutbox:
    """The calls that are pending. `Ledger` owns the collection."""

    def __init__(self, entries: Collection) -> None:
        """Create it.

        Args:
            entries: `ledger`.
        """
        self._entries = entries

    async def pending(self, *, limit: int) -> list[ModelCall]:
        """Return some pending calls."""
        return [call_from_document(each) for each in await self._entries.find(PENDING, limit=limit)]

    async def remove(self, calls: Sequence[ModelCall]) -> None:
        """Remove calls whose deliveries are stored."""
        ids = [each.call_id for each in calls]
        await self._entries.update_many({**PENDING, "_id": {"$in": ids}}, {"$unset": {"outbox": ""}})

    async def forget_user(self, tenant_id: str, user_reference: str) -> None:
        """Remove the pending calls of an end user."""
        query = {**PENDING, "tenant_id": tenant_id, "user_reference": user_reference}
        await self._entries.update_many(query, {"$unset": {"outbox": ""}})
