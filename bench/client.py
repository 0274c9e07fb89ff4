"""CPU of the Python clients beside the bare stubs: `python -m bench.client [--rounds N]`.

Each reads 100 streams of 20 tokens a second at once, in a process of its own, whose CPU time counts from its first
request on. Blocking ones read in 100 threads. Every text is compared with the expected one. The contestants alternate,
and each round begins with another one.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import grpc
import grpc.aio
from godoty import AsyncGodoty, Godoty
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc

from bench.contenders.contender import MODEL, READY_SECONDS, clean_environment, python
from bench.contenders.start import Wish, godoty
from bench.process import Child
from bench.testbed import Testbed, open_testbed

ALLOWED = 1.3  # of the CPU of the stubs
STREAMS, TOKENS, RATE = 100, 60, 20
PROMPT = f"@sandbox long tokens={TOKENS} flat=0 rate={RATE}"
EXPECTED = "".join(f"t{number} " for number in range(TOKENS))
Texts = list[list[str]]  # the pieces of each answer
PAIRS = {"AsyncGodoty": "grpc.aio", "Godoty": "grpc"}  # each client and its stubs


class Sample(NamedTuple):
    """What a contestant took.

    Attributes:
        cpu: CPU seconds of its process.
        pieces: The number of messages with text that it read.
    """

    cpu: float
    pieces: int


async def _async_stubs(address: str, key: str) -> Texts:
    metadata = (("authorization", f"Bearer {key}"),)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated

        async def read() -> list[str]:
            text: list[str] = []
            async for response in stub.Converse(pb.ConverseRequest(text=PROMPT, model=MODEL), metadata=metadata):
                text.append(response.event.text_delta.text)  # noqa: PERF401 - as a program would
            return text

        return await asyncio.gather(*(read() for _ in range(STREAMS)))


async def _async_client(address: str, key: str) -> Texts:
    async with AsyncGodoty(address, key) as client:

        async def read() -> list[str]:
            text: list[str] = []
            async for each in client.converse(PROMPT, model=MODEL).text_stream:
                text.append(each)  # noqa: PERF401 - as a program would
            return text

        return await asyncio.gather(*(read() for _ in range(STREAMS)))


def _in_threads(read: Callable[[int], list[str]]) -> Texts:
    with ThreadPoolExecutor(STREAMS) as threads:
        return list(threads.map(read, range(STREAMS)))


def _stubs(address: str, key: str) -> Texts:
    metadata = (("authorization", f"Bearer {key}"),)
    with grpc.insecure_channel(address) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated

        def read(_: int) -> list[str]:
            responses = stub.Converse(pb.ConverseRequest(text=PROMPT, model=MODEL), metadata=metadata)
            return [response.event.text_delta.text for response in responses]

        return _in_threads(read)


def _client(address: str, key: str) -> Texts:
    with Godoty(address, key) as client:
        return _in_threads(lambda _: list(client.converse(PROMPT, model=MODEL).text_stream))


READERS: dict[str, Callable[[str, str], Texts]] = {
    "grpc.aio": lambda address, key: asyncio.run(_async_stubs(address, key)),
    "AsyncGodoty": lambda address, key: asyncio.run(_async_client(address, key)),
    "grpc": _stubs,
    "Godoty": _client,
}


def read_streams(name: str, address: str) -> None:
    """Read the streams as one of the contestants; print the CPU seconds, the wrong texts and the pieces."""
    begun = time.process_time()
    texts = READERS[name](address, os.environ["GODOTY_API_KEY"])
    cpu = time.process_time() - begun
    wrong = sum("".join(pieces) != EXPECTED for pieces in texts)
    pieces = sum(len([piece for piece in pieces if piece]) for pieces in texts)
    print(json.dumps({"cpu": cpu, "wrong": wrong, "pieces": pieces}), flush=True)


async def _measured(testbed: Testbed, name: str, address: str) -> Sample:
    """Run a contestant; return what its process took."""
    environment = {**clean_environment(), "GODOTY_API_KEY": testbed.api_key}
    child: Child = testbed.child("reader", python("bench.client", "--read", name, address), environment=environment)
    await child.start()
    try:
        result = json.loads(await child.line(READY_SECONDS))
    finally:
        await child.stop()
    if result["wrong"]:
        raise RuntimeError(f"{name}: {result['wrong']} texts of {STREAMS} were wrong")
    return Sample(result["cpu"], result["pieces"])


async def measure(rounds: int) -> dict[str, list[Sample]]:
    """Return the samples of each round by contestant."""
    names = list(READERS)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    async with open_testbed() as testbed:
        server = await godoty(testbed, Wish())
        address = f"{server.target.host}:{server.target.port}"
        try:
            for number in range(rounds):
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    samples[name].append(await _measured(testbed, name, address))
        finally:
            if server.child is not None:
                await server.child.stop()
    return samples


def report(samples: dict[str, list[Sample]]) -> bool:
    """Print the results as Markdown; return whether both clients are within what is allowed."""
    median = {name: statistics.median(each.cpu for each in found) for name, found in samples.items()}
    pieces = {name: statistics.median(each.pieces for each in found) for name, found in samples.items()}
    rounds = len(samples["grpc"])
    print(f"| {STREAMS} streams of {TOKENS} tokens | CPU, median of {rounds} | messages | a message | ratio |")
    print("|---|---:|---:|---:|---:|")
    for client, stubs in PAIRS.items():
        for name in (stubs, client):
            each = median[name] / pieces[name] * 1e6
            ratio = f"{median[client] / median[stubs]:.2f}" if name == client else ""
            print(f"| {name} | {median[name]:.2f} s | {pieces[name]:.0f} | {each:.0f} µs | {ratio} |")
    print(f"\nAllowed: {ALLOWED:.2f}. Load average after the run: {os.getloadavg()[0]:.1f}.")
    print("On a busy machine the server sends several tokens in a message, and the numbers of messages differ.")
    return all(median[client] <= ALLOWED * median[stubs] for client, stubs in PAIRS.items())


def main() -> int:
    """Measure and print; exit status 1: a client takes more than is allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--read", nargs=2, metavar=("NAME", "ADDRESS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read_streams(*arguments.read)
        return 0
    return 0 if report(asyncio.run(measure(arguments.rounds))) else 1


if __name__ == "__main__":
    sys.exit(main())
