"""Cached session metrics are always exact, however often they are requested."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from bson.decimal128 import Decimal128
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.rpc.conversations import session_metrics_cache
from godoty_service.rpc.metering_codec import timestamp
from tests.conftest import Start
from tests.support.caller import Caller, failure_of
from tests.support.service import Service

SESSION = "polled"


async def test_polling_returns_the_same_as_a_first_read(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, between and after turns, also of the other server: two servers that cached them, and one without."""
    first = await serve()
    one, two = connect(first), connect(first.at((await serve(database=first.database.name)).target))
    responses = []
    for text in ("hi", "@sandbox tool-loop calls=3 tool=calculator", "@sandbox error-before status=400", "bye"):
        await one.converse(text, session_id=SESSION)
        responses.append(await polled(one))
        assert responses[-1] == await polled(two)
        with monkeypatch.context() as uncached:
            uncached.setattr(session_metrics_cache.SessionMetricsCache, "get", lambda *_: None)
            assert responses[-1] == await two.metrics(SESSION)

    assert [each.totals.turns for each in responses] == [1, 2, 3, 4]
    assert [each.totals.model_calls for each in responses][:2] == [1, 4]


async def test_running_turn_is_included(caller: Caller) -> None:
    """Its pending call is included as soon as it is inserted, right after a cached read."""
    await caller.converse("hi", session_id=SESSION)
    await polled(caller)
    call = caller.start("@sandbox plain tokens=20 hold_after=3", session_id=SESSION)
    async for response in call:
        if response.HasField("text_delta"):
            break
    running = await caller.metrics(SESSION)
    call.cancel()

    assert (running.totals.turns, running.totals.model_calls, running.totals.pending_calls) == (2, 2, 1)


async def test_session_of_a_deleted_id_has_new_metrics(caller: Caller) -> None:
    """The metrics of the deleted session are not returned."""
    await caller.converse("@sandbox tool-loop calls=3 tool=calculator", session_id=SESSION)
    await polled(caller)
    await caller.call("DeleteSession", pb.DeleteSessionRequest(session_id=SESSION))
    assert (await failure_of(caller.metrics(SESSION))).code is grpc.StatusCode.NOT_FOUND
    await caller.converse("hi", session_id=SESSION)

    assert (await polled(caller)).totals.model_calls == 1


async def test_least_recently_used_session_is_evicted(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is bounded, and an evicted session is read again."""
    monkeypatch.setattr(session_metrics_cache, "_MAX_SESSIONS", 2)
    converted = count(monkeypatch)
    caller = connect(await serve())
    for session_id in ("a", "b", "c"):
        await caller.converse("hi", session_id=session_id)
    for session_id in ("a", "b", "a", "c", "a", "b"):
        assert (await caller.metrics(session_id)).totals.model_calls == 1

    assert len(converted) == 4  # the second "a" and the third were cached, "b" was not


async def polled(caller: Caller) -> pb.GetSessionMetricsResponse:
    """Read three times; all responses are equal."""
    first, *more = [await caller.metrics(SESSION) for _ in range(3)]
    assert all(each == first for each in more)
    session = caller.service.session(SESSION)
    assert session is not None
    assert first.update_time == timestamp(session["update_time"])
    return first


def count(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record the cached sessions."""
    cached: list[Any] = []
    original = session_metrics_cache.SessionMetricsCache.put

    def put(self: session_metrics_cache.SessionMetricsCache, key: Any, *more: Any) -> None:
        cached.append(key)
        original(self, key, *more)

    monkeypatch.setattr(session_metrics_cache.SessionMetricsCache, "put", put)
    return cached


async def test_change_that_the_totals_lack_is_included(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """A settled pending call, and an announced entry, are in the ledger before they are in the session totals."""
    caller = connect(await serve(reconcile_interval=600.0))
    service = caller.service
    await caller.converse("@sandbox no-cost", session_id=SESSION)  # with no cost its call stays open
    assert (await polled(caller)).totals.pending_calls == 1
    settled = {"state": "settled", "cost": Decimal128("0.25"), "cost_source": "reconciled"}
    service.database["ledger"].update_one({"session_id": SESSION}, {"$set": settled})
    assert (await polled(caller)).totals.cost_usd == "0.25"

    await caller.converse("hi", session_id=SESSION)
    before = await polled(caller)
    service.database["sessions"].update_one(
        {"session_id": SESSION}, {"$set": {"totals_stale": True}, "$inc": {"totals_revision": 1}}
    )
    assert (await polled(caller)).totals == before.totals
    found = service.database["ledger"].find_one({"session_id": SESSION, "number": 2})
    assert found is not None
    service.database["ledger"].insert_one({**found, "_id": "late", "number": 3, "turn_id": "another"})
    assert (await polled(caller)).totals.model_calls == 3


async def test_turn_without_cost_changes_the_update_time(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """The update time is not cached, nor are metrics that were read while the turn ran."""
    caller = connect(await serve())
    sessions = caller.service.database["sessions"]
    await caller.converse("hi", session_id=SESSION)
    before = await polled(caller)
    lease = {"turn_id": "turn", "replica_id": "another", "text": "hi", "request_id": None}
    sessions.update_one({"session_id": SESSION}, [{"$set": {"lease": lease, "update_time": "$$NOW"}}])
    used = await polled(caller)
    found = caller.service.database["ledger"].find_one({"session_id": SESSION})
    assert found is not None
    caller.service.database["ledger"].insert_one({**found, "_id": "late", "number": 2, "turn_id": "another"})
    assert (await polled(caller)).totals.model_calls == 2
    caller.service.database["ledger"].delete_one({"_id": "late"})
    sessions.update_one({"session_id": SESSION}, {"$set": {"lease": None}})

    assert used.update_time.ToDatetime() > before.update_time.ToDatetime()
    assert await polled(caller) == used
