"""Godoty beside its peers, in one run: `python -m bench.peers [--only NAMES] [--mode NAMES] [--rounds N] [--write]`.

Every server is a separate process and calls the same sandbox OpenRouter; one load generator calls them all. Godoty runs
as in production: with keys, ledger, agent loop, sessions, turn logs and log lines; each model call is durable before
its request is sent. The peers store nothing.
"""

import argparse
import asyncio
import os
import statistics
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

from bench.contenders.contender import Contender
from bench.contenders.start import CONTENDERS, Wish
from bench.generator.plan import Load
from bench.machine import all_versions, heading
from bench.measuring import Sample, measure
from bench.modes import ALL, MANY, PEERS, Mode
from bench.plot import plot
from bench.promises import promises
from bench.promises import table as promise_table
from bench.reports import write
from bench.results import Results
from bench.tables import tables
from bench.testbed import Testbed, open_testbed

_WARM_UP = Load(streams=8, turns=4, tokens=100)


async def run(modes: Mapping[str, Mode], wish: Wish) -> Results:
    """Measure; modes with the same number of workers share their servers."""
    results = Results()
    for workers in sorted({mode.workers for mode in modes.values()}):
        shared = {name: mode for name, mode in modes.items() if mode.workers == workers}
        await _run_shared(shared, replace(wish, workers=workers), results)
    return results


async def _run_shared(modes: Mapping[str, Mode], wish: Wish, results: Results) -> None:
    needed = [name for name in ALL if any(name in mode.contenders for mode in modes.values())]
    async with AsyncExitStack() as stack:
        testbed = await stack.enter_async_context(open_testbed())
        contenders: list[Contender] = []
        for name in needed:
            contender = await CONTENDERS[name](testbed, wish)
            contenders.append(contender)
            if contender.child is not None:
                stack.push_async_callback(contender.child.stop)
        for contender in contenders:
            await measure(testbed, contender, _WARM_UP)
        for name, mode in modes.items():
            asked = [contender for contender in contenders if contender.name in mode.contenders]
            await _rounds(testbed, name, mode, asked, results)


async def _rounds(testbed: Testbed, name: str, mode: Mode, contenders: list[Contender], results: Results) -> None:
    """Run a mode, with another contender first in each round."""
    for turn in range(mode.rounds):
        first = turn % len(contenders)
        for contender in contenders[first:] + contenders[:first]:
            sample = await measure(testbed, contender, mode.load)
            results.add(name, mode, sample)
            print(_line(name, sample), file=sys.stderr, flush=True)


def _line(mode: str, sample: Sample) -> str:
    """Return a sample as a line, to follow the run."""
    seen = sample.seen
    first = statistics.median(seen["first"]) * 1000 if seen["first"] else 0
    whole = statistics.median(seen["whole"]) if seen["whole"] else 0
    held = " ".join(f"{each * 1000:.0f}" for each in seen["held"])
    merged = sample.tokens / max(1, seen["messages"])
    return (
        f"{mode:9}{sample.contender:16}{sample.microseconds:7.1f} µs/token {sample.megabytes:5.0f} MB"
        f"  first {first:7.1f} ms  whole {whole:6.2f} s  all {seen['elapsed']:5.1f} s  held {held or '-'} ms"
        f"  {merged:.1f} tokens a message  failed {seen['failed']} {seen['faults'][:1] or ''}"
    )


def report(results: Results, command: str, before: tuple[float, ...]) -> str:
    """Return the report as Markdown."""
    parts = [
        "## Godoty beside its peers",
        heading(command, before, versions_of=all_versions()),
        _NOTES,
        promise_table(list(promises(results))),
        tables(results),
    ]
    return "\n\n".join(parts) + "\n"


def chosen(options: argparse.Namespace, modes: Mapping[str, Mode]) -> dict[str, Mode]:
    """Return the modes that the command line names."""
    names = options.mode.split(",") if options.mode else list(modes)
    only = options.only.split(",") if options.only else list(ALL)
    wanted = {name: modes[name] for name in names}
    return {
        name: replace(
            mode,
            rounds=options.rounds or mode.rounds,
            workers=options.workers or mode.workers,
            contenders=tuple(each for each in ALL if each in only and (options.only or each in mode.contenders)),
        )
        for name, mode in wanted.items()
    }


def parser() -> argparse.ArgumentParser:
    """Parse the command line."""
    known = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known.add_argument("--only", help=f"contenders, by commas, of {', '.join(CONTENDERS)}")
    known.add_argument("--mode", help=f"modes, by commas, of {', '.join((*PEERS, *MANY))}")
    known.add_argument("--rounds", type=int, help="rounds of each mode")
    known.add_argument("--workers", type=int, help="Godoty's worker processes")
    known.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of Godoty's")
    known.add_argument("--write", action="store_true", help="write the results into docs/benchmarks")
    return known


def main() -> int:
    """Measure and print; exit status 1: a promise was not kept."""
    options, before = parser().parse_args(), os.getloadavg()
    wish = Wish(settings=dict(each.split("=", 1) for each in options.set))
    results = asyncio.run(run(chosen(options, {**PEERS, **MANY}), wish))
    text = report(results, " ".join(["python -m bench.peers", *sys.argv[1:]]), before)
    print(text)
    if options.write:
        write("peers", text, raw=results.as_dict(), svg=plot(results))
    return 0 if all(promise.kept for promise in promises(results)) else 1


_NOTES = """\
CPU is that of the server's process and its children, user and system, from the operating system, from the first
request until a second after the last answer; memory is resident, shared pages divided (PSS), at its most. Godoty's
figures include its ledger (each model call durable on a MongoDB replica set of one member before its request is sent),
API keys, sessions, turn logs and log lines, a new session per turn; the peers store nothing: LiteLLM's proxy runs
without its database. `held` is how much later than its scheduled time a token arrived; the earliest token of an answer
sets the schedule. Medians of the rounds, times of all answers together. `direct` is the load generator at the upstream
itself; `bare` is grpc.aio, aiohttp, PyMongo and uvloop alone: two durable writes, a request, and a message for each
token. It stores no answer and closes no call: the difference between it and a limit is all that a service can use."""


if __name__ == "__main__":
    sys.exit(main())
