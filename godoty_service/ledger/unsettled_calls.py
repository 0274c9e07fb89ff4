"""Finds a tenant's calls whose generation records may still state what they cost.

The partial indexes of such calls have those of all tenants, and no closed or resolved ones of long ago are examined.
"""

from collections.abc import Collection as Some
from datetime import datetime, timedelta

from godoty_service.ids import first_id
from godoty_service.ledger.states import state_query
from godoty_service.mongo.collection import Collection, Document

OPEN, UNRESOLVED = state_query("open"), state_query("unresolved")
# Keys of partial indexes, for hints: a query without a condition on the first key would scan the ledger.
BY_DUE, BY_UNRESOLVED = (("due", 1),), (("_id", 1), ("state", 1))
_LONGEST_OPEN = timedelta(days=15)  # a turn takes at most 7 days, and so does the wait for a record


class UnsettledCalls:
    """The open calls of tenants, and those that were unresolved lately."""

    def __init__(self, collection: Collection) -> None:
        """Create it.

        Args:
            collection: `ledger`, which `Ledger` owns.
        """
        self._entries = collection

    async def any_open(self, tenant_id: str | None = None) -> bool:
        """Return whether a tenant, or any, has pending calls; the pending calls of all tenants may be examined."""
        query = OPEN if tenant_id is None else {**OPEN, "tenant_id": tenant_id}
        return await self._entries.find_one(query, fields={"_id": 1}, hint=BY_DUE) is not None

    async def any_unresolved(self, tenant_id: str, *, provider_key_ids: Some[str], since: datetime) -> bool:
        """Return whether a tenant has calls that became unresolved at a time or later, and are not resolved since.

        Args:
            tenant_id: The tenant.
            provider_key_ids: Only calls that were made with one of these keys.
            since: The time.
        """
        calls: Document = {
            **UNRESOLVED,
            "_id": {"$gte": first_id("call", made=since - _LONGEST_OPEN)},
            "tenant_id": tenant_id,
            "provider_key_id": {"$in": list(provider_key_ids)},
            "settle_time": {"$gte": since},
        }
        resolutions = {
            "from": self._entries.name,
            "localField": "_id",
            "foreignField": "corrects",
            "as": "resolutions",
            "pipeline": [{"$match": {"resolves": True}}, {"$project": {"_id": 1}}],
        }
        found = await self._entries.aggregate(
            [
                {"$match": calls},
                {"$lookup": resolutions},
                {"$match": {"resolutions": []}},
                {"$limit": 1},
                {"$project": {"_id": 1}},
            ],
            hint=BY_UNRESOLVED,
        )
        return bool(found)
