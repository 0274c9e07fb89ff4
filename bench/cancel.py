"""Time from a cancellation to the provider: `python -m bench.cancel`.

A caller cancels in the middle of an endless answer; measured is the time until the provider's connection is closed. The
server is a separate process; the sandbox OpenRouter runs in this one, beside the caller.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc

from openrouter_sandbox.mongodb.replica_set import LocalMongo
from tests.faults.cluster import Cluster, open_cluster

ALLOWED = 100.0  # milliseconds, by promise T3
TURNS = 100
PROMPT = "@sandbox plain tokens=9 hold_after=3 record_ms=-1"


async def _cancelled(cluster: Cluster, stub: agent_service_pb2_grpc.AgentServiceStub, number: int) -> float:
    """Cancel a turn after its third token; return the milliseconds until the provider sees it."""
    seen = len(cluster.sandbox.connections.as_dict()["aborted"])
    request = pb.ConverseRequest(session_id=f"cancel-{number}", text=PROMPT)
    call = stub.Converse(request, metadata=cluster.metadata, timeout=30)
    text = ""
    async for response in call:
        text += response.text_delta.text
        if text.endswith("t2 "):
            break
    cancelled = time.time()
    call.cancel()
    async with asyncio.timeout(10):
        while len(aborted := cluster.sandbox.connections.as_dict()["aborted"]) == seen:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.0005)
    return (float(aborted[-1]["noticed_at"]) - cancelled) * 1000


async def _measure(cluster: Cluster, address: str) -> list[float]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        return sorted([await _cancelled(cluster, stub, number) for number in range(TURNS)])


async def main() -> None:
    """Measure and print Markdown."""
    with tempfile.TemporaryDirectory() as directory:
        async with (
            LocalMongo(Path(directory) / "mongodb") as mongo,
            open_cluster(mongodb_uri=mongo.uri, name="godoty_test_cancel", directory=Path(directory)) as cluster,
        ):
            server = cluster.server(GODOTY_LEASE="15", GODOTY_HEARTBEAT="2")
            await server.start()
            try:
                times = await _measure(cluster, server.address)
            finally:
                await server.stop()
    sys.stdout.write(
        "| cancel until the provider's connection closes | ms |\n|---|---|\n"
        f"| median of {TURNS} | {statistics.median(times):.1f} |\n| longest | {times[-1]:.1f} |\n"
        f"| allowed | {ALLOWED:.0f} |\n"
    )


if __name__ == "__main__":
    asyncio.run(main())
