"""Looks at sessions from outside of turns: those that come together are one read.

Who looks again says what he knows. Of a session that nobody has changed since, what it has cost is not read again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from godoty_service.errors import GodotyError
from godoty_service.flights import Flights
from godoty_service.mongo import Collection, Document

Version = tuple[str, int]  # our id of a session, and the revision of its fold

# What a turn alone needs stays out: the agent's state and the history's summary.
_FIELDS = (
    *("_id", "tenant_id", "session_id", "user", "model", "message_count"),
    *("fold_revision", "fence", "lease", "unfolded", "create_time", "update_time"),
)
_MOST = 50  # sessions of one read


@dataclass(slots=True)
class _Look:
    tenant_id: str
    session_id: str
    known: Version | None
    found: Document | None = None


class Looks:
    """Reads of sessions.

    Args:
        collection: `sessions`.
    """

    def __init__(self, collection: Collection) -> None:
        self._sessions = collection
        self._flights = Flights(self._together, most=_MOST)

    async def look(self, tenant_id: str, session_id: str, *, known: Version | None) -> Document | None:
        """Read a session; None: there is none.

        It may have no `fold`, but only where that is the known one and no turn runs. Whatever else leaves a fold behind
        the ledger counts its revision up first.
        """
        look = _Look(tenant_id, session_id, known)
        await self._flights.join(look)
        return look.found

    async def _together(self, looks: Sequence[_Look]) -> Sequence[BaseException | None]:
        """Read the sessions of some looks, tenant by tenant; tells for each what went wrong."""
        by_tenant: dict[str, list[_Look]] = {}
        for look in looks:
            by_tenant.setdefault(look.tenant_id, []).append(look)
        faults = await asyncio.gather(*(self._of_tenant(tenant_id, each) for tenant_id, each in by_tenant.items()))
        of_tenant = dict(zip(by_tenant, faults, strict=True))
        return [of_tenant[look.tenant_id] for look in looks]

    async def _of_tenant(self, tenant_id: str, looks: list[_Look]) -> GodotyError | None:
        said: dict[str, set[Version | None]] = {}
        for look in looks:
            said.setdefault(look.session_id, set()).add(look.known)
        # One who does not know it, or knows another one, needs the fold: then all who look at the session get it.
        known = [list(version) for each in said.values() if len(each) == 1 for version in each if version is not None]
        try:
            found = await self._sessions.find(
                {"tenant_id": tenant_id, "session_id": {"$in": list(said)}}, fields=_fields(known), limit=len(said)
            )
        except GodotyError as error:
            return error
        by_id = {each["session_id"]: each for each in found}
        for look in looks:
            look.found = by_id.get(look.session_id)
        return None


def _fields(known: list[list[object]]) -> Document:
    fields: Document = dict.fromkeys(_FIELDS, 1)
    if not known:
        return {**fields, "fold": 1}
    unchanged = [{"$eq": ["$lease", None]}, {"$in": [["$_id", "$fold_revision"], {"$literal": known}]}]
    return {**fields, "fold": {"$cond": [{"$and": unchanged}, "$$REMOVE", "$fold"]}}
