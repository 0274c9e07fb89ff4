"""Reads sessions outside of turns: concurrent reads share one query.

A caller that reads a session again passes the version that it has. The totals of a session that has not changed since
are not read again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from godoty_service.aio.batching import Batcher
from godoty_service.errors import GodotyError
from godoty_service.mongo.collection import Collection, Document

Version = tuple[str, int]  # the session's uid, and the revision of its totals

# Fields that only a turn needs are not read: the agent's state and the history's summary.
_FIELDS = (
    *("_id", "tenant_id", "session_id", "user", "user_reference", "model", "agent", "agent_version"),
    *("message_count", "origin"),
    *("totals_revision", "fence", "lease", "totals_stale", "create_time", "update_time"),
)
_MAX_BATCH = 50  # sessions of one query


@dataclass(slots=True)
class _Read:
    tenant_id: str
    session_id: str
    known: Version | None
    found: Document | None = None


class SessionReader:
    """Reads sessions in batches.

    Args:
        collection: The collection `sessions`.
    """

    def __init__(self, collection: Collection) -> None:
        self._sessions = collection
        self._batcher = Batcher(self._read_batch, max_size=_MAX_BATCH)

    async def read(self, tenant_id: str, session_id: str, *, known: Version | None) -> Document | None:
        """Return a session's document; None: there is none.

        Its field `totals` is missing only if the known version is current and no turn runs. Every writer that leaves
        totals behind the ledger increments their revision first.
        """
        read = _Read(tenant_id, session_id, known)
        await self._batcher.submit(read)
        return read.found

    async def _read_batch(self, reads: Sequence[_Read]) -> Sequence[BaseException | None]:
        """Read the sessions of a batch, by tenant; return an error or None for each read."""
        by_tenant: dict[str, list[_Read]] = {}
        for read in reads:
            by_tenant.setdefault(read.tenant_id, []).append(read)
        errors = await asyncio.gather(*(self._read_tenant(tenant_id, each) for tenant_id, each in by_tenant.items()))
        error_of = dict(zip(by_tenant, errors, strict=True))
        return [error_of[read.tenant_id] for read in reads]

    async def _read_tenant(self, tenant_id: str, reads: list[_Read]) -> GodotyError | None:
        versions: dict[str, set[Version | None]] = {}
        for read in reads:
            versions.setdefault(read.session_id, set()).add(read.known)
        # If one reader of a session knows no version or another one, its totals are read for all of its readers.
        known = [list(each) for single in versions.values() if len(single) == 1 for each in single if each is not None]
        try:
            found = await self._sessions.find(
                {"tenant_id": tenant_id, "session_id": {"$in": list(versions)}},
                fields=_fields(known),
                limit=len(versions),
            )
        except GodotyError as error:
            return error
        by_id = {each["session_id"]: each for each in found}
        for read in reads:
            read.found = by_id.get(read.session_id)
        return None


def _fields(known: list[list[object]]) -> Document:
    fields: Document = dict.fromkeys(_FIELDS, 1)
    if not known:
        return {**fields, "totals": 1}
    unchanged = [{"$eq": ["$lease", None]}, {"$in": [["$_id", "$totals_revision"], {"$literal": known}]}]
    return {**fields, "totals": {"$cond": [{"$and": unchanged}, "$$REMOVE", "$totals"]}}
