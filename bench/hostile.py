"""A hostile run over all RPCs: `python -m bench.hostile [--requests N]`.

By default 100,000 requests at 200 a second, half of them without a valid key, some of them compressed, half-sent or not
read; and a normal caller, alone and beside them, in five alternating pairs. It measures the server's memory
after a warm-up and at the end, the longest callback of its event loop by thread CPU time, and the caller's median time
to first token. Exit status 1: a limit was exceeded. The server runs on asyncio's event loop, whose callbacks can be
timed. The load is a separate process at a lower priority: hostile callers do not run on the server's machine. The
rate that it reached is printed. The server, the sandbox OpenRouter, MongoDB and the normal caller share this machine's
cores.
"""

import argparse
import asyncio
import json
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc

from bench.hostile_load import RATE, load
from bench.process import Child, cpu_seconds, megabytes
from godoty_service.tenancy.auth import Scope
from openrouter_sandbox.mongodb.replica_set import LocalMongo
from tests.faults.cluster import Cluster, logged, open_cluster

REPORT = "callback.json"  # the file of the longest callback
PAIRS = 5
MOST_GROWTH = 50.0  # MB
LONGEST_CALLBACK = 0.05  # seconds of thread CPU time
MOST_RATIO = 1.5
WARM_UP = 600  # requests, and a tenth as many turns


def serve(report: Path) -> None:
    """Run a server that writes its longest callback to a file; SIGUSR1 resets it."""
    longest = 0.0
    run = asyncio.Handle._run  # noqa: SLF001 - there is no other place where all callbacks pass

    def timed(handle: asyncio.Handle) -> None:
        nonlocal longest
        begun = time.thread_time()
        run(handle)
        took = time.thread_time() - begun
        if took > longest:
            longest = took
            report.write_text(json.dumps({"seconds": took, "callback": repr(handle)[:300]}))

    def forget(*_: object) -> None:
        nonlocal longest
        longest = 0.0

    signal.signal(signal.SIGUSR1, forget)
    asyncio.Handle._run = timed  # type: ignore[method-assign] # noqa: SLF001 - the same
    from godoty_service.cli.context import read_settings  # noqa: PLC0415 - only the server's process needs them
    from godoty_service.server import serve as serve_service  # noqa: PLC0415 - the same

    asyncio.run(serve_service(read_settings()))


async def first_tokens(stub: Any, key: str, until: Callable[[int], bool]) -> list[float]:
    """Run turns one after the other until stopped; return the milliseconds to the first text of each."""
    times: list[float] = []
    while not until(len(times)):
        begun = time.perf_counter()
        request = pb.ConverseRequest(session_id="calm", text="@sandbox plain tokens=4")
        first = 0.0
        async for response in stub.Converse(request, metadata=(("authorization", f"Bearer {key}"),), timeout=30):
            if not first and response.event.HasField("text_delta"):
                first = (time.perf_counter() - begun) * 1000
        times.append(first)
    return times


@dataclass
class Result:
    """The measurements.

    Attributes:
        memory: Memory of the server in MB after the warm-up, and at the end.
        callback: The longest callback of its event loop: its seconds and its name.
        pairs: The caller's median milliseconds alone and beside the attack, of each pair.
        rate: Hostile requests per second.
        cpu: Milliseconds of the server's CPU for each of them, including the normal caller's turns.
        outcomes: Number of hostile requests by their status.
    """

    memory: tuple[float, float]
    callback: dict[str, Any]
    pairs: list[tuple[float, float]]
    rate: float
    cpu: float
    outcomes: Counter[str]

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return statistics.median(beside / alone for alone, beside in self.pairs)

    def report(self) -> bool:
        """Print Markdown; return whether all limits were kept."""
        before, after = self.memory
        rows = [
            ("memory, MB", f"{before:.0f} → {after:.0f}", f"+{MOST_GROWTH:g}", after - before <= MOST_GROWTH),
            (
                "longest callback, ms of CPU",
                f"{self.callback['seconds'] * 1000:.1f}",
                f"{LONGEST_CALLBACK * 1000:g}",
                self.callback["seconds"] <= LONGEST_CALLBACK,
            ),
            (
                "a good caller's median, beside ÷ alone",
                f"{self.ratio:.2f}",
                f"{MOST_RATIO:g}",
                self.ratio <= MOST_RATIO,
            ),
        ]
        print("| | measured | limit | |\n|---|---|---|---|")
        for name, measured, limit, kept in rows:
            print(f"| {name} | {measured} | {limit} | {'kept' if kept else 'PASSED'} |")
        print(f"\nPairs, ms: {', '.join(f'{alone:.1f} and {beside:.1f}' for alone, beside in self.pairs)}")
        print(f"Sent: {self.rate:.0f} requests a second; the server's CPU for each: {self.cpu:.2f} ms")
        print(f"Longest callback: {self.callback['callback']}")
        print(f"Requests ended: {dict(self.outcomes.most_common())}")
        return all(kept for *_, kept in rows)


async def measure(cluster: Cluster, child: Child, address: str, directory: Path, requests: int) -> Result:
    """Warm up, then measure the pairs."""
    _, key = await cluster.another_tenant()
    tenant = await cluster.components.tenancy.tenants.create("hostile")
    _, hostile_key = await cluster.components.tenancy.api_keys.issue(tenant.tenant_id, scopes=frozenset(Scope))
    async with (
        grpc.aio.insecure_channel(address) as channel,
        load(address, hostile_key, directory / "attack.log") as attacker,
    ):
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        await asyncio.gather(attacker.run(WARM_UP), first_tokens(stub, key, lambda taken: taken >= WARM_UP // 10))
        attacker.outcomes.clear()
        attacker.sent, attacker.seconds = 0, 0.0
        before = megabytes(child.pid)
        child.process.send_signal(signal.SIGUSR1)
        pairs, cpu = [], 0.0
        for _ in range(PAIRS):
            end = time.perf_counter() + min(requests / RATE / PAIRS, 20.0)
            alone = await first_tokens(stub, key, lambda _, end=end: time.perf_counter() > end)  # type: ignore[misc]
            cpu -= cpu_seconds(child.pid)
            attacking = asyncio.create_task(attacker.run(requests // PAIRS))
            beside = await first_tokens(stub, key, lambda _, attacking=attacking: attacking.done())  # type: ignore[misc]
            await attacking
            cpu += cpu_seconds(child.pid)
            pairs.append((statistics.median(alone), statistics.median(beside)))
        await asyncio.sleep(2)
        callback = json.loads((directory / REPORT).read_text())
        return Result(
            memory=(before, megabytes(child.pid)),
            callback=callback,
            pairs=pairs,
            rate=attacker.sent / attacker.seconds,
            cpu=cpu * 1000 / attacker.sent,
            outcomes=attacker.outcomes,
        )


@asynccontextmanager
async def server(cluster: Cluster, directory: Path) -> AsyncIterator[tuple[Child, str]]:
    """Run the server as a process."""
    log = directory / "hostile.log"
    command = [sys.executable, "-m", "bench.hostile", "--serve", str(directory / REPORT)]
    environment = cluster.server(GODOTY_LEASE="15", GODOTY_HEARTBEAT="2").environment
    child = Child(command, log=log, environment=environment, output=False)
    await child.start()
    try:
        async with asyncio.timeout(60):
            while not (lines := [*logged(log.read_bytes(), "serving")]):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.1)
        yield child, lines[0]["address"]
    finally:
        await child.stop()


async def main(requests: int) -> bool:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with (
            LocalMongo(directory / "mongodb") as mongo,
            open_cluster(mongodb_uri=mongo.uri, name="godoty_test_hostile", directory=directory) as cluster,
            server(cluster, directory) as (child, address),
        ):
            return (await measure(cluster, child, address, directory, requests)).report()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000, help="how many hostile requests")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
    else:
        sys.exit(0 if asyncio.run(main(arguments.requests)) else 1)
