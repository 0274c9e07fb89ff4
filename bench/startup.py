"""Time until `godoty serve` is ready, and until its first answers: `python -m bench.startup [--rounds N]`.

MongoDB and the sandbox run; the first start, which warms the file cache, is not counted.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time

from bench.contenders.start import Wish, godoty
from bench.generator.plan import Load
from bench.machine import heading
from bench.measuring import prompt
from bench.promises import Promise, table
from bench.reports import write
from bench.testbed import Testbed, open_testbed

_READY = 2.0  # seconds
_TURNS = Load(streams=1, turns=6, tokens=8)


async def start_once(testbed: Testbed) -> tuple[float, float, float]:
    """Start and stop a server; return the seconds until it serves, to its first token, and to that of a later turn."""
    begun = time.perf_counter()
    contender = await godoty(testbed, Wish())
    ready = time.perf_counter() - begun
    try:
        seen = await testbed.run_plan(contender.asked(prompt(_TURNS)), _TURNS)
    finally:
        if contender.child is not None:
            await contender.child.stop()
    first, *later = seen["first"]
    return ready, first, statistics.median(later)


async def run(rounds: int) -> list[tuple[float, float, float]]:
    """Start it repeatedly."""
    async with open_testbed() as testbed:
        return [await start_once(testbed) for _ in range(rounds + 1)][1:]


def report(starts: list[tuple[float, float, float]], command: str, before: tuple[float, ...]) -> str:
    """Return the report as Markdown."""
    lines = ["| | median | least | most |", "|---|---:|---:|---:|"]
    names = (
        "process start until health says SERVING, s",
        "first token of the first turn, ms",
        "of later turns, ms",
    )
    for name, factor, values in zip(names, (1, 1000, 1000), zip(*starts, strict=True), strict=True):
        shown = " | ".join(f"{each * factor:.2f}" for each in (statistics.median(values), min(values), max(values)))
        lines.append(f"| {name} | {shown} |")
    parts = ["## Start-up", heading(command, before, versions_of={}), table([promise(starts)]), "\n".join(lines)]
    return "\n\n".join(parts) + f"\n\n{len(starts)} starts, the file cache warm.\n"


def promise(starts: list[tuple[float, float, float]]) -> Promise:
    """Ready within two seconds."""
    return Promise("start", "`godoty serve` ready", _READY, statistics.median(ready for ready, _, _ in starts), "s")


def main() -> int:
    """Measure and print; exit status 1: the promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="starts")
    parser.add_argument("--write", action="store_true", help="write the results into docs/benchmarks")
    options, before = parser.parse_args(), os.getloadavg()
    starts = asyncio.run(run(options.rounds))
    text = report(starts, " ".join(["python -m bench.startup", *sys.argv[1:]]), before)
    print(text)
    if options.write:
        write("startup", text, raw=starts)
    return 0 if promise(starts).kept else 1


if __name__ == "__main__":
    sys.exit(main())
