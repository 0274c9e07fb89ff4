"""Effect of one tenant's flood on another: `python -m bench.flood`.

One tenant may start 60 turns a minute and requests 50 times as many; another runs turns one after the other. Its
median time to first token is measured without and with the flood, in alternating rounds of one run. The server, the
sandbox OpenRouter and MongoDB are separate processes; they and the load share this machine's cores.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import grpc
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc

from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.policies import Policy
from openrouter_sandbox.mongodb.replica_set import LocalMongo
from tests.faults.cluster import Cluster, open_cluster

ROUNDS = 4
TURNS = 40  # a round
ALLOWED_A_MINUTE = 60
FLOOD_A_SECOND = 50  # 50 times as many


async def _first_token(stub: agent_service_pb2_grpc.AgentServiceStub, key: str) -> float:
    """Run a turn; return the milliseconds until its first text."""
    begun = time.perf_counter()
    first = 0.0
    call = stub.Converse(
        pb.ConverseRequest(text="@sandbox plain tokens=4"), metadata=(("authorization", f"Bearer {key}"),), timeout=30
    )
    async for response in call:
        if not first and response.HasField("text_delta"):
            first = (time.perf_counter() - begun) * 1000
    return first


async def _flood(stub: agent_service_pb2_grpc.AgentServiceStub, key: str, outcomes: Counter[str]) -> None:
    """Request a turn every fiftieth of a second until cancelled."""

    async def one() -> None:
        try:
            await _first_token(stub, key)
            outcomes["OK"] += 1
        except grpc.aio.AioRpcError as error:
            outcomes[error.code().name] += 1

    running: set[asyncio.Task[None]] = set()
    while True:
        task = asyncio.create_task(one())
        running.add(task)
        task.add_done_callback(running.discard)
        await asyncio.sleep(1 / FLOOD_A_SECOND)


async def _measure(cluster: Cluster, address: str, calm_key: str) -> None:
    await cluster.components.tenancy.policies.set(cluster.tenant_id, Policy(turns_per_minute=ALLOWED_A_MINUTE))
    outcomes: Counter[str] = Counter()
    times: dict[bool, list[float]] = {False: [], True: []}
    async with grpc.aio.insecure_channel(address) as calm, grpc.aio.insecure_channel(address) as loud:
        calm_stub = agent_service_pb2_grpc.AgentServiceStub(calm)  # type: ignore[no-untyped-call] # generated
        loud_stub = agent_service_pb2_grpc.AgentServiceStub(loud)  # type: ignore[no-untyped-call] # generated
        for _ in range(TURNS):
            await _first_token(calm_stub, calm_key)  # warm
        for number in range(2 * ROUNDS):
            flooded = number % 2 == 1
            flood = asyncio.create_task(_flood(loud_stub, cluster.api_key, outcomes)) if flooded else None
            await asyncio.sleep(0.3)
            for _ in range(TURNS):
                times[flooded].append(await _first_token(calm_stub, calm_key))
            if flood is not None:
                flood.cancel()
                with suppress(asyncio.CancelledError):
                    await flood
            await asyncio.sleep(0.3)
    without, with_flood = (statistics.median(times[flooded]) for flooded in (False, True))
    sys.stdout.write(
        "| | median time to first token, ms |\n|---|---|\n"
        f"| alone | {without:.1f} |\n| beside the flood | {with_flood:.1f} |\n"
        f"| ratio | {with_flood / without:.2f} |\n\n"
        f"{ROUNDS} rounds of {TURNS} turns each way; the flood's turns: {dict(outcomes)}\n"
    )


async def main() -> None:
    """Measure and print Markdown."""
    with tempfile.TemporaryDirectory() as directory:
        async with (
            LocalMongo(Path(directory) / "mongodb") as mongo,
            open_cluster(mongodb_uri=mongo.uri, name="godoty_test_flood", directory=Path(directory)) as cluster,
        ):
            tenant = await cluster.components.tenancy.tenants.create("calm")
            _, key = await cluster.components.tenancy.api_keys.issue(
                tenant.tenant_id, scopes=frozenset({Scope.CONVERSE})
            )
            server = cluster.server(GODOTY_LEASE="15", GODOTY_HEARTBEAT="2")
            await server.start()
            try:
                await _measure(cluster, server.address, key)
            finally:
                await server.stop()


if __name__ == "__main__":
    asyncio.run(main())
