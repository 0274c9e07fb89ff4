"""Cost of GetSessionMetrics at 10 and at 1,000,000 ledger entries (P5): `python -m bench.metrics [--entries N]`.

It requests sessions that were requested just before, and then, each time, one of more sessions than the service caches.
The line `bare` is gRPC and one read of PyMongo alone.

The first call and the newest 60 of the large session are turns of the service itself, which updates the session's
totals with each; the entries between are inserted in bulk as copies of the first, and the totals are multiplied
accordingly. The totals that the service then returns are compared with a sum over all entries. The server, MongoDB and
the sandbox are separate processes; CPU is that of the server's process.
"""

import argparse
import asyncio
import os
import statistics
import sys
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from bench.contenders.contender import Contender
from bench.contenders.start import Wish, bare, godoty
from bench.ledger_fill import Filler
from bench.machine import heading
from bench.metrics_calls import Caller
from bench.process import cpu_seconds
from bench.promises import Promise, table
from bench.reports import write
from bench.testbed import DATABASE, Testbed, open_testbed

SMALL, MIDDLE = 10, 100
NEWEST = 60  # turns of the service's own, after those inserted in bulk
ANOTHER, BARE = "another each time", "bare"
_OTHERS = 1_200  # sessions: more than the service caches
_WARM_UP = 500  # requests
_PROFILED = 200  # requests: MongoDB keeps a megabyte of a profile
_RATIO, _RATE = 1.2, 1500.0
_QUIET = {"GODOTY_RECONCILE_INTERVAL": "600", "GODOTY_ROLLUP_INTERVAL": "600"}  # background work must not be measured


@dataclass
class Cost:
    """The cost of a request, by block.

    Attributes:
        cpu: CPU of the server, milliseconds.
        latency: Median latency, milliseconds.
        rate: Measured requests per second.
        reads: Database operations of a request, by collection and kind.
    """

    cpu: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    reads: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Whom to ask for what.

    Attributes:
        caller: Asks it.
        contender: The server.
        sessions: For whose metrics, one after the other.
    """

    caller: Caller
    contender: Contender
    sessions: Sequence[str]

    @property
    def pid(self) -> int:
        """The server's process."""
        return self.contender.child.pid if self.contender.child is not None else 0


async def run(*, entries: int, rounds: int, block: int) -> dict[str, Cost]:
    """Fill the sessions, then ask for their metrics in blocks, another case first in each round."""
    async with AsyncExitStack() as stack:
        testbed = await stack.enter_async_context(open_testbed())
        callers: dict[str, tuple[Caller, Contender]] = {}
        for start in (godoty, bare):
            contender = await start(testbed, Wish(settings=_QUIET))
            if contender.child is not None:
                stack.push_async_callback(contender.child.stop)
            caller = await Caller.open(contender, connections=2)
            stack.callback(caller.close)
            callers[contender.name] = (caller, contender)
        others = await _fill(testbed, callers["godoty"][0], entries)
        cases = {f"{size:,}": Case(*callers["godoty"], [str(size)]) for size in (SMALL, MIDDLE, entries)}
        cases[ANOTHER] = Case(*callers["godoty"], others)
        cases[BARE] = Case(*callers["bare"], [str(entries)])
        return await _measure(testbed, cases, rounds=rounds, block=block)


async def _fill(testbed: Testbed, caller: Caller, entries: int) -> list[str]:
    """Create the sessions, and check their totals; return the names of the others."""
    async with Filler(testbed.mongo.uri, DATABASE) as filler:
        for size in (SMALL, MIDDLE):
            await caller.turns(str(size), size)
        await caller.turns(str(entries), 1)
        await filler.fill(str(entries), copies=entries - NEWEST - 1)
        await caller.turns(str(entries), NEWEST)
        for size in (SMALL, MIDDLE, entries):
            reported = await caller.totals(str(size))
            summed = await filler.sums(str(size))
            if reported != summed or reported[0] != size:
                raise RuntimeError(f"the session of {size} entries reports {reported}, its entries sum to {summed}")
        return await filler.copy(str(entries), copies=_OTHERS)


async def _measure(testbed: Testbed, cases: dict[str, Case], *, rounds: int, block: int) -> dict[str, Cost]:
    costs = {name: Cost() for name in cases}
    names = list(cases)
    for case in cases.values():
        await case.caller.ask(case.sessions, _WARM_UP)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            case, cost = cases[name], costs[name]
            before = cpu_seconds(case.pid)
            latencies, elapsed = await case.caller.ask(case.sessions, block)
            cost.cpu.append((cpu_seconds(case.pid) - before) * 1000 / block)
            cost.latency.append(statistics.median(latencies) * 1000)
            cost.rate.append(block / elapsed)
    async with Filler(testbed.mongo.uri, DATABASE) as filler:
        for name, case in cases.items():
            async with filler.profiled() as seen:
                await case.caller.ask(case.sessions, _PROFILED)
            costs[name].reads = {kind: count / _PROFILED for kind, count in seen.items() if count >= _PROFILED / 10}
    return costs


def promises(costs: dict[str, Cost]) -> Iterable[Promise]:
    """P5."""
    sizes = list(costs)[:3]
    small, large = costs[sizes[0]], costs[sizes[-1]]
    of = f"at {sizes[-1]} entries, of that at {sizes[0]}"
    bare = statistics.median(costs[BARE].cpu)
    yield Promise("P5", f"CPU {of}", _RATIO, statistics.median(large.cpu) / statistics.median(small.cpu))
    yield Promise("P5", f"latency {of}", _RATIO, statistics.median(large.latency) / statistics.median(small.latency))
    for name, cost in ((f"at {sizes[-1]} entries", large), (ANOTHER, costs[ANOTHER])):
        yield Promise("P5", f"database reads, {name}", 1, sum(cost.reads.values()))
    what = "CPU a request: 1,500 a second on one core"
    yield Promise("P5", what, 1000 / _RATE, statistics.median(large.cpu), "ms", bare)


def report(costs: dict[str, Cost], command: str, before: tuple[float, ...]) -> str:
    """Return the report as Markdown."""
    lines = [
        "| ledger entries | CPU a request, ms | a core's worth, a second | seen, a second | latency, ms | reads |",
        "|---:|---:|---:|---:|---:|---|",
    ]
    for name, cost in costs.items():
        cpu, latency, rate = (statistics.median(each) for each in (cost.cpu, cost.latency, cost.rate))
        reads = ", ".join(f"{name} {count:.2f}" for name, count in cost.reads.items())
        lines.append(f"| {name} | {cpu:.3f} | {1000 / cpu:,.0f} | {rate:,.0f} | {latency:.2f} | {reads} |")
    note = (
        "Eight concurrent requests; `seen` is with caller, server and MongoDB on the same cores. Blocks of each "
        "size alternate; medians. A session of 10 has 10 runs in its answer, the others the newest 50. Less than one "
        "read per request: concurrent reads are batched. The promise concerns sessions that were requested before; "
        "the first request of one is the line `another each time`. `bare` reads no totals and checks no keys."
    )
    opening = ["## GetSessionMetrics", heading(command, before, versions_of={})]
    return "\n\n".join([*opening, table(list(promises(costs))), "\n".join(lines), note]) + "\n"


def main() -> int:
    """Measure and print; exit status 1: P5 is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000, help="ledger entries of the large session")
    parser.add_argument("--rounds", type=int, default=9, help="blocks of each size")
    parser.add_argument("--block", type=int, default=1000, help="requests in a block")
    parser.add_argument("--write", action="store_true", help="write the results into docs/benchmarks")
    options, before = parser.parse_args(), os.getloadavg()
    costs = asyncio.run(run(entries=options.entries, rounds=options.rounds, block=options.block))
    text = report(costs, " ".join(["python -m bench.metrics", *sys.argv[1:]]), before)
    print(text)
    if options.write:
        write("metrics", text, raw={name: vars(cost) for name, cost in costs.items()})
    return 0 if all(promise.kept for promise in promises(costs)) else 1


if __name__ == "__main__":
    sys.exit(main())
