"""What writing each call ahead adds to the time to first token: `python -m bench.write_ahead [--turns N]`.

The whole service runs in this process; the sandbox OpenRouter and MongoDB are processes of their own. Turns with
and without the wait for the entry alternate in one run, each in a session of its own. Without the wait the entry
is written all the same, beside the request: what differs is the waiting alone.
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

from godoty_service import rooms
from godoty_service.metering.call import ModelCall
from godoty_service.metering.ledger import AnyEntry, Ledger
from godoty_service.mongo import Database
from godoty_service.sandbox.replica_set import LocalMongo
from godoty_service.server import running
from godoty_service.settings import Settings
from godoty_service.telemetry.logs import configure_logs
from godoty_service.tenancy.principal import Scope

ALLOWED = 2.0  # milliseconds that the write may add to the median
WARM_UP = 40
PROMPT = "@sandbox plain tokens=8"


class SwitchedLedger(Ledger):
    """A ledger whose insert need not be waited for.

    Attributes:
        waits: Whether it is, as in the service.
        inserts: How long each one took, in milliseconds.
    """

    waits = True
    inserts: list[float] = []  # noqa: RUF012 - one for all: the server builds the ledger, the bench reads it

    async def insert(self, entry: AnyEntry, *, permit: Callable[[], None] = lambda: None) -> AnyEntry:
        """Write an entry, or begin to."""
        if self.waits:
            return await self._timed(entry, permit)
        assert isinstance(entry, ModelCall)  # noqa: S101 - nothing is adjusted here
        _late[entry.call_id] = asyncio.create_task(self._write(entry))
        return entry

    async def close(self, call: ModelCall) -> bool:
        """Close a call, once it is there."""
        if (late := _late.pop(call.call_id, None)) is not None:
            await late
        return await super().close(call)

    async def _timed(self, entry: AnyEntry, permit: Callable[[], None]) -> AnyEntry:
        begun = time.perf_counter()
        written = await super().insert(entry, permit=permit)
        self.inserts.append(_milliseconds(begun))
        return written

    async def _write(self, entry: ModelCall) -> None:
        await super().insert(entry)


_late: dict[str, asyncio.Task[None]] = {}


@dataclass
class Times:
    """Times to first token in milliseconds, with the wait and without."""

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
        async with rooms.open_rooms(settings) as kept:
            stack.push_async_callback(_drop, settings)
            tenant = await kept.tenants.create("bench")
            _, key = await kept.keys.issue(tenant.tenant_id, scopes=frozenset({Scope.CONVERSE}))
        with patch.object(rooms, "Ledger", SwitchedLedger):
            server = await stack.enter_async_context(running(settings))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address))
        times = await _measure(channel, key, turns)
        members = await _members(settings)
    sys.stdout.write(_report(times, members=members, load=load))


async def _measure(channel: grpc.aio.Channel, key: str, turns: int) -> Times:
    """Take turns of both kinds by pairs, the order within each pair drawn."""
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
    """Take a turn to its end; return how long its first text took to come, as the caller sees it."""
    stub = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated
    begun, took = time.perf_counter(), None
    request = pb.ConverseRequest(session_id=session, text=PROMPT)
    async for response in stub.Converse(request, metadata=(("authorization", f"Bearer {key}"),), timeout=30):
        if took is None and response.HasField("text_delta"):
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
    """Say what the database is."""
    from pymongo import AsyncMongoClient  # noqa: PLC0415 - the service's own driver is another one

    client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(settings.mongodb_uri)
    async with client:
        hello = await client.admin.command("hello")
        version = (await client.server_info())["version"]
    return f"MongoDB {version}, a replica set of {len(hello['hosts'])}."


async def _drop(settings: Settings) -> None:
    async with rooms.open_rooms(settings) as kept:
        database: Database = kept.database
        await database.drop()


@asynccontextmanager
async def _sandbox() -> AsyncIterator[str]:
    """Run the sandbox OpenRouter as a process; gives its base URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "godoty_service.sandbox"), stdout=asyncio.subprocess.PIPE
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
