"""The sandbox OpenRouter as a server: in this process or, by `python -m godoty_service.sandbox`, its own."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import uvicorn

from godoty_service.sandbox.app import build
from godoty_service.sandbox.catalogue import Catalogue
from godoty_service.sandbox.channel import SandboxProtocol
from godoty_service.sandbox.connections import Connections
from godoty_service.sandbox.desk import Desk
from godoty_service.sandbox.generation import Books
from godoty_service.sandbox.holds import Holds
from godoty_service.sandbox.invoice import Invoice
from godoty_service.sandbox.journal import Journal
from godoty_service.sandbox.reasoning_trail import ReasoningTrail
from godoty_service.sandbox.records import Records
from godoty_service.sandbox.scenario_book import ScenarioBook
from godoty_service.sandbox.settings import SandboxSettings

_POLL_SECONDS = 0.005
_BACKLOG = 2048
_GRACE_SECONDS = 2.0


class Sandbox:
    """An OpenRouter on this machine: `async with Sandbox() as sandbox: use(sandbox.base_url)`.

    Args:
        host: The address to listen on.
        port: The port; None takes a free one.
        recorded: A folder of recorded responses for the `replay` scenario.
        settings: What it starts with.

    Attributes:
        invoice: The bookkeeper.
        settings: The settings in force.
        records: The generation records.
        scenarios: The queue and the standing defaults.
        journal: What arrived.
        connections: The open responses.
        holds: What held answers may produce.
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
        self.records = Records(self.settings)
        self.scenarios = ScenarioBook()
        self.journal = Journal()
        self.connections = Connections()
        self.holds = Holds()
        self._recorded = recorded
        self._address = (host, port or 0)
        self._socket: socket.socket | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def origin(self) -> str:
        """`http://HOST:PORT`; `/_sandbox/` stands under it."""
        if self._socket is None:
            raise RuntimeError("the sandbox is not running")
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}"

    @property
    def base_url(self) -> str:
        """What OpenRouter's base URL is replaced with."""
        return f"{self.origin}/api/v1"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen and return when requests are served; raises OSError when the port is taken."""
        self._socket = _listen(self._address)
        self._server = _Server(
            uvicorn.Config(
                build(self._desk()),
                http=SandboxProtocol,
                log_level="warning",
                log_config=None,  # the host process decides how logs look
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

    def _desk(self) -> Desk:
        return Desk(
            catalogue=Catalogue(),
            books=Books(invoice=self.invoice, records=self.records, settings=self.settings),
            scenarios=self.scenarios,
            journal=self.journal,
            connections=self.connections,
            holds=self.holds,
            trail=ReasoningTrail(),
            recorded=self._recorded,
        )


def _listen(address: tuple[str, int]) -> socket.socket:
    """A listening socket whose connections asyncio knows for TCP.

    `socket.create_server` leaves the protocol number 0, and then asyncio does not switch Nagle's algorithm
    off: headers and body in two writes would arrive 40 ms apart.
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
    """uvicorn without its signal handlers: whoever runs the sandbox decides when it stops."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ended = asyncio.Event()

    async def main_loop(self) -> None:
        """Uvicorn's own, which looks for its end ten times a second; this one hears of it at once."""
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
        """Stop listening and cut what is still open: a stop never waits for a hanging client."""
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        for protocol in list(self.server_state.connections):
            transport = getattr(protocol, "transport", None)
            if transport is not None:
                transport.abort()
        if self.server_state.tasks:  # they notice the cut, and bill it
            await asyncio.wait(self.server_state.tasks, timeout=_GRACE_SECONDS)
