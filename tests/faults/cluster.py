"""A cluster for fault tests: MongoDB, the sandbox with its invoice, and server processes that can be killed."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from godoty_service.bootstrap.components import Components, open_components
from godoty_service.settings.settings import Settings
from godoty_service.tenancy.auth import Scope
from openrouter_sandbox.server import Sandbox
from tests.faults.invoice_comparison import InvoiceComparison, ServerEvidence, compare
from tests.support.command import Command
from tests.support.leases import SHORT_LEASE_ENVIRONMENT
from tests.support.ports import hold_port

_READY = 60.0  # start timeout of a server, in seconds


@dataclass
class ServerProcess:
    """A `godoty serve` process that can be killed and restarted on the same port.

    Attributes:
        killed: The replica ids of its killed processes.
    """

    environment: dict[str, str]
    log: Path
    process: Command | None = None
    replica_id: str = ""
    killed: list[str] = field(default_factory=list)
    _reserved: socket.socket | None = None  # its port, while it is down

    @property
    def address(self) -> str:
        """The "host:port" of its listener."""
        return self.environment["GODOTY_LISTEN"]

    @property
    def running(self) -> bool:
        """Whether its process has been started and has not ended."""
        return self.process is not None and self.process.returncode is None

    async def start(self) -> None:
        """Start the process and wait until it serves; restarts use the same port."""
        log_start = self.log.stat().st_size if self.log.exists() else 0
        self.process = Command("serve", environment=self.environment, out=self.log)
        async with asyncio.timeout(_READY):
            # Readiness is read from its log: another process may have bound the port in the meantime.
            while not (started := [*logged(self._log_from(log_start), "serving")]):
                if self.process.returncode is not None:
                    raise RuntimeError(f"the server exited: {self.log.read_text()[-2000:]}")
                await asyncio.sleep(0.02)
        self.environment = {**self.environment, "GODOTY_LISTEN": started[0]["address"]}
        self.replica_id = started[0]["replica_id"]
        self._release_port()

    def _release_port(self) -> None:
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    def _log_from(self, start: int) -> bytes:
        return self.log.read_bytes()[start:] if self.log.exists() else b""

    async def kill(self) -> None:
        """Kill the process with SIGKILL, like a crash."""
        self.killed.append(self.replica_id)
        await self._end(signal.SIGKILL)
        with suppress(OSError):  # a worker of it listens still
            self._reserved = self._reserved or hold_port(int(self.address.rpartition(":")[2]))

    async def stop(self) -> None:
        """Stop the process with SIGTERM; a paused process is resumed first, since it would not receive the signal."""
        await self._end(signal.SIGCONT, signal.SIGTERM)
        self._release_port()

    async def _end(self, *numbers: signal.Signals) -> None:
        if self.process is not None and self.running:
            for number in numbers:
                self.process.send_signal(number)
            await self.process.wait()


class Cluster:
    """MongoDB, the sandbox and a tenant, with server processes that use them."""

    def __init__(
        self, *, settings: Settings, components: Components, sandbox: Sandbox, directory: Path, tenant_id: str, key: str
    ) -> None:
        self.settings = settings
        self.components = components
        self.sandbox = sandbox
        self.api_key = key
        self.tenant_id = tenant_id
        self.metadata = (("authorization", f"Bearer {key}"),)
        self._directory = directory
        self._servers: list[ServerProcess] = []

    def server(self, **environment: str) -> ServerProcess:
        """Create a server process with its own port; it is not started."""
        base = {name: value for name, value in os.environ.items() if not name.startswith(("GODOTY_", "OPENROUTER_"))}
        provider_key = self.settings.openrouter_api_key
        assert provider_key is not None
        server = ServerProcess(
            environment={
                **base,
                "GODOTY_LISTEN": "127.0.0.1:0",
                "GODOTY_MONGODB_URI": self.settings.mongodb_uri or "",
                "GODOTY_MONGODB_DATABASE": self.settings.mongodb_database,
                "GODOTY_OPENROUTER_BASE_URL": self.sandbox.base_url,
                "OPENROUTER_API_KEY": provider_key.get_secret_value(),
                **SHORT_LEASE_ENVIRONMENT,
                "GODOTY_STORAGE_PROBE_TIMEOUT": "60",  # a slow machine, or an election, is no outage
                # A server killed during a record lookup holds the call for 30 s, and lookups may fail.
                "GODOTY_RECORD_PATIENCE": "120",
                "GODOTY_RECORD_PATIENCE_WITH_USAGE": "5",
                **environment,
            },
            log=self._directory / f"server-{len(self._servers) + 1}.log",
        )
        self._servers.append(server)
        return server

    async def another_tenant(self) -> tuple[str, str]:
        """Create another tenant; return its id and an API key."""
        return await new_tenant(self.components)

    @property
    def serving(self) -> bool:
        """Whether any server is running."""
        return any(each.running for each in self._servers)

    @property
    def killed(self) -> set[str]:
        """The ids of killed replicas."""
        return {replica_id for server in self._servers for replica_id in server.killed}

    async def settled(self, *, within: float) -> None:
        """Wait until no call is pending."""
        async with asyncio.timeout(within):
            while (await self.components.accounting.ledger.count())[0]:
                await asyncio.sleep(0.2)

    async def compare_with_invoice(self) -> InvoiceComparison:
        """Compare the ledger with the invoice line by line: the invoice equation (A8)."""
        outcomes = {line["turn_id"]: line["outcome"] for line in self._logged("turn_ended")}
        evidence = ServerEvidence(killed=self.killed, outcomes=outcomes)
        return await compare(self.components, self.sandbox.invoice, evidence)

    def _logged(self, event: str) -> Iterator[dict[str, Any]]:
        """Yield the servers' log events of one kind."""
        for server in self._servers:
            yield from logged(server.log.read_bytes(), event)


def logged(log: bytes, event: str) -> Iterator[dict[str, Any]]:
    """Yield the events of one kind in a log; its last line may be incomplete and is skipped."""
    for line in log.split(b"\n")[:-1]:
        if f'"event": "{event}"'.encode() in line:
            yield json.loads(line)


async def new_tenant(components: Components) -> tuple[str, str]:
    """Create a tenant; return its id and an API key."""
    tenant = await components.tenancy.tenants.create("faults")
    _, key = await components.tenancy.api_keys.issue(tenant.tenant_id, scopes=frozenset({Scope.CONVERSE}))
    return tenant.tenant_id, key


@asynccontextmanager
async def open_cluster(*, mongodb_uri: str, name: str, directory: Path, **changed: Any) -> AsyncIterator[Cluster]:
    """Open a cluster with its own database, which is dropped at the end; `changed` are settings of its components."""
    async with Sandbox() as sandbox:
        sandbox.settings.change({"record_requests": False})
        settings = Settings(
            mongodb_uri=mongodb_uri,
            mongodb_database=name,
            openrouter_base_url=sandbox.base_url,
            OPENROUTER_API_KEY=SecretStr("sandbox-faults"),
            **changed,
        )
        async with open_components(settings) as components:
            try:
                tenant_id, key = await new_tenant(components)
                yield Cluster(
                    settings=settings,
                    components=components,
                    sandbox=sandbox,
                    directory=directory,
                    tenant_id=tenant_id,
                    key=key,
                )
            finally:
                await components.database.drop()
