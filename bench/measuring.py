"""Carries a load out on a contender, and reads beside it what each process used."""

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

from bench.contenders.contender import Contender
from bench.generator.plan import Load
from bench.process import cpu_seconds, megabytes
from bench.world import World

_TAIL = 1.0  # seconds after the last answer in which what is still to be written counts too
_LOOK = 0.5  # seconds between two looks at the memory


@dataclass(kw_only=True)
class Sample:
    """One load on one contender.

    Attributes:
        contender: Its name.
        tokens: Tokens that were asked for.
        server: CPU seconds of the server and its children.
        sandbox: CPU seconds of the upstream.
        mongod: CPU seconds of the database.
        generator: CPU seconds of the load generator, decoding left out.
        megabytes: Most memory that the server and its children had.
        seen: What callers saw (`bench.generator.measures.Measures`).
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
    """The text that makes the sandbox answer so."""
    pace = f" flat=0 rate={load.rate:g}" if load.rate else ""
    return f"@sandbox long tokens={load.tokens}{pace}"


async def measure(world: World, contender: Contender, load: Load) -> Sample:
    """Carry a load out; raises RuntimeError when a server has ended."""
    server = contender.child.pid if contender.child is not None else None
    pids = (server, world.sandbox.pid, world.mongo_pid)
    before = [cpu_seconds(pid) if pid else 0.0 for pid in pids]
    looks: list[float] = []
    watch = asyncio.create_task(_look(server, looks))
    try:
        seen = await world.carry_out(contender.asked(prompt(load)), load)
        await asyncio.sleep(_TAIL)
    finally:
        watch.cancel()
    used = [cpu_seconds(pid) - was if pid else 0.0 for pid, was in zip(pids, before, strict=True)]
    return Sample(
        contender=contender.name,
        tokens=load.all_tokens,
        server=used[0],
        sandbox=used[1],
        mongod=used[2],
        generator=seen["cpu"],
        megabytes=max(looks),
        seen=seen,
    )


async def _look(pid: int | None, looks: list[float]) -> None:
    """Note a process's memory now and then."""
    while True:
        looks.append(megabytes(pid) if pid else 0.0)
        await asyncio.sleep(_LOOK)
