"""A server is killed before and after each database operation: another one goes on, and nothing is lost or made up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from godoty_service.mongo.collection import Collection
from tests.integration.webhooks.conftest import Server, StartServer
from tests.support.receiver import Receiver

_OPERATIONS = (
    *("find_one", "find", "aggregate", "insert_each", "insert_one", "update_one", "update_many"),
    *("find_one_and_update", "delete_many"),
)


class Killed(BaseException):
    """Ends a server at once: nothing catches it."""


@contextmanager
def killed_at(number: int, *, after: bool, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Kill what runs in the block before or after its n-th database operation; yield the list of operations."""
    operations: list[int] = []

    def wrapped(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def operation(*args: Any, **kwargs: Any) -> Any:
            operations.append(len(operations) + 1)
            mine = operations[-1]
            if mine >= number and not after:  # a dead server does nothing more
                raise Killed
            result = await original(*args, **kwargs)
            if mine >= number:
                raise Killed
            return result

        return operation

    with monkeypatch.context() as patched:
        for name in _OPERATIONS:
            patched.setattr(Collection, name, wrapped(getattr(Collection, name)))
        yield operations


async def run(server: Server) -> None:
    """Publish and deliver what there is."""
    await server.loops.outbox.sweep()
    await server.dispatch()


async def end_leases(server: Server) -> None:
    """Let the time pass after which other servers take over."""
    past = server.components.clock() - timedelta(hours=1)
    webhooks = server.components.database.collection("webhooks")
    await webhooks.update_many({"lease_until": {"$exists": True}}, {"$set": {"lease_until": past}})


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_server_killed_at_each_operation_loses_nothing(
    start: StartServer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    """The end of a turn, that of a turn of a dead server, and an unresolved call arrive, each under one id."""
    survivor, victim = await start(), await start(indexes=False)
    number = kills = 0
    while kills == number:
        number += 1
        victim.restart()
        tenant = (await survivor.components.tenancy.tenants.create("acme")).tenant_id
        for each in (survivor, victim):
            await each.apply(tenant, receiver.url())
        ended, dead = await survivor.end_turn(tenant), await survivor.begin_turn(tenant, session_id="dead")
        call = await survivor.unresolve(tenant, ended)
        receiver.received.clear()
        await end_leases(survivor)  # so that the victim publishes
        try:
            with killed_at(number, after=after, monkeypatch=monkeypatch):
                await run(victim)
        except Killed:
            kills += 1
        for _ in range(2):
            await end_leases(survivor)
            await run(survivor)

        collections = {name: survivor.components.database.collection(name) for name in ("turns", "turn_logs", "ledger")}
        assert [await each.count({"outbox": {"$exists": True}}) for each in collections.values()] == [0, 0, 0]
        facts = {(each.event["type"], each.data.get("call_id") or each.data["turn_id"]) for each in receiver.received}
        assert facts == {("turn.finished", ended), ("turn.finished", dead), ("call.unresolved", call)}
        assert len({(each.event_id, each.body) for each in receiver.received}) == 3
        assert len(receiver.received) <= 6
        states = survivor.components.database.collection("webhook_deliveries")
        assert await states.count({"tenant_id": tenant, "state": "delivered"}) == 3

    assert kills >= 15
