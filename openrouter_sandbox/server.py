"""The sandbox as a server, in the current process; `python -m openrouter_sandbox` runs it as its own process."""

from pathlib import Path
from typing import Self

from openrouter_sandbox.answers.reasoning_check import ReasoningCheck
from openrouter_sandbox.app import build_app
from openrouter_sandbox.billing.generation import BillingState
from openrouter_sandbox.billing.generation_records import GenerationRecords
from openrouter_sandbox.billing.invoice import Invoice
from openrouter_sandbox.connections import Connections
from openrouter_sandbox.http_server import HttpServer
from openrouter_sandbox.models.catalogue import Catalogue
from openrouter_sandbox.request_log import RequestLog
from openrouter_sandbox.scenarios.holds import Holds
from openrouter_sandbox.scenarios.scenario_queue import ScenarioQueue
from openrouter_sandbox.settings import SandboxSettings
from openrouter_sandbox.state import SandboxState


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
        self._server = HttpServer(host=host, port=port)

    @property
    def origin(self) -> str:
        """`http://HOST:PORT`; the control endpoints are under `/_sandbox/`."""
        return self._server.origin

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
        await self._server.start(build_app(self._new_state()))

    async def stop(self) -> None:
        """Close every connection and stop."""
        await self._server.stop()

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
