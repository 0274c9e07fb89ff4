"""The load of the hostile run, a process of its own: `python -m bench.hostile_load ADDRESS`.

It sends as many requests as each line of standard input says, at 200 a second, half of them without a valid key, some
of them compressed, half-sent or not read, and prints their outcomes as a line of JSON. `bench.hostile` starts it and
measures the server meanwhile.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from godoty.v1 import admin_service_pb2, agent_definition_service_pb2, agent_service_pb2, billing_service_pb2

from bench.process import Child

RATE = 200  # requests a second
INFLATED = (400_000, 1_000_000, 3_000_000)  # bytes that a compressed request grows by
NICENESS = 5  # of the load's process
LARGEST = 300_000  # bytes of a request that gRPC lets in
WRONG_KEY = f"Bearer gdt_{'0' * 16}_{'A' * 43}"
OPEN_METHODS = (
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/godoty.v1.AgentService/NoSuchMethod",
)


def hostile_bodies(message: Any, rng: random.Random) -> Iterator[bytes]:
    """Yield bodies for a method: empty, noise, and its own message with too long, too many or too deep values."""
    yield b""
    yield rng.randbytes(200)
    yield bytes(LARGEST)
    yield b"\xff" * LARGEST
    for each in message.DESCRIPTOR.fields:
        filled = message()
        with suppress(TypeError, ValueError):
            _fill(filled, each, rng)
            yield filled.SerializeToString()[:LARGEST]


def _fill(message: Any, what: Any, rng: random.Random) -> None:
    """Fill a field with the largest value that fits."""
    value = getattr(message, what.name)
    if what.message_type is not None and what.message_type.GetOptions().map_entry:
        value.update({str(number): "" for number in range(LARGEST // 12)})
    elif what.is_repeated:
        if what.message_type is not None:
            value.extend([what.message_type._concrete_class()] * (LARGEST // 3))  # noqa: SLF001 - there is no other way
        else:
            value.extend([b"x" * 100, "x" * 100, 3, 3.0, True][_kind(what)] for _ in range(LARGEST // 120))
    elif what.message_type is not None:
        for inner in what.message_type.fields:
            with suppress(TypeError, ValueError):
                _fill(value, inner, rng)
        value.SetInParent()
    else:
        texts = ("x" * (LARGEST - 100), "😀" * 50_000, "9" * 200_000, "\0")
        setattr(message, what.name, (b"x" * 1000, rng.choice(texts), 2**31 - 1, 1e308, True)[_kind(what)])


def _kind(what: Any) -> int:
    return {what.CPPTYPE_STRING: 0 if what.type == what.TYPE_BYTES else 1, what.CPPTYPE_DOUBLE: 3}.get(
        what.cpp_type, 4 if what.cpp_type == what.CPPTYPE_BOOL else 2
    )


@dataclass
class Attack:
    """An endless sequence of hostile requests, and their outcomes.

    Attributes:
        key: A valid key of another tenant, with all scopes.
        outcomes: Number of requests by their status.
        sent: Number of requests sent.
    """

    channel: grpc.aio.Channel
    key: str
    rng: random.Random = field(default_factory=lambda: random.Random(14))  # noqa: S311 - reproducible
    outcomes: Counter[str] = field(default_factory=Counter)
    sent: int = 0

    def __post_init__(self) -> None:
        """Create the bodies in advance: creating them must not slow the load."""
        self._bodies = [(method, b"") for method in OPEN_METHODS]
        for module in (admin_service_pb2, agent_definition_service_pb2, agent_service_pb2, billing_service_pb2):
            for service in module.DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    path = f"/{service.full_name}/{method.name}"
                    message = method.input_type._concrete_class  # noqa: SLF001 - it may be of an imported module
                    self._bodies += [(path, body) for body in hostile_bodies(message, self.rng)]

    async def run(self, requests: int) -> float:
        """Send requests at the rate, and wait for the last answer; return the seconds that sending took."""
        begun = time.perf_counter()
        running: set[asyncio.Task[None]] = set()
        for number in range(requests):
            task = asyncio.create_task(self._one())
            running.add(task)
            task.add_done_callback(running.discard)
            await asyncio.sleep(max(0.0, begun + (number + 1) / RATE - time.perf_counter()))
        seconds = time.perf_counter() - begun
        await asyncio.gather(*running)
        return seconds

    async def _one(self) -> None:
        self.sent += 1
        path, body = self.rng.choice(self._bodies)
        metadata: tuple[tuple[str, str], ...] = (("authorization", f"Bearer {self.key}"),)
        if self.rng.random() < 0.5:  # noqa: PLR2004 - half of them
            wrong = (
                (("authorization", WRONG_KEY),),
                (("authorization", f"Bearer gdt_{self.rng.getrandbits(64):016x}_{'A' * 43}"),),
            )
            metadata = self.rng.choice([(), *wrong])
        way = self.rng.choice([self._whole, self._whole, self._compressed, self._half, self._unread])
        try:
            async with asyncio.timeout(20):
                await way(path, body, metadata)
            self.outcomes["OK"] += 1
        except grpc.aio.AioRpcError as error:
            self.outcomes[error.code().name] += 1
        except TimeoutError:
            self.outcomes["no end in 20 s"] += 1

    async def _whole(self, path: str, body: bytes, metadata: Any) -> None:
        call = self.channel.unary_stream(path)(body, metadata=metadata, timeout=3)
        async for _ in call:
            pass

    async def _compressed(self, path: str, body: bytes, metadata: Any) -> None:
        call = self.channel.unary_stream(path)(
            body + bytes(self.rng.choice(INFLATED)), metadata=metadata, timeout=3, compression=grpc.Compression.Gzip
        )
        async for _ in call:
            pass

    async def _half(self, path: str, _: bytes, metadata: Any) -> None:
        """Start a call and send no message."""
        call = self.channel.stream_stream(path)(metadata=metadata, timeout=2)
        async for _ in call:
            pass

    async def _unread(self, path: str, body: bytes, metadata: Any) -> None:
        """Cancel before the answer."""
        call = self.channel.unary_stream(path)(body, metadata=metadata, timeout=3)
        await asyncio.sleep(self.rng.random() * 0.05)
        call.cancel()


async def attack(target: str) -> None:
    """Send the number of requests in each line of standard input, and print their outcomes."""
    os.nice(NICENESS)
    async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        load = Attack(channel, os.environ["HOSTILE_KEY"])
        while line := await asyncio.to_thread(sys.stdin.readline):
            load.outcomes.clear()
            seconds = await load.run(int(line))
            print(json.dumps({"seconds": seconds, "outcomes": load.outcomes}), flush=True)


class Attacker:
    """The process of the load.

    Attributes:
        outcomes: Number of requests by their status.
        sent: Number of requests.
        seconds: Duration of sending them.
    """

    def __init__(self, child: Child) -> None:
        self.child = child
        self.outcomes: Counter[str] = Counter()
        self.sent = 0
        self.seconds = 0.0

    async def run(self, requests: int) -> None:
        """Send requests, and wait for the last answer."""
        await self.child.say(f"{requests}\n")
        ended = json.loads(await self.child.line(3600))
        self.outcomes.update(ended["outcomes"])
        self.sent += requests
        self.seconds += ended["seconds"]


@asynccontextmanager
async def load(address: str, key: str, log: Path) -> AsyncIterator[Attacker]:
    """Run the load as a process."""
    command = [sys.executable, "-m", "bench.hostile_load", address]
    child = Child(command, log=log, environment={**os.environ, "HOSTILE_KEY": key})
    await child.start()
    try:
        yield Attacker(child)
    finally:
        await child.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="the server's address")
    asyncio.run(attack(parser.parse_args().address))
