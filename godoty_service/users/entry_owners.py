"""Finds the end users of ledger entries that have a name alone, as servers of schema 1 write them."""

from collections.abc import Collection as Some
from collections.abc import Iterable
from typing import Any

from godoty_service.mongo.collection import Collection, Document
from godoty_service.users.references import UserReferences

_NAMED: Document = {"$gt": ""}


class EntryOwners:
    """The end users of entries.

    A name may have had several users, one after the other. A server of schema 1 may write an entry after its user was
    erased: then other entries of its session have the reference. Such a reference is that of the entry, unless it is of
    a user with another name.
    """

    def __init__(self, collection: Collection, users: UserReferences) -> None:
        """Create it.

        Args:
            collection: `ledger`.
            users: The references of names.
        """
        self._ledger = collection
        self._users = users

    async def of(self, tenant_id: str, entries: Iterable[Document], *, create: bool = False) -> dict[str, str]:
        """Return the references of a tenant's entries, by entry id.

        Args:
            tenant_id: The tenant.
            entries: Documents that have a name and no reference: their fields `_id`, `user` and `session_uid`.
            create: Names that have no reference become new users; else entries with such a name are left out.

        Raises:
            StorageError: Some could not be read or inserted.
        """
        named = list(entries)
        of_sessions = await self._references_of_sessions(tenant_id, {each["session_uid"] for each in named})
        names = await self._users.names(tenant_id, {each for some in of_sessions.values() for each in some})
        found: dict[str, str] = {}
        for each in named:
            known = [
                reference
                for reference in of_sessions.get(each["session_uid"], ())
                if names.get(reference, each["user"]) == each["user"]
            ]
            if known:
                found[each["_id"]] = known[0]
        unknown = {each["user"] for each in named if each["_id"] not in found}
        resolve = self._users.of_names if create else self._users.owners
        by_name = await resolve(tenant_id, unknown) if unknown else {}
        for each in named:
            if each["_id"] not in found and each["user"] in by_name:
                found[each["_id"]] = by_name[each["user"]]
        return found

    async def _references_of_sessions(self, tenant_id: str, session_uids: Some[str]) -> dict[str, list[str]]:
        query = {"tenant_id": tenant_id, "session_uid": {"$in": sorted(session_uids)}, "user_reference": _NAMED}
        group: dict[str, Any] = {"_id": "$session_uid", "references": {"$addToSet": "$user_reference"}}
        found = await self._ledger.aggregate([{"$match": query}, {"$group": group}])
        return {each["_id"]: sorted(each["references"]) for each in found}
