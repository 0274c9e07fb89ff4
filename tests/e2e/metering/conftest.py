"""Servers that do not reconcile, and reconcilers that a test runs beside them."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from godoty_service.bootstrap.components import open_components
from godoty_service.bootstrap.provider import open_provider
from godoty_service.ids import new_id
from godoty_service.metering.settlement import RecordTimeouts
from godoty_service.server import running
from openrouter_sandbox.mongodb.replica_set import LocalMongo
from tests.conftest import Start
from tests.e2e.metering.failing_server import FailingServer
from tests.e2e.metering.reconciler_harness import TIMEOUTS, ReconcilerHarness
from tests.support.backends import ACCOUNT, Backends
from tests.support.caller import Caller
from tests.support.command import Command
from tests.support.invoking import without_waiting
from tests.support.service import PATIENCE, Service

NEVER = 3600.0


class StartCaller(Protocol):
    """Starts a server and connects a caller to it."""

    async def __call__(self, **settings: Any) -> Caller:
        """Start it with these settings."""


class StartHarness(Protocol):
    """Starts a reconciler harness beside a server."""

    async def __call__(
        self, service: Service, *, timeouts: RecordTimeouts = TIMEOUTS, **settings: Any
    ) -> ReconcilerHarness:
        """Give it the server's database, and settings of its own."""


class StartFailing(Protocol):
    """Starts a server whose operations can be made to fail."""

    async def __call__(self, **settings: Any) -> FailingServer:
        """Start it with these settings."""


@dataclass(frozen=True)
class CommandResult:
    """The output and the exit status of a command."""

    status: int
    out: str
    err: str


class Godoty(Protocol):
    """Runs the command line as a process."""

    async def __call__(self, service: Service, *arguments: str, **environment: str) -> CommandResult:
        """Run a command on a server's database."""


@pytest.fixture(scope="module")
def fail_point_backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    """A MongoDB of its own that takes fail points, and a sandbox."""
    mongo = LocalMongo(tmp_path_factory.mktemp("fragile"), parameters={"enableTestCommands": "1"})
    asyncio.run(mongo.start())
    try:
        # A real server that steps down notifies its clients; here they must poll until it is healthy again.
        with Backends(None, f"{mongo.uri}&heartbeatFrequencyMS=500") as backends:
            yield backends
    finally:
        asyncio.run(mongo.stop())


@pytest.fixture
async def start_failing(
    fail_point_backends: Backends, connect: Callable[[Service], Caller]
) -> AsyncIterator[StartFailing]:
    """Starts failing servers; the indexes are created before, since they take longer on busy cores."""
    async with AsyncExitStack() as servers:

        async def begin(**settings: Any) -> FailingServer:
            name = fail_point_backends.empty_database()
            if not fail_point_backends.mongo[name].list_collection_names():
                async with open_components(fail_point_backends.settings(name)):
                    pass
            # A write fails by its own timeout: a probe that fails sooner ends the stream, and its turn goes on.
            chosen = {"storage_timeout": 6.0, "storage_probe_timeout": 60.0, "reconcile_interval": 0.1, **settings}
            stack = await servers.enter_async_context(AsyncExitStack())
            server = await stack.enter_async_context(running(fail_point_backends.settings(name, **chosen)))
            return FailingServer(connect(fail_point_backends.service(server.address, name)), stack)

        yield begin


@pytest.fixture
async def server(start_failing: StartFailing) -> FailingServer:
    """A failing server that reconciles ten times a second."""
    return await start_failing()


@pytest.fixture
async def idle_server(start_failing: StartFailing) -> FailingServer:
    """A failing server that does not reconcile before it stops."""
    return await start_failing(reconcile_interval=NEVER)


@pytest.fixture
async def start_caller(serve: Start, connect: Callable[[Service], Caller]) -> StartCaller:
    """Starts servers that reconcile ten times a second by default."""

    async def start(**settings: Any) -> Caller:
        return connect(await serve(**{"reconcile_interval": 0.1, **settings}))

    return start


@pytest.fixture
async def start_harness() -> AsyncIterator[StartHarness]:
    """Starts reconciler harnesses."""
    async with AsyncExitStack() as stack:

        async def begin(service: Service, *, timeouts: RecordTimeouts = TIMEOUTS, **settings: Any) -> ReconcilerHarness:
            chosen = service.backends.settings(service.database.name, **settings)
            components = await stack.enter_async_context(open_components(chosen))
            provider = await stack.enter_async_context(open_provider(chosen, components, record=lambda _: None))
            await provider.oracle.load()
            return ReconcilerHarness(components, provider, timeouts=timeouts)

        yield begin


@pytest.fixture
def godoty(tmp_path: Path) -> Godoty:
    """Runs commands."""

    async def run(service: Service, *arguments: str, **environment: str) -> CommandResult:
        process = Command(
            *arguments,
            environment={
                **os.environ,
                "GODOTY_MONGODB_URI": service.backends.mongodb_uri,
                "GODOTY_MONGODB_DATABASE": service.database.name,
                "GODOTY_OPENROUTER_BASE_URL": service.backends.sandbox.base_url,
                "OPENROUTER_API_KEY": ACCOUNT,
                **environment,
            },
            out=(out := tmp_path / f"{new_id('result')}.out"),
            err=(err := out.with_suffix(".err")),
        )
        status = await asyncio.wait_for(process.wait(), PATIENCE)
        return CommandResult(status, out.read_text(), without_waiting(err.read_text()))

    return run
