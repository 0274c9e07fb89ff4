"""The primary fails during turns: they go on with the new one, nothing is lost, nothing counts twice."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc

from openrouter_sandbox.mongodb.mongod import Mongod
from openrouter_sandbox.mongodb.replica_set import LocalReplicaSet
from tests.faults.cluster import Cluster, open_cluster

TURNS = 6
PATIENT = 60.0  # seconds: on a busy machine an election takes long
Lose = Callable[[], Awaitable[Mongod]]


@pytest.fixture
async def members(tmp_path: Path) -> AsyncIterator[LocalReplicaSet]:
    """Three members, one of them primary."""
    async with LocalReplicaSet(tmp_path) as started:
        yield started


async def test_turns_outlive_their_primary(members: LocalReplicaSet, tmp_path: Path) -> None:
    """Six turns stream when the primary steps down, and six when the next one is killed.

    Each ends well and whole, and the ledger equals the invoice.
    """
    name = f"godoty_test_failover_{secrets.token_hex(4)}"
    async with open_cluster(mongodb_uri=members.uri, name=name, directory=tmp_path, storage_timeout=PATIENT) as cluster:
        server = cluster.server(GODOTY_LEASE=str(PATIENT), GODOTY_STORAGE_TIMEOUT=str(PATIENT))
        await server.start()
        try:
            stepped = await _texts(cluster, server.address, "stepped", members.step_down)
            await _unfreeze(members)
            killed = await _texts(cluster, server.address, "killed", members.kill_primary)
            await cluster.settled(within=180)
        finally:
            await server.stop()
        comparison = await cluster.compare_with_invoice()

        assert comparison.faults == []
        assert [len(text.split()) for text in (*stepped, *killed)] == [40] * 2 * TURNS
        assert (comparison.calls, comparison.settled, comparison.lines) == (2 * TURNS,) * 3
        assert comparison.cost == comparison.invoiced > 0


async def _unfreeze(members: LocalReplicaSet) -> None:
    """Let the member that stepped down be elected again, without its wait of a minute."""
    primary = await members.primary()
    for member in members.members:
        if member is not primary:
            async with member.client() as client:
                await client.admin.command({"replSetFreeze": 0})


async def _texts(cluster: Cluster, address: str, name: str, lose: Lose) -> list[str]:
    """Lose the primary while turns stream; return their answers."""
    started = asyncio.Semaphore(0)
    turns = [asyncio.create_task(_turn(cluster, address, f"{name}-{each}", started)) for each in range(TURNS)]
    for _ in turns:
        await started.acquire()
    await lose()
    for each in range(TURNS):
        cluster.sandbox.holds.allow(f"{name}-{each}")
    return await asyncio.gather(*turns)


async def _turn(cluster: Cluster, address: str, session: str, started: asyncio.Semaphore) -> str:
    """Run a turn that is held in the middle of its answer, signal its first text, and return all of it."""
    text = ""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        call = stub.Converse(
            pb.ConverseRequest(session_id=session, text=f"@sandbox plain tokens=40 hold_after=10 hold={session}"),
            metadata=(("authorization", f"Bearer {cluster.api_key}"),),
            timeout=3 * PATIENT,
        )
        async for response in call:
            if response.event.HasField("text_delta") and not text:
                started.release()
            text += response.event.text_delta.text
    return text
