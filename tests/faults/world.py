"""A world to break: a real MongoDB, the sandbox with its invoice, and server processes that can be killed."""

import asyncio
import os
import re
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from pydantic import SecretStr

from godoty_service.metering.call import CallState, Entry, ModelCall
from godoty_service.metering.verification import verify
from godoty_service.rooms import Rooms, open_rooms
from godoty_service.sandbox.server import Sandbox
from godoty_service.settings import Settings
from godoty_service.tenancy.principal import Scope
from tests.service.command import Command

_READY = 60.0  # seconds that a server gets to start
_SERVING = re.compile(rb'"address": "([^"]+)".*"event": "serving"')


@dataclass
class ServerProcess:
    """A `godoty serve` that can be killed and started again on the same port."""

    environment: dict[str, str]
    log: Path
    process: Command | None = None

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
            while not (told := _SERVING.search(self.log.read_bytes()[begun:] if self.log.exists() else b"")):
                if self.process.returncode is not None:
                    raise RuntimeError(f"the server ended: {self.log.read_text()[-2000:]}")
                await asyncio.sleep(0.02)
        self.environment = {**self.environment, "GODOTY_LISTEN": told[1].decode()}

    async def kill(self) -> None:
        """Kill it, as a crash would."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Stop it, as an operator would."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            await self.process.wait()


@dataclass
class Books:
    """The ledger beside the invoice.

    Attributes:
        calls: How many calls the ledger has.
        settled: How many of them are settled.
        unresolved: Those that no record tells.
        cost: What the settled ones cost.
        invoiced: What the provider billed.
        lines: How many lines its invoice has.
        faults: Each way in which the two disagree.
    """

    calls: int = 0
    settled: int = 0
    unresolved: list[ModelCall] = field(default_factory=list)
    cost: Decimal = Decimal(0)
    invoiced: Decimal = Decimal(0)
    lines: int = 0
    faults: list[str] = field(default_factory=list)


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
        self._servers = 0

    def server(self, **environment: str) -> ServerProcess:
        """Make a server process on a port of its own."""
        self._servers += 1
        base = {name: value for name, value in os.environ.items() if not name.startswith(("GODOTY_", "OPENROUTER_"))}
        provider_key = self.settings.openrouter_api_key
        assert provider_key is not None
        return ServerProcess(
            environment={
                **base,
                "GODOTY_LISTEN": "127.0.0.1:0",
                "GODOTY_MONGODB_URI": self.settings.mongodb_uri or "",
                "GODOTY_MONGODB_DATABASE": self.settings.mongodb_database,
                "GODOTY_OPENROUTER_BASE_URL": self.sandbox.base_url,
                "OPENROUTER_API_KEY": provider_key.get_secret_value(),
                "GODOTY_LEASE": "1.5",
                "GODOTY_HEARTBEAT": "0.3",
                "GODOTY_RECORD_PATIENCE": "20",
                "GODOTY_RECORD_PATIENCE_WITH_USAGE": "5",
                **environment,
            },
            log=self._directory / f"server-{self._servers}.log",
        )

    async def settled(self, *, within: float) -> None:
        """Wait until no call is open any more."""
        async with asyncio.timeout(within):
            while (await self.rooms.ledger.count())[0]:
                await asyncio.sleep(0.2)

    async def books(self) -> Books:
        """Compare the ledger with the invoice, line by line: the invoice equation (A8)."""
        entries = [entry async for entry in self.rooms.ledger.by_session(None)]
        calls = [entry for entry in entries if isinstance(entry, ModelCall)]
        lines = {line.generation_id: line for line in self.sandbox.invoice.lines()}
        books = Books(calls=len(calls), lines=len(lines), invoiced=self.sandbox.invoice.total())
        by_generation: dict[str, ModelCall] = {}
        for call in calls:
            if call.generation_id is not None:
                if call.generation_id in by_generation:
                    books.faults.append(f"generation {call.generation_id} stands twice")
                by_generation[call.generation_id] = call
        for call in calls:
            _check(call, books, billed={name: line.cost for name, line in lines.items()})
        missing = [line for name, line in lines.items() if name not in by_generation]
        _cover(missing, books)
        _check_numbers(entries, books)
        unbooked = sum((line.cost for line in missing), Decimal(0))
        if books.cost + unbooked + _unresolved_lines(books, lines) != books.invoiced:
            books.faults.append(f"the ledger has {books.cost}, the invoice {books.invoiced}, of it unseen {unbooked}")
        async for difference in verify(self.rooms.ledger, self.rooms.sessions):
            books.faults.append(f"verify: {difference.session_id}: {difference.what}")
        return books


def _check(call: ModelCall, books: Books, *, billed: dict[str, Decimal]) -> None:
    """Compare one entry with its line."""
    line = billed.get(call.generation_id or "")
    match call.state:
        case CallState.SETTLED:
            books.settled += 1
            books.cost += call.cost or Decimal(0)
            if call.cost != (line if line is not None else Decimal(0)):
                books.faults.append(f"{call.call_id} is settled at {call.cost}, its line says {line}")
        case CallState.UNRESOLVED:
            books.unresolved.append(call)
            if line is not None and (call.upper_bound is None or line > call.upper_bound):
                books.faults.append(f"{call.call_id}: the bound {call.upper_bound} does not cover {line}")
        case CallState.VOID:
            if line is not None:
                books.faults.append(f"{call.call_id} is void and was billed {line}")
        case CallState.PENDING:
            books.faults.append(f"{call.call_id} is still open")


def _cover(missing: list, books: Books) -> None:  # type: ignore[type-arg] # the sandbox's lines
    """Give each line whose id never came to the ledger an unresolved entry of its session, with a bound above it."""
    bounds: dict[str, list[Decimal]] = defaultdict(list)
    for call in books.unresolved:
        if call.generation_id is None and call.upper_bound is not None:
            bounds[_marker(call)].append(call.upper_bound)
    for line in sorted(missing, key=lambda each: each.cost, reverse=True):
        free = bounds[line.session or ""]
        fitting = sorted(bound for bound in free if bound >= line.cost)
        if not fitting:
            books.faults.append(f"line {line.generation_id} of {line.cost} has no entry")
        else:
            free.remove(fitting[-1])


def _check_numbers(entries: list[Entry], books: Books) -> None:
    seen: set[tuple[str, int]] = set()
    for entry in entries:
        place = (entry.session_uid, entry.number)
        if place in seen:
            books.faults.append(f"number {place} stands twice")
        seen.add(place)


def _unresolved_lines(books: Books, lines: dict) -> Decimal:  # type: ignore[type-arg] # the sandbox's lines
    known = (lines.get(call.generation_id or "") for call in books.unresolved)
    return sum((line.cost for line in known if line is not None), Decimal(0))


def _marker(call: ModelCall) -> str:
    from godoty_service.turns.workbench import pseudonym  # noqa: PLC0415 - Strands takes a second to import

    return pseudonym(call.tenant_id, call.session_uid)


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
                tenant = await rooms.tenants.create("faults")
                _, key = await rooms.keys.issue(tenant.tenant_id, scopes=frozenset({Scope.CONVERSE}))
                yield World(
                    settings=settings,
                    rooms=rooms,
                    sandbox=sandbox,
                    directory=directory,
                    tenant_id=tenant.tenant_id,
                    key=key,
                )
            finally:
                await rooms.database.drop()
