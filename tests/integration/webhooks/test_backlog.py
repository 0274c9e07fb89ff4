"""Many webhooks with a backlog: a due one is found at once, its age is measured, and a fault of one harms no other."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from godoty_service.errors import StorageUnavailable
from godoty_service.ids import new_id
from godoty_service.mongo.collection import Collection
from godoty_service.webhooks.deliveries import Deliveries
from godoty_service.webhooks.delivery import Attempt, Delivery, DeliveryState
from tests.integration.webhooks.conftest import Server, StartServer
from tests.support.receiver import Received, Receiver, status

MANY = 1_000
ALL: dict[str, Any] = {"excluding": (), "excluding_tenants": ()}


async def paused(server: Server, receiver: Receiver, tenant_id: str, number: int) -> None:
    """Store webhooks whose endpoints have failed and are paused, and to which events were added since."""
    receiver.answer = receiver.always(status(500))
    webhook = await server.apply(tenant_id, receiver.url())
    await server.end_turn(tenant_id)
    await server.loops.outbox.sweep()
    await server.dispatch()
    await server.components.webhooks.endpoints.add_deliveries([webhook])
    (document,) = await server.components.database.collection("webhooks").find({"tenant_id": tenant_id})
    copies = [
        {**document, "_id": f"{tenant_id}-{each}/hook", "tenant_id": f"{tenant_id}-{each}", "uid": new_id("webhook")}
        for each in range(number)
    ]
    if copies:
        await server.components.database.collection("webhooks").insert_many(copies)


async def test_due_endpoint_is_found_among_many_that_are_paused(
    start: StartServer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database does not look at those: a claim costs the same with ten thousand of them."""
    server = await start(webhook_retry_delay=3600.0)
    await paused(server, receiver, "dead", MANY)
    await server.apply("acme", receiver.url())
    receiver.answer = receiver.take
    await server.end_turn("acme")
    await server.loops.outbox.sweep()
    queries: list[tuple[Any, Any]] = []
    update = Collection.find_one_and_update

    async def noting(self: Collection, query: Any, *given: Any, **named: Any) -> Any:
        queries.append((query, named.get("sort")))
        return await update(self, query, *given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Collection, "find_one_and_update", noting)
        found = await server.components.webhooks.endpoints.claim(timedelta(seconds=30), **ALL)
    assert found is not None
    assert found.webhook.tenant_id == "acme"
    await server.components.webhooks.endpoints.release(found, due_time=server.components.clock())

    (query, sort), *_ = queries
    find = {"find": "webhooks", "filter": query, "sort": dict(sort), "limit": 1}
    plan = await server.components.database._database.command({"explain": find, "verbosity": "executionStats"})
    assert plan["executionStats"]["totalDocsExamined"] <= 2


async def test_oldest_event_is_that_of_an_enabled_webhook(start: StartServer, receiver: Receiver) -> None:
    """What is pending for one that is off is not sent, so it is not late."""
    server = await start(webhook_retry_delay=3600.0)
    backlog, deliveries = server.loops.backlog, server.components.database.collection("webhook_deliveries")
    assert await backlog.oldest() == timedelta()
    await paused(server, receiver, "off", 0)
    await server.apply("acme", receiver.url())
    await server.end_turn("acme")
    await server.loops.outbox.sweep()
    now = server.components.clock()
    for tenant_id, hours in (("off", 2), ("acme", 1)):
        created = {"$set": {"create_time": now - timedelta(hours=hours)}}
        await deliveries.update_many({"tenant_id": tenant_id}, created)

    assert timedelta(hours=2) <= await backlog.oldest() < timedelta(hours=3)
    await server.apply("off", receiver.url(), enabled=False)
    assert timedelta(hours=1) <= await backlog.oldest() < timedelta(hours=2)
    receiver.answer = receiver.take
    await server.dispatch()
    assert await backlog.oldest() == timedelta()


async def test_outcome_that_cannot_be_recorded_leaves_those_of_others(
    start: StartServer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four events that are sent side by side, the first is not recorded: the others are not cut off."""
    server, others = await start(), asyncio.Event()

    async def answer(_: Received) -> bytes:
        if len(receiver.received) > 1:
            await others.wait()
        return status(204)

    receiver.answer = answer
    await server.apply("acme", receiver.url())
    for number in range(4):
        await server.end_turn("acme", session_id=f"s{number}")
    await server.loops.outbox.sweep()
    record, failed = Deliveries.record, list[str]()

    async def failing(self: Deliveries, delivery: Delivery, attempt: Attempt) -> Delivery:
        if not failed:
            failed.append(delivery.event_id)
            asyncio.get_running_loop().call_later(0.1, others.set)
            raise StorageUnavailable("The database cannot be reached just now.")
        return await record(self, delivery, attempt)

    with monkeypatch.context() as patched:
        patched.setattr(Deliveries, "record", failing)
        await server.dispatch()
    states = server.components.database.collection("webhook_deliveries")
    assert await states.count({"state": DeliveryState.DELIVERED.value}) == 3
    pending = await states.find({"state": DeliveryState.PENDING.value})
    assert [each["event_id"] for each in pending] == failed
    assert len(receiver.received) == 4
