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
SLOW = "@sandbox slow tokens=40 first_delay_ms=0 delay_ms=25"


@pytest.fixture
async def members(tmp_path: Path) -> AsyncIterator[LocalReplicaSet]:
    """Three members, one of them primary."""
    async with LocalReplicaSet(tmp_path) as started:
        yield started


Lose = Callable[[LocalReplicaSet], Awaitable[Mongod]]


@pytest.mark.parametrize("lose", [LocalReplicaSet.kill_primary, LocalReplicaSet.step_down], ids=["killed", "stepped"])
async def test_turns_outlive_their_primary(members: LocalReplicaSet, tmp_path: Path, lose: Lose) -> None:
    """Six turns stream when the primary fails: each ends well and whole, and the ledger equals the invoice."""
    name = f"godoty_test_failover_{secrets.token_hex(4)}"
    async with open_cluster(mongodb_uri=members.uri, name=name, directory=tmp_path) as cluster:
        server = cluster.server(GODOTY_LEASE="15", GODOTY_RECONCILE_INTERVAL="0.2")
        await server.start()
        try:
            started = asyncio.Semaphore(0)
            turns = [asyncio.create_task(_turn(cluster, server.address, f"s{each}", started)) for each in range(TURNS)]
            for _ in turns:
                await started.acquire()
            await lose(members)
            texts = await asyncio.gather(*turns)
            await cluster.settled(within=180)
        finally:
            await server.stop()
        comparison = await cluster.compare_with_invoice()

        assert comparison.faults == []
        assert [len(text.split()) for text in texts] == [40] * TURNS
        assert (comparison.calls, comparison.settled, comparison.lines) == (TURNS, TURNS, TURNS)
        assert comparison.cost == comparison.invoiced > 0


async def _turn(cluster: Cluster, address: str, session: str, started: asyncio.Semaphore) -> str:
    """Run a turn, signal its first text, and return all of it."""
    text = ""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        call = stub.Converse(
            pb.ConverseRequest(session_id=session, text=SLOW),
            metadata=(("authorization", f"Bearer {cluster.api_key}"),),
            timeout=30,
        )
        async for response in call:
            if response.event.HasField("text_delta") and not text:
                started.release()
            text += response.event.text_delta.text
    return text
