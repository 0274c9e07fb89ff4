"""Time to first token that the durable write before each call adds: `python -m bench.write_ahead [--turns N]`.

The service runs in this process; the sandbox OpenRouter and MongoDB are separate processes. Turns with and without the
wait for the entry alternate in one run, each in a new session. Without the wait the entry is still written,
concurrently with the request: only the wait differs.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

import grpc
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc
from pydantic import SecretStr

from godoty_service import bootstrap
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.ledger import AnyEntry, Ledger
from godoty_service.mongo.client import Database
from godoty_service.server import running
from godoty_service.settings.settings import Settings
from godoty_service.telemetry.logs import configure_logs
from godoty_service.tenancy.auth import Scope
from openrouter_sandbox.mongodb.replica_set import LocalMongo

ALLOWED = 2.0  # milliseconds that the write may add to the median
WARM_UP = 40
PROMPT = "@sandbox plain tokens=8"


class SwitchedLedger(Ledger):
    """A ledger that can return from `insert` before the write.

    Attributes:
        waits: Whether `insert` waits for the write, as in the service.
        inserts: Duration of each insert, in milliseconds.
    """

    waits = True
    inserts: list[float] = []  # noqa: RUF012 - one for all: the server builds the ledger, the bench reads it

    async def insert(self, entry: AnyEntry, *, permit: Callable[[], None] = lambda: None) -> AnyEntry:
        """Insert an entry, or start to."""
        if self.waits:
            return await self._timed(entry, permit)
        assert isinstance(entry, ModelCall)  # noqa: S101 - nothing is adjusted here
        _late[entry.call_id] = asyncio.create_task(self._write(entry))
        return entry

    async def close(self, call: ModelCall) -> bool:
        """Close a call, once its entry is inserted."""
        if (late := _late.pop(call.call_id, None)) is not None:
            await late
        return await super().close(call)

    async def _timed(self, entry: AnyEntry, permit: Callable[[], None]) -> AnyEntry:
        begun = time.perf_counter()
        written = await super().insert(entry, check=permit)
        self.inserts.append(_milliseconds(begun))
        return written

    async def _write(self, entry: ModelCall) -> None:
        await super().insert(entry)


_late: dict[str, asyncio.Task[None]] = {}


@dataclass
class Times:
    """The times to first token in milliseconds, with the wait and without."""

    on: list[float] = field(default_factory=list)
    off: list[float] = field(default_factory=list)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--turns", type=int, default=400, help="turns of each kind")
    turns: int = parser.parse_args().turns
    configure_logs(level="WARNING")
    asyncio.run(_run(turns))


async def _run(turns: int) -> None:
    load = os.getloadavg()[0]
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        uri = os.environ.get("GODOTY_MONGODB_URI")
        if not uri:
            uri = (await stack.enter_async_context(LocalMongo(directory))).uri
        settings = Settings(
            listen="127.0.0.1:0",
            mongodb_uri=uri,
            mongodb_database=f"godoty_bench_{os.getpid()}",
            openrouter_base_url=await stack.enter_async_context(_sandbox()),
            OPENROUTER_API_KEY=SecretStr("sandbox-bench"),
        )
        async with bootstrap.open_components(settings) as components:
            stack.push_async_callback(_drop, settings)
            tenant = await components.tenancy.tenants.create("bench")
            _, key = await components.tenancy.api_keys.issue(tenant.tenant_id, scopes=frozenset({Scope.CONVERSE}))
        with patch.object(bootstrap, "Ledger", SwitchedLedger):
            server = await stack.enter_async_context(running(settings))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address))
        times = await _measure(channel, key, turns)
        members = await _members(settings)
    sys.stdout.write(_report(times, members=members, load=load))


async def _measure(channel: grpc.aio.Channel, key: str, turns: int) -> Times:
    """Run turns of both kinds in pairs, in random order within each pair."""
    times, order = Times(), random.Random(7)  # noqa: S311 - it mixes, it keeps no secret
    for number in range(WARM_UP):
        SwitchedLedger.waits = number % 2 == 0
        await _first_token(channel, key, f"warm-{number}")
    SwitchedLedger.inserts.clear()
    for number in range(turns):
        for waits in order.sample((True, False), 2):
            SwitchedLedger.waits = waits
            took = await _first_token(channel, key, f"{'on' if waits else 'off'}-{number}")
            (times.on if waits else times.off).append(took)
    return times


async def _first_token(channel: grpc.aio.Channel, key: str, session: str) -> float:
    """Run a turn; return the time to its first text, as measured by the caller."""
    stub = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated
    begun, took = time.perf_counter(), None
    request = pb.ConverseRequest(session_id=session, text=PROMPT)
    async for response in stub.Converse(request, metadata=(("authorization", f"Bearer {key}"),), timeout=30):
        if took is None and response.event.HasField("text_delta"):
            took = _milliseconds(begun)
    if took is None:
        raise RuntimeError("a turn had no text")
    return took


def _report(times: Times, *, members: str, load: float) -> str:
    added = statistics.median(times.on) - statistics.median(times.off)
    verdict = "within" if added <= ALLOWED else "**beyond**"
    lines = [
        "## Writing ahead: time to first token",
        "",
        "| the entry is | turns | median | 95th percentile |",
        "|---|---:|---:|---:|",
        f"| waited for, as in the service | {_row(times.on)} |",
        f"| written beside the request | {_row(times.off)} |",
        f"| *the write itself* | {_row(SwitchedLedger.inserts)} |",
        "",
        f"Added to the median: {added:.2f} ms, {verdict} the {ALLOWED:.0f} ms allowed.",
        "",
        f"Each entry is durable before its request leaves: acknowledged by a majority, journaled. {members}",
        f"{datetime.now().astimezone():%Y-%m-%d}, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}.",
        "One turn at a time; client and service in one process, sandbox and mongod beside them.",
        f"Load average {load:.1f} before the run, {os.getloadavg()[0]:.1f} after it; the run itself makes about 1.",
        "",
    ]
    return "\n".join(lines)


def _row(times: list[float]) -> str:
    p95 = statistics.quantiles(times, n=20, method="inclusive")[-1]
    return f"{len(times)} | {statistics.median(times):.2f} ms | {p95:.2f} ms"


async def _members(settings: Settings) -> str:
    """Return a description of the database."""
    from pymongo import AsyncMongoClient  # noqa: PLC0415 - the service's own driver is another one

    client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(settings.mongodb_uri)
    async with client:
        hello = await client.admin.command("hello")
        version = (await client.server_info())["version"]
    return f"MongoDB {version}, a replica set of {len(hello['hosts'])}."


async def _drop(settings: Settings) -> None:
    async with bootstrap.open_components(settings) as components:
        database: Database = components.database
        await database.drop()


@asynccontextmanager
async def _sandbox() -> AsyncIterator[str]:
    """Run the sandbox OpenRouter as a process; yield its base URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openrouter_sandbox"), stdout=asyncio.subprocess.PIPE
    )
    try:
        if process.stdout is None:
            raise RuntimeError("the sandbox has no output")
        ready = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().split()
        yield ready[-1]
    finally:
        process.terminate()
        await process.wait()


def _milliseconds(begun: float) -> float:
    return (time.perf_counter() - begun) * 1000


if __name__ == "__main__":
    main()
