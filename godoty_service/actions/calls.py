"""Stores the tool calls of waiting steps. Owns the collection `actions`.

Each change is one update of one document, with a condition on its state: an answer counts once, and a tool is started
once. A call is stored before readers see that it waits.
"""

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, ClassVar

from godoty_service.actions.action import ActionState, Answer, Callee, Decider, Decision, StepCall, Verdict
from godoty_service.actions.codec import (
    call_from_document,
    call_to_document,
    callee_to_document,
    decision_to_document,
    result_to_text,
)
from godoty_service.actions.errors import ActionClosed, ActionDecided, ActionExpired, ActionNotFound, ReviewerOnly
from godoty_service.clock import Clock, utc_now
from godoty_service.mongo.collection import Collection, Document, Index

_ASKS: Document = {"asks": True}
_PAGE_BATCH = 16  # actions of a page that are read at once


class StepCalls:
    """The calls of waiting steps, by tenant."""

    COLLECTION = "actions"
    INDEXES: ClassVar[tuple[Index, ...]] = (
        Index(keys=[("step_id", 1), ("path", 1), ("number", 1), ("place", 1)], unique=True),
        Index(keys=[("tenant_id", 1), ("session_uid", 1), ("_id", -1)]),
        Index(keys=[("tenant_id", 1), ("_id", -1)], where=_ASKS),
        Index(keys=[("tenant_id", 1), ("state", 1), ("_id", -1)], where=_ASKS),
    )

    def __init__(self, collection: Collection, *, clock: Clock = utc_now) -> None:
        self._calls = collection
        self._clock = clock

    async def insert(self, calls: Sequence[StepCall]) -> None:
        """Insert the calls of a step."""
        await self._calls.insert_many([{**call_to_document(each), **(_ASKS if each.asks else {})} for each in calls])

    async def of_step(self, tenant_id: str, step_id: str) -> list[StepCall]:
        """Return the calls of a step, in order."""
        query = {"step_id": step_id, "tenant_id": tenant_id}
        found = await self._calls.find(query, sort=[("path", 1), ("number", 1), ("place", 1)])
        return [call_from_document(each) for each in found]

    async def get(self, tenant_id: str, action_id: str) -> StepCall:
        """Return an action.

        Raises:
            ActionNotFound: The tenant has no such action.
        """
        found = await self._calls.find_one({"_id": action_id, "tenant_id": tenant_id, **_ASKS})
        if found is None:
            raise ActionNotFound.of(action_id)
        return call_from_document(found)

    async def page(
        self,
        tenant_id: str,
        *,
        session_uid: str | None,
        state: ActionState | None,
        before: str | None,
        limit: int,
        most_bytes: int,
    ) -> list[StepCall]:
        """Return the newest actions of a tenant, or of one of its sessions, that are older than the action `before`.

        No more are read once their texts exceed `most_bytes`: an input may have a megabyte.
        """
        query: Document = {"tenant_id": tenant_id, **_ASKS}
        query |= {"session_uid": session_uid} if session_uid is not None else {}
        query |= {"state": state.value} if state is not None else {}
        query |= {"_id": {"$lt": before}} if before is not None else {}
        fields = {"callee": 0, "result": 0}
        found: list[StepCall] = []
        size = 0
        documents = self._calls.iterate(query, sort=[("_id", -1)], limit=limit, fields=fields, batch=_PAGE_BATCH)
        async with aclosing(documents):
            async for each in documents:
                found.append(call_from_document(each))
                size += len(each["input_json"])
                if size > most_bytes:
                    break
        return found

    async def decide(self, action: StepCall, answer: Answer, decider: Decider) -> StepCall:
        """Store the answer to an open action, once; return the action. The same answer again changes nothing.

        Raises:
            ReviewerOnly: The key lacks the scope approve, which the action needs.
            ActionDecided: It has another answer, or one of another key or user.
            ActionExpired: No answer came in time.
            ActionClosed: The session has gone on without the action.
        """
        self.check(action, answer, decider)
        now = self._clock()
        decision = Decision(answer=answer, key_id=decider.key_id, user=decider.user, time=now)
        query = {"_id": action.call_id, "tenant_id": action.tenant_id, "state": ActionState.OPEN.value}
        change = {"$set": {"state": ActionState.DECIDED.value, "decision": decision_to_document(decision)}}
        found = await self._calls.find_one_and_update({**query, "expire_time": {"$gt": now}}, change)
        if found is not None:
            return call_from_document(found)
        current = await self.get(action.tenant_id, action.call_id)
        self.check(current, answer, decider)
        return current

    def check(self, action: StepCall, answer: Answer, decider: Decider) -> None:
        """Check that an action is open, or has this very answer.

        Raises:
            ReviewerOnly, ActionDecided, ActionExpired, ActionClosed: As `decide` does.
        """
        if action.reviewer and not decider.reviews:
            raise ReviewerOnly.of(action.call_id)
        known = action.decision
        match action.state:
            case ActionState.OPEN if action.expire_time <= self._clock():
                raise ActionExpired.of(action.call_id)
            case ActionState.EXPIRED:
                raise ActionExpired.of(action.call_id)
            case ActionState.CLOSED:
                raise ActionClosed.of(action.call_id, turn_id=action.next_turn_id)
            case ActionState.DECIDED if known is not None:
                if (known.answer, known.key_id, known.user) != (answer, decider.key_id, decider.user):
                    raise ActionDecided.of(action.call_id, key_id=known.key_id)

    async def expire(self, tenant_id: str, step_id: str) -> None:
        """Let the open actions of a step expire."""
        query = {"step_id": step_id, "tenant_id": tenant_id, "state": ActionState.OPEN.value}
        await self._calls.update_many(query, {"$set": {"state": ActionState.EXPIRED.value}})

    async def close(self, tenant_id: str, step_id: str, *, turn_id: str = "") -> None:
        """Close the actions of a step that were not carried out; denials and outputs of client tools remain.

        Args:
            tenant_id: The tenant.
            step_id: The step.
            turn_id: The turn that goes on without them; empty: none does.
        """
        states = {"$in": [ActionState.OPEN.value, ActionState.DECIDED.value]}
        query = {"step_id": step_id, "tenant_id": tenant_id, "state": states, "result": {"$exists": False}}
        query |= {"decision.answer.verdict": {"$nin": [Verdict.DENY.value, Verdict.OUTPUT.value]}}
        fields = {"state": ActionState.CLOSED.value, **({"next_turn_id": turn_id} if turn_id else {})}
        await self._calls.update_many(query, {"$set": fields})

    async def close_others(self, tenant_id: str, session_uid: str, step_id: str) -> None:
        """Close the open actions of a session that are of no step but one: their server died before they counted."""
        query = {"tenant_id": tenant_id, "session_uid": session_uid, "step_id": {"$ne": step_id}}
        change = {"$set": {"state": ActionState.CLOSED.value}}
        await self._calls.update_many({**query, "state": ActionState.OPEN.value}, change)

    async def name_turn(self, tenant_id: str, step_id: str, turn_id: str) -> None:
        """Record which turn takes the answers of a step: those that no turn has taken."""
        query = {"step_id": step_id, "tenant_id": tenant_id, **_ASKS, "state": {"$ne": ActionState.OPEN.value}}
        await self._calls.update_many({**query, "result": {"$exists": False}}, {"$set": {"next_turn_id": turn_id}})

    async def start(self, call: StepCall) -> bool:
        """Record that the tool of a call is about to run; return False if it was started before."""
        query = {"_id": call.call_id, "tenant_id": call.tenant_id, "started": call.started}
        return await self._calls.update_one(query, {"$set": {"started": True}})

    async def finish(self, call: StepCall, result: dict[str, Any]) -> None:
        """Store the result of a call."""
        query = {"_id": call.call_id, "tenant_id": call.tenant_id}
        await self._calls.update_one(query, {"$set": {"result": result_to_text(result)}, "$unset": {"callee": 1}})

    async def suspend(self, call: StepCall, callee: Callee) -> None:
        """Record that the sub-agent of a call waits."""
        query = {"_id": call.call_id, "tenant_id": call.tenant_id}
        await self._calls.update_one(query, {"$set": {"started": True, "callee": callee_to_document(callee)}})

    async def leave(self, call: StepCall) -> None:
        """Record that the sub-agent of a call has gone on from where it waited."""
        query = {"_id": call.call_id, "tenant_id": call.tenant_id}
        await self._calls.update_one(query, {"$unset": {"callee": 1}})

    async def delete_session(self, tenant_id: str, session_uid: str) -> None:
        """Delete the calls of a session."""
        await self._calls.delete_all({"tenant_id": tenant_id, "session_uid": session_uid})

    async def erase(self, tenant_id: str) -> None:
        """Delete all calls of a tenant."""
        await self._calls.delete_all({"tenant_id": tenant_id})
