"""The sandbox as a server, in the current process; `python -m openrouter_sandbox` runs it as its own process."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import uvicorn

from openrouter_sandbox.answers.reasoning_check import ReasoningCheck
from openrouter_sandbox.app import build_app
from openrouter_sandbox.billing.generation import BillingState
from openrouter_sandbox.billing.generation_records import GenerationRecords
from openrouter_sandbox.billing.invoice import Invoice
from openrouter_sandbox.connections import Connections
from openrouter_sandbox.models.catalogue import Catalogue
from openrouter_sandbox.request_log import RequestLog
from openrouter_sandbox.scenarios.holds import Holds
from openrouter_sandbox.scenarios.scenario_queue import ScenarioQueue
from openrouter_sandbox.settings import SandboxSettings
from openrouter_sandbox.state import SandboxState
from openrouter_sandbox.streaming.client_connection import SandboxProtocol

_POLL_SECONDS = 0.005
_BACKLOG = 2048
_GRACE_SECONDS = 2.0


class Sandbox:
    """An OpenRouter emulator: `async with Sandbox() as sandbox: use(sandbox.base_url)`.

    Args:
        host: The address to listen on.
        port: The TCP port; None selects a free one.
        recorded: A folder of recorded responses for the `replay` scenario.
        settings: The initial settings.

    Attributes:
        invoice: One line per billed generation.
        settings: The current settings.
        records: The generation records.
        scenarios: The queued and standing scenarios.
        request_log: The newest requests.
        connections: The open and aborted responses.
        holds: The tokens released to paused answers.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        recorded: Path | None = None,
        settings: SandboxSettings | None = None,
    ) -> None:
        self.invoice = Invoice()
        self.settings = settings or SandboxSettings()
        self.records = GenerationRecords(self.settings)
        self.scenarios = ScenarioQueue()
        self.request_log = RequestLog()
        self.connections = Connections()
        self.holds = Holds()
        self._recorded = recorded
        self._address = (host, port or 0)
        self._socket: socket.socket | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def origin(self) -> str:
        """`http://HOST:PORT`; the control endpoints are under `/_sandbox/`."""
        if self._socket is None:
            raise RuntimeError("the sandbox is not running: use `async with` or call `start` first")
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}"

    @property
    def base_url(self) -> str:
        """The replacement for OpenRouter's base URL."""
        return f"{self.origin}/api/v1"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, and return when requests are served.

        Raises:
            OSError: The port is in use.
        """
        self._socket = _listen(self._address)
        self._server = _Server(
            uvicorn.Config(
                build_app(self._new_state()),
                http=SandboxProtocol,
                log_level="warning",
                log_config=None,  # the host process configures logging
                access_log=False,
                lifespan="off",
                timeout_keep_alive=60,
            )
        )
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """Close every connection and stop."""
        if self._server is None or self._serving is None or self._socket is None:
            return
        self._server.end()
        await self._serving
        self._socket.close()
        self._server = self._serving = self._socket = None

    def _new_state(self) -> SandboxState:
        return SandboxState(
            catalogue=Catalogue(),
            billing=BillingState(invoice=self.invoice, records=self.records, settings=self.settings),
            scenarios=self.scenarios,
            request_log=self.request_log,
            connections=self.connections,
            holds=self.holds,
            reasoning_check=ReasoningCheck(),
            recorded=self._recorded,
        )


def _listen(address: tuple[str, int]) -> socket.socket:
    """Return a listening socket with the protocol number of TCP.

    `socket.create_server` sets the protocol number to 0, and asyncio then does not disable Nagle's algorithm:
    headers and body in two writes would arrive 40 ms apart.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class _Server(uvicorn.Server):
    """A uvicorn server without signal handlers: the host process decides when it stops."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ended = asyncio.Event()

    async def main_loop(self) -> None:
        """Run until stopped, like uvicorn's own loop; but stop at once, not at the next tick of 0.1 s."""
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 1) % 864000
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 0.1)

    def end(self) -> None:
        """Stop serving."""
        self.should_exit = True
        self._ended.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening and abort open connections: a stop never waits for a hanging client."""
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for protocol in list(self.server_state.connections):
            transport = getattr(protocol, "transport", None)
            if transport is not None:
                transport.abort()
        if self.server_state.tasks:  # they detect the abort and bill it
            await asyncio.wait(self.server_state.tasks, timeout=_GRACE_SECONDS)
