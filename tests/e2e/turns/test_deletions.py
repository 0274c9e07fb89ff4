"""A deletion that has begun completes, even if its caller or its server is gone."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from godoty_service.mongo.client import open_database
from godoty_service.turns.event_log.events import TextDelta
from godoty_service.turns.event_log.store import Chunk, EventLogStore, Outcome
from godoty_service.turns.session_deletion import SessionDeletions
from tests.conftest import Start
from tests.e2e.turns.streams import SLOW, insert_messages, until_text
from tests.support.caller import Caller, Failure, failure_of
from tests.support.service import Service, eventually, soon


async def delete(caller: Caller, session_id: str = "talk", *, deadline: float = 90.0) -> None:
    """Delete a session."""
    request = pb.DeleteSessionRequest(session_id=session_id)
    await caller.stub.DeleteSession(request, metadata=caller.service.metadata, timeout=deadline)


@pytest.mark.parametrize("deadline_ms", [5, 20, 60])
async def test_deletion_completes_after_callers_deadline(caller: Caller, deadline_ms: int) -> None:
    """A deadline that passes during a deletion leaves no locked and no partly deleted session."""
    for number in range(3):
        session_id = f"talk-{number}"
        await caller.converse("hi", session_id=session_id)
        insert_messages(caller.service, session_id, 2_000)
        old = caller.service.session(session_id)
        assert old is not None
        with suppress(grpc.aio.AioRpcError):  # unless it was faster
            await delete(caller, session_id, deadline=deadline_ms / 1000)
        turn = await caller.converse("and now?", session_id=session_id, on_busy=turn_pb.ON_BUSY_WAIT)

        assert turn.failure is None
        left = caller.service.database["messages"].count_documents({"session_uid": old["_id"]})
        assert left == (0 if turn.started.session_created else 2_004)  # deleted, or not begun


async def test_dead_servers_deletion_is_finished_by_later_call(caller: Caller, second_caller: Caller) -> None:
    """A session with an unfinished deletion is deleted by the next call to any server, with its dead turns' data."""
    for session_id, client in (("one", caller), ("two", second_caller)):
        await caller.converse("hi", session_id=session_id)
        await soon(partial(_leave, caller.service, session_id))
        await delete(client, session_id)

        assert caller.service.session(session_id) is None
        which = {"tenant_id": caller.service.tenant_id, "session_id": session_id}
        assert caller.service.database["turns"].count_documents(which) == 0
    missing = await failure_of(delete(caller, "one"))
    assert (missing.code, missing.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


def _leave(service: Service, session_id: str) -> bool:
    """Create the state that a server leaves which dies in a deletion, after another that died in a turn."""
    dead = {"turn_id": f"turn_dead_{session_id}", "replica_id": "", "text": "lost"}
    lease = {"turn_id": "del_1", "replica_id": "replica_dead", "text": "", "predecessors": [dead]}
    query = {"tenant_id": service.tenant_id, "session_id": session_id, "lease": None}
    if service.database["sessions"].update_one(query, {"$set": {"lease": lease}, "$inc": {"fence": 1}}).matched_count:
        service.database["turns"].insert_one(
            {
                "_id": dead["turn_id"],
                **{name: query[name] for name in ("tenant_id", "session_id")},
                "fingerprint": "",
                "replica_id": "replica_dead",
                "cancel": False,
                "expire_time": datetime.now(UTC) + timedelta(hours=1),
            }
        )
        return True
    return False


async def test_concurrent_deletions_of_session_share_one(caller: Caller) -> None:
    """Concurrent calls are all answered when the session is deleted."""
    await caller.converse("hi")
    insert_messages(caller.service, "talk", 2_000)
    outcomes = await asyncio.gather(*(delete(caller) for _ in range(8)), return_exceptions=True)

    for outcome in outcomes:
        assert outcome is None or (
            isinstance(outcome, grpc.aio.AioRpcError) and outcome.code() is grpc.StatusCode.NOT_FOUND
        )
    assert outcomes.count(None) >= 1
    assert caller.service.session("talk") is None


async def test_session_with_a_running_turn_is_not_deleted(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """The call is SESSION_BUSY at once, and the turn continues."""
    caller = connect(await serve())
    call = caller.start(SLOW)
    await until_text(call, "t0 ")
    busy = await failure_of(delete(caller))

    assert (busy.code, busy.reason) == (grpc.StatusCode.ABORTED, "SESSION_BUSY")
    await until_text(call, "t1 ")
    call.cancel()


async def test_fault_in_deletion_is_internal_and_retried_deletion_completes(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the request id under which the log has the cause."""
    caller = connect(await serve())
    await caller.converse("hi")
    with monkeypatch.context() as broken, capture_logs([merge_contextvars]) as lines:
        broken.setattr(SessionDeletions, "_delete_contents", _fail)
        fault = await failure_of(delete(caller))

    assert (fault.code, fault.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    request_id = fault.metadata["request_id"]
    assert f"report request id {request_id}:" in fault.text
    assert [each["request_id"] for each in lines if each["event"] == "deletion_fault"] == [request_id]

    async def deleted() -> bool:
        try:
            await delete(caller)
        except grpc.aio.AioRpcError as error:
            assert Failure.of(error).reason == "SESSION_BUSY"  # noqa: PT017 - the failed deletion holds it a moment longer
            return False
        return True

    assert await eventually(deleted)
    assert caller.service.session("talk") is None


def _fail(*_: Any) -> Any:
    raise ZeroDivisionError


@pytest.mark.parametrize("ended", [True, False])
async def test_retried_log_chunk_is_not_stored_after_deletion(
    mongodb_uri: str, new_database: str, *, ended: bool
) -> None:
    """A server whose answer was lost inserts its last chunk again, and the next one: neither is stored."""
    database = open_database(uri=mongodb_uri, name=new_database)
    try:
        logs = EventLogStore(database.collection("turn_logs"))
        written = [_chunk(place, ended=False) for place in range(3)] + [_chunk(3, ended=ended)]
        assert await logs.append(written) == {"turn_1": Outcome.STORED}
        if not ended:
            await logs.insert_tombstone("tenant", "turn_1", expire_time=written[0].expire_time)
        await logs.delete("tenant", ["turn_1"])
        assert await logs.append([written[-1]]) == {"turn_1": Outcome.LOST}
        if not ended:
            assert await logs.append([_chunk(4, ended=True)]) == {"turn_1": Outcome.LOST}

        assert not [event for each in await logs.read("tenant", "turn_1", after=-1) for event in each.events]
        assert await logs.begun("tenant", ["turn_1"]) == {"turn_1": True}
    finally:
        await database.close()


def _chunk(index: int, *, ended: bool) -> Chunk:
    return Chunk(
        turn_id="turn_1",
        tenant_id="tenant",
        index=index,
        first=index + 1,
        events=(TextDelta("swordfish"),),
        ended=ended,
        error=None,
        writer="server",
        expire_time=datetime.now(UTC) + timedelta(hours=1),
    )
