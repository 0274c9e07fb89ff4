"""Deliveries to endpoints that are down, slow, broken or malicious: nothing is lost, and no one else waits."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from godoty.v1 import webhook_pb2 as pb

from tests.conftest import Start
from tests.e2e.webhooks.conftest import SETTINGS, Become, Tenant
from tests.support.caller import failure_of
from tests.support.receiver import Received, Receiver, status
from tests.support.service import eventually, soon

Receive = Callable[[], Awaitable[Receiver]]


async def test_events_of_a_receiver_that_was_down_arrive_when_it_is_back(tenant: Tenant, receiver: Receiver) -> None:
    """Each under the id that it had in the attempts before."""
    await tenant.apply(receiver.url())
    await receiver.stop()
    for _ in range(5):
        await tenant.caller.converse("hello")

    async def tried() -> list[pb.WebhookDelivery]:
        found = await tenant.deliveries()
        return found if len(found) == 5 and any(each.attempts >= 2 for each in found) else []

    waiting = await eventually(tried)
    assert {each.state for each in waiting} == {pb.DELIVERY_STATE_PENDING}
    assert all(each.last_error == "The server cannot be reached." for each in waiting if each.attempts)
    await receiver.start()
    await tenant.delivered(5)

    assert {each.event_id for each in receiver.received} == {each.event_id for each in waiting}


async def test_event_is_attempted_again_under_its_id_with_a_new_signature(tenant: Tenant, receiver: Receiver) -> None:
    """Until the endpoint takes it; what it answered is listed."""
    answers = [status(500), status(404), status(204)]

    async def answer(_: Received) -> bytes:
        return answers[len(receiver.received) - 1]

    receiver.answer = answer
    secret = await tenant.apply(receiver.url())
    await tenant.caller.converse("hello")
    (delivery,) = await tenant.delivered(1)

    assert (delivery.attempts, delivery.last_status, delivery.last_error) == (3, 204, "")
    assert {each.event_id for each in receiver.received} == {delivery.event_id}
    assert {each.body.decode() for each in receiver.received} == {delivery.body_json}
    assert all(each.is_signed_by(secret) for each in receiver.received)


async def test_dead_endpoint_is_switched_off_and_reported(tenant: Tenant, receive: Receive) -> None:
    """In both lists, and to the tenant's other webhook; enabled again, it gets what was pending and what follows."""
    dead, other = await receive(), await receive()
    dead.answer = dead.always(status(500))
    await tenant.apply(dead.url(), name="dead")
    await tenant.apply(other.url(), name="other", event_types=["webhook.disabled"])
    await tenant.caller.converse("hello")
    await tenant.attempted(2, name="dead")
    tenant.end_retries()
    reported = await other.first("webhook.disabled")

    webhook = await tenant.webhook("dead")
    assert (webhook.enabled, reported.data["webhook"]) == (False, "dead")
    assert "HTTP 500" in webhook.disabled_reason == reported.data["reason"]
    assert webhook.HasField("disable_time")
    own, failed = await tenant.deliveries("dead")
    assert (own.event_type, own.state) == ("webhook.disabled", pb.DELIVERY_STATE_NOT_SENT)
    assert (failed.event_type, failed.state) == ("turn.finished", pb.DELIVERY_STATE_FAILED)
    assert failed.attempts >= 2
    failure = await failure_of(tenant.call("RedeliverEvent", webhook_name="dead", event_id=failed.event_id))
    assert (failure.reason, failure.metadata) == ("WEBHOOK_OFF", {"webhook_name": "dead"})

    dead.answer = dead.take
    dead.received.clear()
    await tenant.apply(dead.url(), name="dead")
    turn = await tenant.caller.converse("hello")
    received = await dead.first()
    assert received.data["turn_id"] == turn.responses[0].turn_id
    assert (await tenant.webhook("dead")).disabled_reason == ""


async def test_endpoint_that_says_that_it_is_gone_is_switched_off_at_once(tenant: Tenant, receiver: Receiver) -> None:
    """By HTTP 410."""
    receiver.answer = receiver.always(status(410))
    await tenant.apply(receiver.url())
    await tenant.caller.converse("hello")

    async def is_off() -> bool:
        return not (await tenant.webhook()).enabled

    await eventually(is_off)

    assert len(receiver.received) == 1
    assert "410" in (await tenant.webhook()).disabled_reason


async def test_endpoint_with_other_successes_stays_on(tenant: Tenant, receiver: Receiver) -> None:
    """A single event that it does not take is no death."""

    async def answer(received: Received) -> bytes:
        return status(500 if received.data["session_id"] == "poison" else 204)

    receiver.answer = answer
    await tenant.apply(receiver.url())
    await tenant.caller.converse("hello", session_id="poison")
    await tenant.attempted(1)
    await tenant.caller.converse("hello", session_id="healthy")

    async def had_success() -> bool:
        return (await tenant.webhook()).HasField("last_success_time")

    async def failed() -> bool:
        return bool(await tenant.deliveries(state=pb.DELIVERY_STATE_FAILED))

    await eventually(had_success)
    tenant.end_retries()
    await eventually(failed)
    await tenant.caller.converse("hello", session_id="later")
    await soon(lambda: receiver.received[-1].data["session_id"] == "later")

    assert (await tenant.webhook()).enabled


@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}/inside", "http://169.254.169.254/latest/meta-data"])
async def test_redirect_is_not_followed(tenant: Tenant, receiver: Receiver, receive: Receive, target: str) -> None:
    """Neither to a private address nor to one that is permitted: it is a failed attempt."""
    inside = await receive()
    location = target.format(port=inside.port)
    receiver.answer = receiver.always(status(307, f"Location: {location}\r\n"))
    await tenant.apply(receiver.url())
    await tenant.caller.converse("hello")

    delivery = await tenant.attempted(2)

    assert (delivery.last_status, delivery.last_error) == (307, "The endpoint redirects, which is not followed.")
    assert inside.received == []


async def test_name_of_a_private_address_gets_no_request(serve: Start, become: Become, receiver: Receiver) -> None:
    """It is checked when it is connected to: a name may resolve to anything."""
    tenant = become(await serve(**SETTINGS | {"webhook_networks": None}))
    await tenant.apply(receiver.url(host="localhost").replace("http:", "https:"))
    await tenant.caller.converse("hello")

    delivery = await tenant.attempted(1)

    assert "not permitted" in delivery.last_error
    assert receiver.received == []


async def test_slow_receiver_delays_no_other_tenant(serve: Start, become: Become, receive: Receive) -> None:
    """It has as many endpoints that hang as one tenant may have at once, and more; the other's are delivered."""
    slow_tenant = become(await serve(**SETTINGS, webhook_tenant_endpoints=2, webhook_endpoints=3, webhook_timeout=60))
    hanging, quick = await receive(), await receive()
    hanging.answer = hanging.hang
    for number in range(4):
        await slow_tenant.apply(hanging.url(f"/{number}"), name=f"hook-{number}")
    await slow_tenant.caller.converse("hello")
    await soon(lambda: len(hanging.received) == 2)
    other = become(slow_tenant.service.another_tenant())
    await other.apply(quick.url())
    await other.caller.converse("hello")

    await other.delivered(1)

    assert len(hanging.received) == 2  # its own others wait


async def test_receiver_that_does_not_answer_in_time_is_tried_again(
    serve: Start, become: Become, receiver: Receiver
) -> None:
    """The attempt ends after its time."""
    tenant = become(await serve(**SETTINGS, webhook_timeout=1.0))
    receiver.answer = receiver.hang
    await tenant.apply(receiver.url())
    await tenant.caller.converse("hello")
    await soon(lambda: len(receiver.received) >= 2)
    receiver.answer = receiver.take

    (delivery,) = await tenant.delivered(1)

    assert delivery.attempts >= 3
    assert len({each.event_id for each in receiver.received}) == 1


async def test_answer_without_end_is_taken_by_its_status(tenant: Tenant, receiver: Receiver) -> None:
    """Its body is read up to a bound, and no further."""

    async def answer(_: Received) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 1_000_000

    receiver.answer = answer
    await tenant.apply(receiver.url())
    await tenant.caller.converse("hello")

    (delivery,) = await tenant.delivered(1)

    assert (delivery.attempts, delivery.last_status) == (1, 200)


async def test_event_is_delivered_again_on_request(tenant: Tenant, receiver: Receiver) -> None:
    """Under the same id, with the same body."""
    await tenant.apply(receiver.url())
    await tenant.caller.converse("hello")
    (delivery,) = await tenant.delivered(1)

    answer = await tenant.call("RedeliverEvent", webhook_name="hook", event_id=delivery.event_id)
    await soon(lambda: len(receiver.received) == 2)

    assert answer.delivery.state == pb.DELIVERY_STATE_PENDING
    assert len({(each.event_id, each.body) for each in receiver.received}) == 1
    failure = await failure_of(tenant.call("RedeliverEvent", webhook_name="hook", event_id=f"evt_{'0' * 32}"))
    assert failure.reason == "DELIVERY_NOT_FOUND"


async def test_events_of_a_session_are_sent_one_after_the_other(tenant: Tenant, receiver: Receiver) -> None:
    """While one of them is not answered, those of other sessions are sent, and none of its own."""
    holds = {"first": asyncio.Event(), "held": asyncio.Event()}

    def sent() -> list[str]:
        return [str(each.data["session_id"]) for each in receiver.received]

    async def answer(received: Received) -> bytes:
        if hold := holds.get(received.data["session_id"]):
            await hold.wait()
        return status(204)

    receiver.answer = answer
    await tenant.apply(receiver.url())
    await tenant.caller.converse("hello", session_id="first")
    await soon(lambda: sent() == ["first"])
    turns = [await tenant.caller.converse("hello", session_id="held") for _ in range(2)]
    await tenant.caller.converse("hello", session_id="other")

    async def stored() -> bool:
        return len(await tenant.deliveries()) == 4

    await eventually(stored)
    holds["first"].set()
    await soon(lambda: {"held", "other"} <= {*sent()})
    assert sorted(sent()) == ["first", "held", "other"]
    holds["held"].set()
    await tenant.delivered(4)

    held = [each.data["turn_id"] for each in receiver.received if each.data["session_id"] == "held"]
    assert held == [each.responses[0].turn_id for each in turns]
