"""Servers that leave the books alone, and bookkeepers beside them."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from godoty_service.ids import new_id
from godoty_service.metering.reconciler import Patience
from godoty_service.rooms import open_provider, open_rooms
from godoty_service.sandbox.replica_set import LocalMongo
from tests.conftest import Start
from tests.metering.bookkeeper import PATIENCE, Bookkeeper
from tests.service.caller import Caller
from tests.service.command import Command
from tests.service.service import Service
from tests.service.surroundings import ACCOUNT, Surroundings

NEVER = 3600.0


class Serve(Protocol):
    """Starts a server and connects a caller to it."""

    async def __call__(self, **settings: Any) -> Caller:
        """Start it with these settings."""


class Bookkeep(Protocol):
    """Sets a bookkeeper to work beside a server."""

    async def __call__(self, service: Service, *, patience: Patience = PATIENCE, **settings: Any) -> Bookkeeper:
        """Give it the server's database, and settings of its own."""


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    status: int
    out: str
    err: str


class Godoty(Protocol):
    """Runs the command line as a process."""

    async def __call__(self, service: Service, *arguments: str, **environment: str) -> Said:
        """Run a command on a server's database."""


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    """A MongoDB of its own that takes fail points, and a sandbox."""
    directory = tmp_path_factory.mktemp("fragile")
    mongo = LocalMongo(directory, parameters={"enableTestCommands": "1"})
    asyncio.run(mongo.start())
    try:
        # A real server that steps down tells its clients; here they must ask themselves whether it is well again.
        with Surroundings(directory, f"{mongo.uri}&heartbeatFrequencyMS=500") as surroundings:
            yield surroundings
    finally:
        asyncio.run(mongo.stop())


@pytest.fixture
async def calling(serve: Start, connect: Callable[[Service], Caller]) -> Serve:
    """Starts servers that reconcile ten times a second, unless told otherwise."""

    async def start(**settings: Any) -> Caller:
        return connect(await serve(**{"reconcile_interval": 0.1, **settings}))

    return start


@pytest.fixture
async def bookkeep() -> AsyncIterator[Bookkeep]:
    """Sets bookkeepers to work."""
    async with AsyncExitStack() as stack:

        async def begin(service: Service, *, patience: Patience = PATIENCE, **settings: Any) -> Bookkeeper:
            chosen = service.surroundings.settings(service.database.name, **settings)
            rooms = await stack.enter_async_context(open_rooms(chosen))
            provider = await stack.enter_async_context(open_provider(chosen, rooms, record=lambda _: None))
            await provider.oracle.load()
            return Bookkeeper(rooms, provider, patience=patience)

        yield begin


@pytest.fixture
def godoty(tmp_path: Path) -> Godoty:
    """Runs commands."""

    async def run(service: Service, *arguments: str, **environment: str) -> Said:
        process = Command(
            *arguments,
            environment={
                **os.environ,
                "GODOTY_MONGODB_URI": service.surroundings.mongodb_uri,
                "GODOTY_MONGODB_DATABASE": service.database.name,
                "GODOTY_OPENROUTER_BASE_URL": service.surroundings.sandbox.base_url,
                "OPENROUTER_API_KEY": ACCOUNT,
                **environment,
            },
            out=(out := tmp_path / f"{new_id('said')}.out"),
            err=(err := out.with_suffix(".err")),
        )
        status = await asyncio.wait_for(process.wait(), 60)
        return Said(status, out.read_text(), err.read_text())

    return run
