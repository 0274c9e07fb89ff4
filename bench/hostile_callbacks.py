"""Time for which one hostile request blocks the event loop: `python -m bench.hostile_callbacks`.

A server runs here on asyncio's event loop; each callback is measured by the CPU time of its thread. A client in another
thread sends each of `hostile_inputs`. It prints the longest callback of each RPC; the exit status is 1 if one is above
50 ms.
"""

import asyncio
import contextlib
import sys
import tempfile
import threading
import time
from asyncio import events
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from pydantic import SecretStr

from bench.contenders.contender import clean_environment, python
from bench.hostile_inputs import METHODS, HostileInput, hostile_inputs
from bench.process import Child
from godoty_service.bootstrap.components import open_components
from godoty_service.server import running
from godoty_service.settings.settings import Settings
from godoty_service.telemetry.logs import configure_logs
from godoty_service.tenancy.auth import Scope
from openrouter_sandbox.mongodb.replica_set import LocalMongo

LIMIT = 0.050  # seconds
_TRIES = 2  # of one that took too long: the first may have imported something
_TIMEOUT = 20.0  # seconds that one call may take


@dataclass(slots=True)
class Worst:
    """The longest callback since the last `take`."""

    seconds: float = 0.0

    def take(self) -> float:
        """Return it, and reset it."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


@contextlib.contextmanager
def measured() -> Iterator[Worst]:
    """Measure each callback of the loops of this thread while the block runs."""
    worst, run, thread = Worst(), events.Handle._run, threading.get_ident()  # noqa: SLF001 - what the loop calls

    def timed(handle: Any) -> None:
        if threading.get_ident() != thread:
            run(handle)
            return
        begun = time.thread_time()
        run(handle)
        worst.seconds = max(worst.seconds, time.thread_time() - begun)

    events.Handle._run = timed  # type: ignore[method-assign] # noqa: SLF001 - the same
    try:
        yield worst
    finally:
        events.Handle._run = run  # type: ignore[method-assign] # noqa: SLF001 - the same


def send(target: str, metadata: tuple[tuple[str, str], ...], wanted: HostileInput) -> str:
    """Send a request and return the status of the answer. Blocks; one message of a stream is enough."""
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(target, options=options) as channel:
        try:
            if "Reflection" in wanted.method:
                answers = channel.stream_stream(wanted.method)(iter([wanted.body]), timeout=_TIMEOUT)
                next(answers, None)
            elif wanted.streams:
                answers = channel.unary_stream(wanted.method)(wanted.body, metadata=metadata, timeout=_TIMEOUT)
                next(answers, None)
            else:
                channel.unary_unary(wanted.method)(wanted.body, metadata=metadata, timeout=_TIMEOUT)
        except grpc.RpcError as error:
            return str(error.code().name)  # type: ignore[attr-defined] # of a call that has ended
    return "OK"


async def _worst_of(
    target: str, metadata: tuple[tuple[str, str], ...], method: MethodDescriptor, worst: Worst
) -> tuple[float, str, str]:
    """Return the longest callback of a method's requests, which of them it was, and its status."""
    found = (0.0, "", "")
    inputs = hostile_inputs(method)
    while (wanted := await asyncio.to_thread(next, inputs, None)) is not None:  # building them takes time as well
        for again in range(_TRIES):
            await asyncio.sleep(0)
            worst.take()
            status = await asyncio.to_thread(send, target, metadata, wanted)
            seconds = worst.take()
            if seconds <= LIMIT or again:
                break
        found = max(found, (seconds, wanted.name, status))
    return found


async def _run() -> bool:
    good = True
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mongo = await stack.enter_async_context(LocalMongo(directory))
        sandbox = Child(python("openrouter_sandbox"), log=directory / "sandbox.log", environment=clean_environment())
        await sandbox.start()
        stack.push_async_callback(sandbox.stop)
        settings = Settings(
            listen="127.0.0.1:0",
            mongodb_uri=mongo.uri,
            mongodb_database="godoty_bench",
            openrouter_base_url=(await sandbox.line(30)).split()[-1],
            OPENROUTER_API_KEY=SecretStr("sandbox-bench"),
            tenant_calls=1000,
        )
        async with open_components(settings) as components:
            tenant = await components.tenancy.tenants.create("bench")
            _, key = await components.tenancy.api_keys.issue(tenant.tenant_id, scopes=frozenset(Scope))
        server = await stack.enter_async_context(running(settings))
        worst = stack.enter_context(measured())
        metadata = (("authorization", f"Bearer {key}"),)
        print(f"{'method':45} {'worst ms':>9}  status               of")
        for method in METHODS:
            seconds, name, status = await _worst_of(server.address, metadata, method, worst)
            good = good and seconds <= LIMIT
            print(
                f"{method.containing_service.name + '/' + method.name:45} {seconds * 1000:9.1f}  {status:20} {name}",
                flush=True,
            )
    return good


def main() -> None:
    """Measure and print."""
    configure_logs(level="CRITICAL")
    sys.exit(0 if asyncio.run(_run()) else 1)


if __name__ == "__main__":
    main()
