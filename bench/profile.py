"""Godoty's CPU time by layer and by function: `python -m bench.profile [--rate N] [--write]`.

py-spy samples the Python stacks of the server 100 times a second under load. It stops the server for each sample, for a
few milliseconds: the result is shares, not times. It needs permission to trace another process: root, or
kernel.yama.ptrace_scope=0.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import stacks
from bench.contenders.contender import Contender
from bench.contenders.start import Wish, godoty
from bench.environments import interpreter, versions
from bench.generator.plan import Load
from bench.machine import heading
from bench.measuring import Sample, measure
from bench.reports import write
from bench.testbed import Testbed, open_testbed

LOADS: Mapping[str, tuple[str, Load]] = {
    "short": ("Short turns: 20 streams, answers of 8 tokens one after the other", Load(streams=20, turns=25, tokens=8)),
    "paced": ("Paced: 100 streams of 20 tokens a second", Load(streams=100, turns=1, tokens=200, rate=20)),
}
_WARM_UP = Load(streams=8, turns=4, tokens=100)
_FUNCTIONS = 25
_ATTACH_SECONDS = 30.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The profile of a load.

    Attributes:
        title: A description of the load.
        sample: Its costs, and the callers' measurements.
        rate: Samples per second.
        layers: Samples by layer.
        functions: Samples in which a function ran, itself or what it called.
        innermost: Samples in which it ran itself.
    """

    title: str
    sample: Sample
    rate: int
    layers: Counter[str]
    functions: Counter[stacks.Frame]
    innermost: Counter[stacks.Frame]

    def share(self, samples: int) -> float:
        """A part of all samples, in percent."""
        return 100 * samples / max(1, self.layers.total())

    def as_dict(self) -> dict[str, object]:
        """For the raw results."""
        functions = [
            {"function": frame.function, "path": frame.path, "samples": samples, "itself": self.innermost[frame]}
            for frame, samples in self.functions.most_common()
            if self.share(samples) >= 1
        ]
        return {"load": self.title, "rate": self.rate, "layers": dict(self.layers), "functions": functions}


async def run(names: list[str], rate: int) -> list[Profile]:
    """Start the testbed and Godoty, and carry the loads out."""
    async with AsyncExitStack() as stack:
        testbed = await stack.enter_async_context(open_testbed())
        contender = await godoty(testbed, Wish())
        assert contender.child is not None  # noqa: S101 - Godoty is a process
        stack.push_async_callback(contender.child.stop)
        await measure(testbed, contender, _WARM_UP)
        return [await _profile(testbed, contender, *LOADS[name], rate=rate) for name in names]


async def _profile(testbed: Testbed, contender: Contender, title: str, load: Load, *, rate: int) -> Profile:
    assert contender.child is not None  # noqa: S101 - Godoty is a process
    seen = testbed.directory / "stacks.txt"
    spy = Path(interpreter("profile")).with_name("py-spy")
    what = ["--pid", str(contender.child.pid), "--gil", "--function", "--full-filenames"]
    command = [str(spy), "record", *what, "--rate", str(rate), "--format", "raw", "--output", str(seen)]
    sampler = testbed.child(f"py-spy-{load.streams}", command, output=False)
    await sampler.start()
    try:
        async with asyncio.timeout(_ATTACH_SECONDS):
            while "Sampling process" not in sampler.log_end():
                _ = sampler.process  # raises when it has ended
                await asyncio.sleep(_POLL_SECONDS)
        sample = await measure(testbed, contender, load)
        sampler.process.send_signal(signal.SIGINT)  # it writes its samples
        await sampler.process.wait()
    finally:
        await sampler.stop()
    found = stacks.read(seen.read_text())
    print(f"{title}: {sum(each.samples for each in found)} samples", file=sys.stderr, flush=True)
    return Profile(
        title=title,
        sample=sample,
        rate=rate,
        layers=stacks.by_layer(found),
        functions=stacks.by_function(found),
        innermost=stacks.by_innermost(found),
    )


def report(profiles: list[Profile], command: str, before: tuple[float, ...]) -> str:
    """Return the report as Markdown."""
    head = heading(command, before, versions_of={"profile": versions("profile", "py-spy")})
    return "\n\n".join(["## Where the time goes", head, _NOTES, *(_section(each) for each in profiles)]) + "\n"


def _section(profile: Profile) -> str:
    samples, sample, itself = profile.layers.total(), profile.sample, profile.innermost
    account = (
        f"{samples} samples, {profile.rate} samples per second. The load took {sample.seen['elapsed']:.1f} s and "
        f"{sample.server:.1f} s of the server's CPU; {sample.seen['failed']} answers failed."
    )
    lines = [
        f"### {profile.title}",
        "",
        account,
        "",
        "| layer | samples, % |",
        "|---|---:|",
        *(f"| {layer} | {profile.share(count):.1f} |" for layer, count in profile.layers.most_common()),
        "",
        f"The {_FUNCTIONS} functions with the largest shares, what they call included, and what they run themselves:",
        "",
        "| function | file | samples, % | itself, % |",
        "|---|---|---:|---:|",
    ]
    lines += [
        f"| `{frame.function}` | {frame.path} | {profile.share(count):.1f} | {profile.share(itself[frame]):.1f} |"
        for frame, count in profile.functions.most_common(_FUNCTIONS)
    ]
    return "\n".join(lines)


_NOTES = """\
A sample is the stack of the thread that holds Python's lock. It counts once, for the layer of its innermost frame that
has one: what Python's own library does for a layer, and what is written in C, stand with their caller. What runs
without the lock is not seen: system calls, and gRPC's own threads. Of gRPC's Cython there are no frames: what it does
in a step of the loop stands in a line with the loop. A thread that holds the lock and waits for a core is seen, too."""


def main() -> int:
    """Sample and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", default=",".join(LOADS), help=f"loads, by commas, of {', '.join(LOADS)}")
    parser.add_argument("--rate", type=int, default=100, help="samples per second")
    parser.add_argument("--write", action="store_true", help="write the results into docs/benchmarks")
    options, before = parser.parse_args(), os.getloadavg()
    profiles = asyncio.run(run(options.load.split(","), options.rate))
    text = report(profiles, " ".join(["python -m bench.profile", *sys.argv[1:]]), before)
    print(text)
    if options.write:
        write("profile", text, raw=[each.as_dict() for each in profiles])
    return 0


if __name__ == "__main__":
    sys.exit(main())
