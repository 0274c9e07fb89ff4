"""Time for which attachments block the event loop: `python -m bench.attachments`.

A server runs here on asyncio's event loop; each callback is measured by the CPU time of its thread, as in
`hostile_callbacks`. A client in another thread uploads ten images of 5 MB, converses for twenty turns, whose requests
carry them all in the end, and reads one. It prints the longest callback of each step; the exit status is 1 if one is
above 50 ms. `tests/e2e/attachments/test_memory.py` measures the memory of the same conversation.
"""

import asyncio
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc
from pydantic import SecretStr

from bench.contenders.contender import clean_environment, python
from bench.hostile_callbacks import LIMIT, Worst, measured
from bench.process import Child
from godoty_service.aio.gc import freeze_gc
from godoty_service.bootstrap.components import open_components
from godoty_service.server import running
from godoty_service.settings.settings import Settings
from godoty_service.telemetry.logs import configure_logs
from godoty_service.tenancy.auth import Scope
from openrouter_sandbox.mongodb.replica_set import LocalMongo

_MODEL = "anthropic/claude-haiku-4.5"
_SIZE = 5_000_000  # bytes of an image
_PIECE = 256 * 1024  # bytes of a message
_IMAGES, _TURNS = 10, 20
_TIMEOUT = 120.0  # seconds of a call


def image(size: int) -> bytes:
    """Return a PNG of at least this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2000, 1500, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * (1500 * 6001)))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"prVt", os.urandom(size)) + pixels + chunk(b"IEND", b"")


class Client:
    """A blocking client."""

    def __init__(self, target: str, key: str) -> None:
        self._stub: Any = agent_service_pb2_grpc.AgentServiceStub(grpc.insecure_channel(target))  # type: ignore[no-untyped-call] # generated
        self._options: dict[str, Any] = {"metadata": (("authorization", f"Bearer {key}"),), "timeout": _TIMEOUT}

    def upload(self, data: bytes) -> str:
        """Upload an image; return its id."""
        pieces = (pb.UploadAttachmentRequest(data=data[at : at + _PIECE]) for at in range(0, len(data), _PIECE))
        return str(self._stub.UploadAttachment(pieces, **self._options).attachment.attachment_id)

    def converse(self, text: str, attachments: list[dict[str, str]]) -> None:
        """Run a turn."""
        request = pb.ConverseRequest(session_id="talk", text=text, model=_MODEL, attachments=attachments)
        for _ in self._stub.Converse(request, **self._options):
            pass

    def read(self, attachment_id: str) -> None:
        """Read an attachment."""
        for _ in self._stub.GetAttachment(pb.GetAttachmentRequest(attachment_id=attachment_id), **self._options):
            pass


def _steps(client: Client) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the steps of the conversation by name."""
    ids: list[str] = []
    for number in range(_TURNS):
        attachments: list[dict[str, str]] = []
        if number < _IMAGES:
            yield f"upload {number + 1}", lambda: ids.append(client.upload(image(_SIZE)))
            attachments = [{"attachment_id": ids[-1]}]
        yield f"turn {number + 1}", lambda n=number, a=attachments: client.converse(f"turn {n}", a)
    yield "read", lambda: client.read(ids[0])


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
            storage_timeout=60.0,
            storage_probe_timeout=60.0,  # other work may run beside: callbacks are measured by their own time
        )
        async with open_components(settings) as components:
            tenant = await components.tenancy.tenants.create("bench")
            _, key = await components.tenancy.api_keys.issue(tenant.tenant_id, scopes=frozenset(Scope))
        server = await stack.enter_async_context(running(settings))
        freeze_gc()  # as `serve` does
        worst = stack.enter_context(measured())
        for name, step in _steps(Client(server.address, key)):
            good = await _measure(name, step, worst) and good
    return good


async def _measure(name: str, step: Callable[[], Any], worst: Worst) -> bool:
    """Run a step in a thread, and print its longest callback; return whether it is within the limit."""
    worst.take()
    await asyncio.to_thread(step)
    seconds = worst.take()
    print(f"{name:12} {seconds * 1000:9.1f} ms", flush=True)
    return seconds <= LIMIT


def main() -> None:
    """Measure and print."""
    configure_logs(level="CRITICAL")
    sys.exit(0 if asyncio.run(_run()) else 1)


if __name__ == "__main__":
    main()
