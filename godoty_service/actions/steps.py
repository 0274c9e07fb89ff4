"""Stores the steps of turns that wait for answers. Owns the collection `steps`.

`check_time` is when a server looks at the step next: when its actions expire, or a moment after an answer was stored,
so that the session goes on although the server that stored it has died. A step that is closed has none.
"""

from datetime import datetime, timedelta
from typing import ClassVar

from godoty_service.actions.action import Step
from godoty_service.actions.codec import step_from_document, step_to_document
from godoty_service.clock import Clock, utc_now
from godoty_service.mongo.collection import Collection, Index

_CHECK_AFTER = timedelta(seconds=5)  # after an answer
_LONGEST_PAUSE = timedelta(hours=1)  # between two attempts to go on
_AT_ONCE = 20  # steps of one look


class Steps:
    """Waiting steps, by tenant."""

    COLLECTION = "steps"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("tenant_id", 1), ("session_uid", 1), ("message", -1)]),
        Index(keys=[("check_time", 1)], where={"check_time": {"$exists": True}}),
    )

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._steps = collection
        self._clock = clock

    async def insert(self, step: Step) -> None:
        """Insert a step."""
        await self._steps.insert_one({**step_to_document(step), "check_time": step.expire_time})

    async def get(self, tenant_id: str, step_id: str) -> Step | None:
        """Return a step; None: it is deleted."""
        found = await self._steps.find_one({"_id": step_id, "tenant_id": tenant_id})
        return step_from_document(found) if found else None

    async def newest(self, tenant_id: str, session_uid: str) -> Step | None:
        """Return the newest step of a session; None: it has none."""
        query = {"tenant_id": tenant_id, "session_uid": session_uid}
        found = await self._steps.find_one(query, sort=[("message", -1)])
        return step_from_document(found) if found else None

    async def continue_in(self, step: Step, turn_id: str) -> None:
        """Record that a turn goes on with a step."""
        query = {"_id": step.step_id, "tenant_id": step.tenant_id, "closed": False}
        await self._steps.update_one(query, {"$addToSet": {"turn_ids": turn_id}})

    async def close(self, step: Step) -> None:
        """Record that the session has gone on."""
        query = {"_id": step.step_id, "tenant_id": step.tenant_id}
        await self._steps.update_one(query, {"$set": {"closed": True}, "$unset": {"check_time": 1}})

    async def look_soon(self, step_id: str, tenant_id: str) -> None:
        """Record that an answer is about to be stored: a server looks whether the session can go on."""
        query = {"_id": step_id, "tenant_id": tenant_id, "closed": False}
        await self._steps.update_one(query, {"$min": {"check_time": self._clock() + _CHECK_AFTER}})

    async def due(self) -> list[tuple[Step, datetime]]:
        """Return some steps that a server must look at, each with its check time."""
        query = {"check_time": {"$lte": self._clock()}}
        found = await self._steps.find(query, sort=[("check_time", 1)], limit=_AT_ONCE)
        return [(step_from_document(each), each["check_time"]) for each in found]

    async def claim(self, step: Step, check_time: datetime) -> bool:
        """Take a step that is due, and delay the next look; return False if another server has taken it."""
        pause = min(_LONGEST_PAUSE, _CHECK_AFTER * 2 ** min(step.attempts, 12))
        query = {"_id": step.step_id, "tenant_id": step.tenant_id, "check_time": check_time}
        change = {"$set": {"check_time": self._clock() + pause}, "$inc": {"attempts": 1}}
        return await self._steps.update_one(query, change)

    async def wait_for_answers(self, step: Step) -> None:
        """Look at a step again when its actions expire: some are open."""
        query = {"_id": step.step_id, "tenant_id": step.tenant_id, "closed": False}
        await self._steps.update_one(query, {"$set": {"check_time": step.expire_time, "attempts": 0}})

    async def delete_session(self, tenant_id: str, session_uid: str) -> None:
        """Delete the steps of a session."""
        await self._steps.delete_all({"tenant_id": tenant_id, "session_uid": session_uid})

    async def erase(self, tenant_id: str) -> None:
        """Delete all steps of a tenant."""
        await self._steps.delete_all({"tenant_id": tenant_id})
