"""Servers that are killed, and databases that fail over: every event arrives, under one id, and none is made up."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from godoty.v1 import agent_definition_service_pb2_grpc as stubs
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc, webhook_pb2

from godoty_service.tenancy.auth import Scope
from openrouter_sandbox.mongodb.replica_set import LocalReplicaSet
from tests.conftest import Start, StartProcess
from tests.e2e.turns.streams import until_text
from tests.e2e.webhooks.conftest import ENVIRONMENT, PATIENT, SETTINGS, Become
from tests.faults.cluster import Cluster, open_cluster
from tests.support.leases import LONG_LEASE, LONG_LEASE_ENVIRONMENT, end_leases
from tests.support.receiver import Received, Receiver, status
from tests.support.service import eventually, soon

NEVER = {"GODOTY_WEBHOOK_INTERVAL": "60"}


async def test_turn_of_a_killed_server_is_reported_that_no_client_asks_for(
    serve: Start, serve_process: StartProcess, become: Become, receiver: Receiver
) -> None:
    """Its log is ended by another server, once the lease of the dead one is over."""
    process, service = await serve_process(**(ENVIRONMENT | NEVER), **LONG_LEASE_ENVIRONMENT)
    tenant = become(service)
    await tenant.apply(receiver.url())
    stream = tenant.caller.start("@sandbox plain tokens=9 hold_after=3 hold=killed", user="ada")
    turn_id = (await until_text(stream, "t2 "))[0].turn_id
    await process.kill()
    service.backends.allow("killed")
    await serve(database=service.database.name, **SETTINGS, lease=LONG_LEASE)
    end_leases(service.database, process.replica_id)

    received = await receiver.first()

    assert (received.data["turn_id"], received.data["stop_reason"]) == (turn_id, "INTERRUPTED")
    assert received.data["turn_totals"]["model_calls"] == 1
    await soon(lambda: service.database["turns"].count_documents({"outbox": True}) == 0)
    ended = receiver.of_type("turn.finished")  # perhaps sent twice; the unresolved call has an event of its own
    assert len({each.event_id for each in ended}) == 1


async def test_event_of_a_server_that_dies_before_it_publishes_is_published_by_another(
    serve: Start, serve_process: StartProcess, become: Become, receiver: Receiver
) -> None:
    """The end of the turn was stored with its mark, and nothing else."""
    process, service = await serve_process(**(ENVIRONMENT | NEVER), **LONG_LEASE_ENVIRONMENT)
    tenant = become(service)
    await tenant.apply(receiver.url())
    turn = await tenant.caller.converse("hello")
    await soon(lambda: service.database["turn_logs"].count_documents({"ended": True}) == 1)
    assert tenant.documents("webhook_deliveries") == []
    await process.kill()
    await serve(database=service.database.name, **SETTINGS, lease=LONG_LEASE)

    received = await receiver.first()

    assert received.data["turn_id"] == turn.responses[0].turn_id
    assert received.data["turn_totals"]["cost_usd"] == turn.finished.turn_totals.cost_usd


async def test_event_of_a_server_that_dies_while_it_sends_is_sent_again_under_its_id(
    serve: Start, serve_process: StartProcess, become: Become, receiver: Receiver
) -> None:
    """The receiver has it, and the dead server did not record that: another one sends it when the lease is over."""
    process, service = await serve_process(**ENVIRONMENT, **PATIENT, **LONG_LEASE_ENVIRONMENT)
    tenant = become(service)

    async def answer(received: Received) -> bytes:
        if len(receiver.received) == 1:
            await process.kill()
        return status(204)

    receiver.answer = answer
    await tenant.apply(receiver.url())
    await tenant.caller.converse("hello")
    await soon(lambda: process.killed and process.process and process.process.returncode is not None)
    other = await serve(database=service.database.name, **SETTINGS, lease=LONG_LEASE)
    end_leases(service.database, process.replica_id)
    there = become(service.at(other.target))

    (delivery,) = await there.delivered(1)

    assert [each.event_id for each in receiver.received] == [delivery.event_id] * 2
    assert len({each.body for each in receiver.received}) == 1


async def test_two_servers_send_each_event_once(serve: Start, become: Become, receiver: Receiver) -> None:
    """Both publish and deliver; the leases keep them apart."""
    service = await serve(**SETTINGS)
    second = await serve(database=service.database.name, **SETTINGS)
    tenants = [become(service), become(service.at(second.target))]
    for each in tenants:  # so that both servers know of it at once
        await each.apply(receiver.url())
    turns = await asyncio.gather(
        *(tenants[number % 2].caller.converse("hello", session_id=f"s{number % 5}", on_busy=2) for number in range(20))
    )
    assert all(each.failure is None for each in turns)

    await tenants[0].delivered(20)

    arrived = [each.data["turn_id"] for each in receiver.received]
    assert sorted(arrived) == sorted(each.responses[0].turn_id for each in turns)


@pytest.fixture
async def members(tmp_path: Path) -> AsyncIterator[LocalReplicaSet]:
    """Three members, one of them primary."""
    async with LocalReplicaSet(tmp_path) as started:
        yield started


async def test_events_outlive_failovers(members: LocalReplicaSet, receiver: Receiver, tmp_path: Path) -> None:
    """Turns end before, while and after a primary steps down, and one is killed: each is reported, and no other."""
    name = f"godoty_test_failover_{secrets.token_hex(4)}"
    begun: set[str] = set()
    async with open_cluster(mongodb_uri=members.uri, name=name, directory=tmp_path) as cluster:
        server = cluster.server(**ENVIRONMENT, GODOTY_LEASE="15")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(server.address) as channel:
                manage = stubs.AgentDefinitionServiceStub(channel)  # type: ignore[no-untyped-call] # generated
                stub = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated
                _, key = await cluster.components.tenancy.api_keys.issue(
                    cluster.tenant_id, scopes=frozenset({Scope.AGENTS})
                )
                webhook = webhook_pb2.Webhook(name="hook", url=receiver.url())
                metadata = (("authorization", f"Bearer {key}"),)
                await manage.ApplyWebhook(webhook_pb2.ApplyWebhookRequest(webhook=webhook), metadata=metadata)

                async def all_arrived() -> bool:
                    return {*_reported(receiver)} >= begun | await _ended(cluster)

                for lose in (members.step_down, members.kill_primary):
                    begun |= await _failover(lose, stub, cluster.api_key, receiver)
                    await eventually(all_arrived)
        finally:
            await server.stop()
        ended = await _ended(cluster)

    reported = _reported(receiver)
    assert begun <= reported.keys() <= ended
    assert len({*reported.values()}) == len(reported)


async def _failover(
    lose: Callable[[], Awaitable[object]],
    stub: agent_service_pb2_grpc.AgentServiceStub,
    api_key: str,
    receiver: Receiver,
) -> set[str]:
    """Run turns, and lose the primary once the first one is reported; return those that began."""
    before = len(_reported(receiver))
    turns = [asyncio.create_task(_turn(stub, api_key, number)) for number in range(8)]
    await soon(lambda: len(_reported(receiver)) > before)
    await lose()
    return {each for each in await asyncio.gather(*turns) if each}


def _reported(receiver: Receiver) -> dict[str, str]:
    """Return the turns whose ends have arrived, each with the id of the event, of which it may have one."""
    found: dict[str, str] = {}
    for each in receiver.of_type("turn.finished"):
        assert found.setdefault(each.data["turn_id"], each.event_id) == each.event_id
    return found


async def _ended(cluster: Cluster) -> set[str]:
    """Return the turns whose logs have ended."""
    logs = cluster.components.database.collection("turn_logs")
    return {each["turn_id"] for each in await logs.find({"ended": True}, fields={"turn_id": 1})}


async def _turn(stub: agent_service_pb2_grpc.AgentServiceStub, api_key: str, number: int) -> str:
    """Run a turn, which is the longer the higher its number; return its id, or an empty text if it did not begin.

    It may fail: on a busy machine an election may take longer than the lease, or than an operation may wait.
    """
    text = f"@sandbox slow tokens={1 + 12 * number} first_delay_ms=0 delay_ms=25"
    call = stub.Converse(
        pb.ConverseRequest(text=text),
        metadata=(("authorization", f"Bearer {api_key}"),),
        timeout=170,
    )
    turn_id = ""
    with suppress(grpc.aio.AioRpcError):
        async for response in call:
            turn_id = response.event.turn_id
    return turn_id
