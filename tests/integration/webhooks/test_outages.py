"""Receivers that are down for an hour, and for longer than events are retried. The clock is moved instead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from godoty_service.cluster.clock_sync import SynchronizedClock
from godoty_service.webhooks.delivery import DeliveryState
from tests.integration.webhooks.conftest import Server, StartServer
from tests.support.receiver import Receiver

HOUR = timedelta(hours=1)
DEFAULTS: dict[str, Any] = {"webhook_retry_delay": 5.0, "webhook_retry_window": 86_400.0}
Move = Callable[[timedelta], None]


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch) -> Move:
    """Moves the clocks of all servers forward."""
    ahead, now = [timedelta()], SynchronizedClock.__call__
    monkeypatch.setattr(SynchronizedClock, "__call__", lambda clock: now(clock) + ahead[0])

    def forward(time: timedelta) -> None:
        ahead[0] += time

    return forward


async def due(server: Server) -> datetime | None:
    """Return when the endpoint is due next; None: it is not."""
    (found,) = await server.components.database.collection("webhooks").find({"name": "hook"})
    time: datetime | None = found.get("due_time") if found["enabled"] else None
    return time


async def run(server: Server, move: Move, *, until: datetime) -> int:
    """Deliver whenever the endpoint is due, until a time; return how often it was."""
    number, clock = 0, server.components.clock
    while (time := await due(server)) is not None and time <= until:
        move(max(time - clock(), timedelta()) + timedelta(milliseconds=1))
        await server.dispatch()
        number += 1
    move(max(until - clock(), timedelta()))
    return number


async def test_events_of_an_hour_arrive_when_the_receiver_is_back(
    start: StartServer, receiver: Receiver, move: Move
) -> None:
    """All with the next attempt of one of them, under their ids, signed for that time."""
    server = await start(**DEFAULTS)
    webhook = await server.apply("acme", receiver.url())
    secrets = server.components.webhooks.webhooks.unseal(webhook, at=server.components.clock())
    await receiver.stop()
    began = server.components.clock()
    turns = []
    for minute in (0, 1, 30):
        await run(server, move, until=began + timedelta(minutes=minute))
        turns.append(await server.end_turn("acme", session_id=f"s{minute}"))
        await server.loops.outbox.sweep()
    rounds = await run(server, move, until=began + HOUR)
    page = server.components.webhooks.deliveries.page
    waiting = await page(webhook, state=DeliveryState.PENDING, before=None, limit=9)
    assert (len(waiting), rounds > 1) == (3, True)
    assert all(2 <= each.attempts <= 8 for each in waiting)

    await receiver.start()
    back = server.components.clock()
    time = await due(server)
    assert time is not None
    await run(server, move, until=time)

    assert {each.event_id for each in receiver.received} == {each.event_id for each in waiting}
    assert len(receiver.received) == 3
    assert {each.data["turn_id"] for each in receiver.received} == set(turns)
    for each in receiver.received:
        assert int(each.headers["webhook-timestamp"]) >= int(back.timestamp())
        assert each.is_signed_by(secrets[0])
    assert await due(server) is None


async def test_receiver_that_is_down_for_longer_is_switched_off_after_a_day(
    start: StartServer, receiver: Receiver, move: Move
) -> None:
    """With its last attempt; some ten attempts were made, further and further apart."""
    server = await start(**DEFAULTS)
    webhook = await server.apply("acme", receiver.url())
    await receiver.stop()
    began = server.components.clock()
    await server.end_turn("acme")
    await server.loops.outbox.sweep()

    rounds = await run(server, move, until=began + 24 * HOUR - timedelta(minutes=1))
    kept = await server.components.webhooks.webhooks.read("acme", "hook")
    assert kept is not None
    assert kept.enabled
    await run(server, move, until=began + 25 * HOUR)

    off = await server.components.webhooks.webhooks.read("acme", "hook")
    assert off is not None
    assert "86400 s" in off.disabled_reason
    assert not off.enabled
    (failed,) = await server.components.webhooks.deliveries.page(
        webhook, state=DeliveryState.FAILED, before=None, limit=9
    )
    assert failed.attempts == rounds + 1
    assert 8 <= failed.attempts <= 16
