"""Runs a load on a contender, and measures what each process uses."""

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

from bench.contenders.contender import Contender
from bench.generator.plan import Load
from bench.process import cpu_seconds, megabytes
from bench.testbed import Testbed

_TAIL = 1.0  # seconds after the last answer in which pending writes count as well
_SAMPLE_INTERVAL = 0.5  # seconds between two samples of the memory


@dataclass(kw_only=True)
class Sample:
    """One load on one contender.

    Attributes:
        contender: Its name.
        tokens: Requested tokens.
        server: CPU seconds of the server and its children.
        sandbox: CPU seconds of the upstream.
        mongod: CPU seconds of the database.
        generator: CPU seconds of the load generator, without decoding.
        megabytes: Highest memory use of the server and its children.
        seen: The callers' measurements (`bench.generator.measures.Measures`).
    """

    contender: str
    tokens: int
    server: float
    sandbox: float
    mongod: float
    generator: float
    megabytes: float
    seen: dict[str, Any]

    @property
    def microseconds(self) -> float:
        """CPU of the server for each token."""
        return self.server / self.tokens * 1e6

    def as_dict(self) -> dict[str, Any]:
        """For the raw results."""
        return asdict(self)


def prompt(load: Load) -> str:
    """Return the text that makes the sandbox answer with the load's tokens."""
    pace = f" flat=0 rate={load.rate:g}" if load.rate else ""
    return f"@sandbox long tokens={load.tokens}{pace}"


async def measure(testbed: Testbed, contender: Contender, load: Load) -> Sample:
    """Run a load; raise RuntimeError if a server has ended."""
    server = contender.child.pid if contender.child is not None else None
    pids = (server, testbed.sandbox.pid, testbed.mongo_pid)
    before = [cpu_seconds(pid) if pid else 0.0 for pid in pids]
    samples: list[float] = []
    sampler = asyncio.create_task(_sample_memory(server, samples))
    try:
        seen = await testbed.run_plan(contender.asked(prompt(load)), load)
        await asyncio.sleep(_TAIL)
    finally:
        sampler.cancel()
    used = [cpu_seconds(pid) - was if pid else 0.0 for pid, was in zip(pids, before, strict=True)]
    return Sample(
        contender=contender.name,
        tokens=load.all_tokens,
        server=used[0],
        sandbox=used[1],
        mongod=used[2],
        generator=seen["cpu"],
        megabytes=max(samples),
        seen=seen,
    )


async def _sample_memory(pid: int | None, samples: list[float]) -> None:
    """Sample a process's memory until cancelled."""
    while True:
        samples.append(megabytes(pid) if pid else 0.0)
        await asyncio.sleep(_SAMPLE_INTERVAL)
