"""Metrics that are asked for again and again: always the whole truth, however often they were told before."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from bson.decimal128 import Decimal128
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.rpc import seen_metrics
from godoty_service.rpc.metering_messages import timestamp
from tests.conftest import Start
from tests.service.caller import Caller, failure_of
from tests.service.service import Service

SESSION = "polled"


async def test_polling_tells_what_a_first_look_tells(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """Before, between and after turns, of the other server, too: two that have told it before, and one that is new."""
    first = await serve()
    name = first.database.name
    one, two = connect(first), connect(first.at((await serve(database=name)).target))
    told = []
    for text in ("hi", "@sandbox tool-loop calls=3 tool=calculator", "@sandbox error-before status=400", "bye"):
        await one.converse(text, session_id=SESSION)
        told.append(await polled(one))
        new = connect(first.at((await serve(database=name)).target))
        assert told[-1] == await polled(two) == await new.metrics(SESSION)

    assert [each.totals.turns for each in told] == [1, 2, 3, 4]
    assert [each.totals.model_calls for each in told][:2] == [1, 4]


async def test_a_turn_that_runs_is_in_it(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """Its open call shows as soon as it is made, though the session was asked for just before."""
    caller = connect(await serve())
    await caller.converse("hi", session_id=SESSION)
    await polled(caller)
    call = caller.start("@sandbox plain tokens=200 delay_ms=20", session_id=SESSION)
    async for response in call:
        if response.HasField("text_delta"):
            break
    running = await caller.metrics(SESSION)
    call.cancel()

    assert (running.totals.turns, running.totals.model_calls, running.totals.pending_calls) == (2, 2, 1)


async def test_a_session_of_the_same_name_is_another(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """What was told of the deleted one is not told of it."""
    caller = connect(await serve())
    await caller.converse("@sandbox tool-loop calls=3 tool=calculator", session_id=SESSION)
    await polled(caller)
    await caller.call("DeleteSession", pb.DeleteSessionRequest(session_id=SESSION))
    assert (await failure_of(caller.metrics(SESSION))).code is grpc.StatusCode.NOT_FOUND
    await caller.converse("hi", session_id=SESSION)

    assert (await polled(caller)).totals.model_calls == 1


async def test_the_least_used_is_forgotten(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory holds so many sessions, and what is forgotten is read again."""
    monkeypatch.setattr(seen_metrics, "_MOST", 2)
    converted = count(monkeypatch)
    caller = connect(await serve())
    for session_id in ("a", "b", "c"):
        await caller.converse("hi", session_id=session_id)
    for session_id in ("a", "b", "a", "c", "a", "b"):
        assert (await caller.metrics(session_id)).totals.model_calls == 1

    assert len(converted) == 4  # the second "a" and the third were kept, "b" was not


async def polled(caller: Caller) -> pb.GetSessionMetricsResponse:
    """Ask three times; the answers are the same."""
    first, *more = [await caller.metrics(SESSION) for _ in range(3)]
    assert all(each == first for each in more)
    session = caller.service.session(SESSION)
    assert session is not None
    assert first.update_time == timestamp(session["update_time"])
    return first


def count(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Note what is kept."""
    kept: list[Any] = []
    original = seen_metrics.SeenMetrics.keep

    def keep(self: seen_metrics.SeenMetrics, key: Any, *more: Any) -> None:
        kept.append(key)
        original(self, key, *more)

    monkeypatch.setattr(seen_metrics.SeenMetrics, "keep", keep)
    return kept


async def test_what_the_fold_does_not_know_is_told_at_once(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """An open call that is settled, and an entry that was announced: both stand in the ledger before the fold."""
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
        {"session_id": SESSION}, {"$set": {"unfolded": True}, "$inc": {"fold_revision": 1}}
    )
    assert (await polled(caller)).totals == before.totals
    found = service.database["ledger"].find_one({"session_id": SESSION, "number": 2})
    assert found is not None
    service.database["ledger"].insert_one({**found, "_id": "late", "number": 3, "turn_id": "another"})
    assert (await polled(caller)).totals.model_calls == 3


async def test_a_turn_that_cost_nothing_used_the_session_all_the_same(
    serve: Start, connect: Callable[[Service], Caller]
) -> None:
    """The time of the last use is not remembered; neither is what was told while it ran."""
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
