"""What must hold once a fault load is over: sessions with answered actions go on, and each session can be continued."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from godoty.v1 import turn_pb2

from godoty_service.bootstrap.components import Components
from godoty_service.mongo.collection import Document
from tests.faults.load_agents import CLERK, MANAGER
from tests.faults.load_client import LoadClient
from tests.support.history import assert_valid_history
from tests.support.service import PATIENCE

_AT_ONCE = 4


async def conclude(components: Components, client: LoadClient, tenant_id: str) -> list[str]:
    """Let a tenant's sessions go on, then continue each that has asked or was forked; return what is wrong."""
    findings = await _go_on(components, tenant_id)
    limit = asyncio.Semaphore(_AT_ONCE)

    async def check(session_id: str) -> str:
        async with limit:
            return await _continue(client, session_id)

    found = await asyncio.gather(*[check(each) async for each in _sessions(components, tenant_id)])
    return [*findings, *filter(None, found)]


async def _go_on(components: Components, tenant_id: str) -> list[str]:
    """Wait until no session waits whose actions are all answered; return those that do not go on.

    A server looks at such a step after some seconds, later and later. The times are moved, so that no test waits.
    """
    steps = components.database.collection("steps")
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while waiting := [each async for each in _answered(components, tenant_id)]:
        if asyncio.get_running_loop().time() > deadline:
            return [f"{each['session_id']} does not go on: {each['_id']} is answered" for each in waiting]
        for each in waiting:
            now = await components.database.now()
            await steps.update_one({"_id": each["_id"], "closed": False}, {"$set": {"check_time": now}})
        await asyncio.sleep(0.5)
    return []


async def _answered(components: Components, tenant_id: str) -> AsyncIterator[Document]:
    """Yield the steps in which a session waits although no action of them is open."""
    database = components.database
    actions, messages = database.collection("actions"), database.collection("messages")
    for step in await database.collection("steps").find({"tenant_id": tenant_id, "closed": False}):
        if await actions.count({"step_id": step["_id"], "asks": True, "state": "open"}):
            continue
        session = {"tenant_id": tenant_id, "session_uid": step["session_uid"]}
        last = await messages.find_one(session, sort=[("number", -1)], fields={"number": 1})
        if last is not None and last["number"] == step["message"]:
            yield step


async def _sessions(components: Components, tenant_id: str) -> AsyncIterator[str]:
    """Yield the ids of the sessions that may have asked, and of the forks."""
    asking: Document = {"$or": [{"agent": {"$in": [CLERK, MANAGER]}}, {"origin": {"$type": "object"}}]}
    query = {"tenant_id": tenant_id, "incomplete": {"$ne": True}, **asking}
    for each in await components.database.collection("sessions").find(query, fields={"session_id": 1}):
        yield each["session_id"]


async def _continue(client: LoadClient, session_id: str) -> str:
    """Send a message of a session; return what is wrong with it then, or an empty text.

    Again, if a server has lost touch with the database meanwhile, which says so.
    """
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        ended = await client.say(session_id, "and now? @sandbox plain tokens=2", wait=True)
        if ended.status not in ("ABORTED", "UNAVAILABLE") or asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.5)
    if (ended.status, ended.stop_reason) != ("OK", turn_pb2.STOP_REASON_END_TURN):
        return f"the session {session_id} cannot be continued: {ended}"
    messages: Sequence[object] = await client.messages(session_id)
    try:
        assert_valid_history(messages)  # type: ignore[arg-type]
    except AssertionError as error:
        return f"the session {session_id} has a history that no provider takes: {error}"
    return ""
