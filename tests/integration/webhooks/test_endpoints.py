"""Leases of endpoints, the order of deliveries, and webhooks that are switched off."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from godoty_service.webhooks.delivery import DeliveryState
from godoty_service.webhooks.event import EventType, WebhookEvent, event_id_of
from tests.integration.webhooks.conftest import Server, StartServer
from tests.integration.webhooks.test_killed_servers import end_leases
from tests.support.receiver import Received, Receiver, status
from tests.support.service import soon

LEASE = timedelta(seconds=30)
ALL: dict[str, Any] = {"excluding": (), "excluding_tenants": ()}


async def test_endpoint_has_one_server_until_its_lease_ends(start: StartServer, receiver: Receiver) -> None:
    """Then the other one; the first cannot renew, and what it records or releases changes nothing."""
    one, other = await start(), await start()
    await one.apply("acme", receiver.url())
    first = await one.components.webhooks.endpoints.claim(LEASE, **ALL)
    assert first is not None
    assert await other.components.webhooks.endpoints.claim(LEASE, **ALL) is None

    await end_leases(one)
    second = await other.components.webhooks.endpoints.claim(LEASE, **ALL)
    assert second is not None
    assert await one.components.webhooks.endpoints.renew(first, LEASE) is None
    await one.components.webhooks.endpoints.release(first, due_time=None)

    assert await one.components.webhooks.endpoints.claim(LEASE, **ALL) is None
    assert await other.components.webhooks.endpoints.renew(second, LEASE) is not None


async def test_deliveries_that_are_added_before_the_release_are_due(start: StartServer, receiver: Receiver) -> None:
    """The server that releases the endpoint has not seen them."""
    server = await start()
    webhook = await server.apply("acme", receiver.url())
    endpoints = server.components.webhooks.endpoints
    claimed = await endpoints.claim(LEASE, **ALL)
    assert claimed is not None
    await endpoints.add_deliveries([webhook])

    await endpoints.release(claimed, due_time=None)

    again = await endpoints.claim(LEASE, **ALL)
    assert again is not None
    await endpoints.release(again, due_time=None)
    assert await endpoints.claim(LEASE, **ALL) is None


async def test_one_server_publishes_until_its_lease_ends(start: StartServer) -> None:
    """Or until it stops."""
    one, other = await start(), await start()

    assert [await one.loops.outbox.sweep(), await other.loops.outbox.sweep()] == [True, False]
    await end_leases(one)
    assert [await other.loops.outbox.sweep(), await one.loops.outbox.sweep()] == [True, False]
    await other.components.webhooks.endpoints.stop_leading()
    assert await one.loops.outbox.sweep()


async def publish(server: Server, *events: tuple[EventType, str, str]) -> None:
    """Publish events, each with its type, turn and session, in the order of time."""
    now = server.components.clock()
    await server.loops.outbox._publisher.publish(
        [
            WebhookEvent(
                event_id=event_id_of("acme", event_type, turn_id),
                event_type=event_type,
                tenant_id="acme",
                time=now + timedelta(milliseconds=place),
                data={"turn_id": turn_id},
                turn_id=turn_id,
                session_id=session_id,
            )
            for place, (event_type, turn_id, session_id) in enumerate(events)
        ]
    )


async def test_later_event_of_a_turn_waits_for_the_earlier_one(start: StartServer, receiver: Receiver) -> None:
    """While that one is to be attempted again, those of other turns are delivered."""
    server = await start(webhook_retry_delay=3600.0)
    await server.apply("acme", receiver.url())

    async def answer(received: Received) -> bytes:
        return status(500 if (received.event["type"], received.data["turn_id"]) == ("turn.finished", "a") else 204)

    receiver.answer = answer
    finished, unresolved = EventType.TURN_FINISHED, EventType.CALL_UNRESOLVED
    await publish(server, (finished, "a", "one"), (unresolved, "a", "one"), (finished, "b", "two"))
    await server.dispatch()
    await publish(server, (finished, "c", "one"))
    await server.dispatch()

    sent = [(each.event["type"], each.data["turn_id"]) for each in receiver.received]
    assert sorted(sent) == [("turn.finished", "a"), ("turn.finished", "b"), ("turn.finished", "c")]
    receiver.answer = receiver.take
    (webhook,) = (await server.components.webhooks.webhooks.of_tenants(["acme"]))["acme"]
    await server.components.webhooks.deliveries.retry_now(webhook.uid)
    await server.components.webhooks.endpoints.add_deliveries([webhook])
    await server.dispatch()

    assert [(each.event["type"], each.data["turn_id"]) for each in receiver.received[3:]] == [
        ("turn.finished", "a"),
        ("call.unresolved", "a"),
    ]


async def test_event_before_a_webhook_was_enabled_is_not_for_it(start: StartServer, receiver: Receiver) -> None:
    """Though its mark is found afterwards."""
    server = await start()
    turn_id = await server.end_turn("acme")
    call_id = await server.unresolve("acme", turn_id)
    await asyncio.sleep(0.01)
    await server.apply("acme", receiver.url())
    await server.loops.outbox.sweep()
    await server.dispatch()

    assert receiver.received == []
    assert {each.data.get("call_id", each.turn_id) for each in server.events} == {turn_id, call_id}


async def test_webhook_that_is_enabled_before_its_end_is_reported_is_reported_once(
    start: StartServer, receiver: Receiver
) -> None:
    """As it was switched off, and not as it is now."""
    server = await start()
    receiver.answer = receiver.always(status(410))
    webhook = await server.apply("acme", receiver.url())
    await publish(server, (EventType.TURN_FINISHED, "a", "one"))
    await server.dispatch()
    receiver.answer = receiver.take
    await server.apply("acme", receiver.url())

    for _ in range(2):
        await server.loops.outbox.sweep()

    found = await server.components.webhooks.deliveries.page(
        webhook, state=DeliveryState.NOT_SENT, before=None, limit=9
    )
    assert [each.event_type for each in found] == ["webhook.disabled"]
    assert "410" in found[0].body


async def test_server_that_does_not_know_the_webhooks_marks_all(start: StartServer) -> None:
    """A mark too many is removed, one that is missing would be lost."""
    server = await start()
    subscribers = server.components.webhooks.subscribers
    assert not subscribers.wants("acme")

    subscribers._read_at -= 10

    assert subscribers.wants("acme")
    await server.end_turn("acme")
    await server.loops.outbox.sweep()
    logs = server.components.database.collection("turn_logs")
    assert await logs.count({"outbox": {"$exists": True}}) == 0


async def test_webhook_of_another_server_is_known_after_the_next_read(start: StartServer, receiver: Receiver) -> None:
    """As is that it was disabled."""
    one, other = await start(), await start()
    knows = other.components.webhooks.subscribers
    await one.apply("acme", receiver.url())
    assert not knows.wants("acme")
    await knows.refresh()
    assert (knows.wants("acme"), knows.of_type(EventType.BUDGET_THRESHOLD)) == (True, ["acme"])

    await one.apply("acme", receiver.url(), enabled=False)
    await knows.refresh()

    assert not knows.wants("acme")


async def test_stop_releases_an_endpoint_at_once(start: StartServer, receiver: Receiver) -> None:
    """What was being sent is sent again, by a server that need not wait for the end of the lease."""
    server = await start()
    receiver.answer = receiver.hang
    await server.apply("acme", receiver.url())
    await publish(server, (EventType.TURN_FINISHED, "a", "one"))
    await server.loops.dispatcher.start_due()
    await soon(lambda: receiver.received)

    await server.loops.dispatcher.stop()

    assert await (await start()).components.webhooks.endpoints.claim(LEASE, **ALL) is not None
