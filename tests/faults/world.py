"""A world to break: a real MongoDB, the sandbox with its invoice, and server processes that can be killed."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from godoty_service.rooms import Rooms, open_rooms
from godoty_service.sandbox.server import Sandbox
from godoty_service.settings import Settings
from godoty_service.tenancy.principal import Scope
from tests.faults.books import Books, Witness, compare
from tests.service.command import Command

_READY = 60.0  # seconds that a server gets to start


@dataclass
class ServerProcess:
    """A `godoty serve` that can be killed and started again on the same port.

    Attributes:
        killed: The replicas that it was when it was killed.
    """

    environment: dict[str, str]
    log: Path
    process: Command | None = None
    replica_id: str = ""
    killed: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """host:port of its listener."""
        return self.environment["GODOTY_LISTEN"]

    async def start(self) -> None:
        """Start it, and wait until it serves; from then on it keeps the port that it got."""
        begun = self.log.stat().st_size if self.log.exists() else 0
        self.process = Command("serve", environment=self.environment, out=self.log)
        async with asyncio.timeout(_READY):
            # By its own word: on a port that was free a moment ago somebody else's server may answer.
            while not (told := [*logged(self.log.read_bytes()[begun:] if self.log.exists() else b"", "serving")]):
                if self.process.returncode is not None:
                    raise RuntimeError(f"the server ended: {self.log.read_text()[-2000:]}")
                await asyncio.sleep(0.02)
        self.environment = {**self.environment, "GODOTY_LISTEN": told[0]["address"]}
        self.replica_id = told[0]["replica_id"]

    async def kill(self) -> None:
        """Kill it, as a crash would."""
        self.killed.append(self.replica_id)
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Stop it, as an operator would; one that stands still goes on first, or it would not hear of it."""
        await self._end(signal.SIGCONT, signal.SIGTERM)

    async def _end(self, *numbers: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            for number in numbers:
                self.process.send_signal(number)
            await self.process.wait()


class World:
    """MongoDB, the sandbox, and what it takes to start servers on them."""

    def __init__(
        self, *, settings: Settings, rooms: Rooms, sandbox: Sandbox, directory: Path, tenant_id: str, key: str
    ) -> None:
        self.settings = settings
        self.rooms = rooms
        self.sandbox = sandbox
        self.api_key = key
        self.tenant_id = tenant_id
        self.metadata = (("authorization", f"Bearer {key}"),)
        self._directory = directory
        self._servers: list[ServerProcess] = []

    def server(self, **environment: str) -> ServerProcess:
        """Make a server process on a port of its own."""
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
                "GODOTY_LEASE": "1.5",
                "GODOTY_HEARTBEAT": "0.3",
                # A server that is killed in the middle of a look holds the call for 30 s, and looks may be in vain.
                "GODOTY_RECORD_PATIENCE": "120",
                "GODOTY_RECORD_PATIENCE_WITH_USAGE": "5",
                **environment,
            },
            log=self._directory / f"server-{len(self._servers) + 1}.log",
        )
        self._servers.append(server)
        return server

    async def another_tenant(self) -> tuple[str, str]:
        """Make another tenant; returns its id and a key."""
        return await new_tenant(self.rooms)

    async def settled(self, *, within: float) -> None:
        """Wait until no call is open any more."""
        async with asyncio.timeout(within):
            while (await self.rooms.ledger.count())[0]:
                await asyncio.sleep(0.2)

    async def books(self) -> Books:
        """Compare the ledger with the invoice, line by line: the invoice equation (A8)."""
        killed = {replica_id for server in self._servers for replica_id in server.killed}
        outcomes = {line["turn_id"]: line["outcome"] for line in self._logged("turn_ended")}
        return await compare(self.rooms, self.sandbox.invoice, Witness(killed=killed, outcomes=outcomes))

    def _logged(self, event: str) -> Iterator[dict[str, Any]]:
        """Read what its servers logged."""
        for server in self._servers:
            yield from logged(server.log.read_bytes(), event)


def logged(log: bytes, event: str) -> Iterator[dict[str, Any]]:
    """Read a kind of event out of a log, whose last line may be written just now."""
    for line in log.split(b"\n")[:-1]:
        if f'"event": "{event}"'.encode() in line:
            yield json.loads(line)


async def new_tenant(rooms: Rooms) -> tuple[str, str]:
    """Make a tenant; returns its id and a key."""
    tenant = await rooms.tenants.create("faults")
    _, key = await rooms.keys.issue(tenant.tenant_id, scopes=frozenset({Scope.CONVERSE}))
    return tenant.tenant_id, key


@asynccontextmanager
async def open_world(*, mongodb_uri: str, name: str, directory: Path) -> AsyncIterator[World]:
    """Open a world on a database of its own."""
    async with Sandbox() as sandbox:
        sandbox.settings.change({"record_requests": False})
        settings = Settings(
            mongodb_uri=mongodb_uri,
            mongodb_database=name,
            openrouter_base_url=sandbox.base_url,
            OPENROUTER_API_KEY=SecretStr("sandbox-faults"),
        )
        async with open_rooms(settings) as rooms:
            try:
                tenant_id, key = await new_tenant(rooms)
                yield World(
                    settings=settings,
                    rooms=rooms,
                    sandbox=sandbox,
                    directory=directory,
                    tenant_id=tenant_id,
                    key=key,
                )
            finally:
                await rooms.database.drop()
