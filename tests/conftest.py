"""Fixtures of all tests: MongoDB and the sandbox once per session, a server process, and a tenant for each test."""

import base64
import gc
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest
import uvloop
from godoty.v1 import agent_service_pb2_grpc
from hypothesis import HealthCheck, settings

from godoty_service.server import running
from openrouter_sandbox.mongodb.mongod import find_mongod
from tests.faults.cluster import ServerProcess
from tests.support.backends import ACCOUNT, Backends
from tests.support.caller import Caller
from tests.support.lasting import leave_after
from tests.support.logging_configuration import restored_logging
from tests.support.order import ordered
from tests.support.service import Service
from tests.support.shared_mongo import SharedMongo, given_uri, new_directory

# The durations of an example and of its generation are meaningless while other tests share the cores; long runs try
# more examples.
LONG = os.environ.get("GODOTY_TEST_LONG") == "1"
settings.register_profile(
    "godoty",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=500 if LONG else 50,
)
settings.load_profile("godoty")

# Variables of the developer's shell must not affect tests; only a MongoDB that runs already is used.
_MONGODB_URI = os.environ.get("GODOTY_MONGODB_URI")
for _name in [each for each in os.environ if each.startswith(("GODOTY_", "OPENROUTER_", "OTEL_"))]:
    if not _name.startswith("GODOTY_TEST_"):
        del os.environ[_name]


def pytest_configure(config: pytest.Config) -> None:
    """Start one MongoDB for all workers, unless one runs already."""
    is_controller = config.getoption("numprocesses", default=None) and not hasattr(config, "workerinput")
    if is_controller and not _MONGODB_URI and find_mongod() is not None:
        config.pluginmanager.register(SharedMongo())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that only `make faults` runs, and order the others."""
    if not LONG:
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
    items[:] = ordered(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop the server of a folder after its last test."""
    leave_after(item, nextitem)


def pytest_collection_finish() -> None:
    """Exclude imported objects from the scans of the garbage collector."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], uvloop.Loop]]:
    """Run tests on the event loop of the service."""
    return {"uvloop": uvloop.new_event_loop}


# Servers that live long, and whose tenants can have no webhooks: they need not look for events all the time.
WITHOUT_WEBHOOKS = {"GODOTY_WEBHOOK_INTERVAL": "60"}
ENCRYPTION_KEY = base64.b64encode(bytes(range(32))).decode()  # the shared server's


class Start(Protocol):
    """Starts a server in the test's event loop."""

    async def __call__(self, *, database: str | None = None, span_exporter: Any = None, **settings: Any) -> Service:
        """Start a server, on a new database unless one is named."""


class StartProcess(Protocol):
    """Starts a server as a process."""

    async def __call__(self, *, database: str | None = None, **environment: str) -> tuple[ServerProcess, Service]:
        """Start a server, on a new database unless one is named."""


@pytest.fixture(scope="session")
def backends(request: pytest.FixtureRequest) -> Iterator[Backends]:
    """MongoDB and the sandbox; their data is in memory if possible."""
    shared = given_uri(request.config)
    uri = _MONGODB_URI or shared
    with Backends(None if uri else new_directory(), uri, drops=shared is None) as started:
        yield started


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Restore the logging configuration after each test."""
    with restored_logging():
        yield


@pytest.fixture(autouse=True)
def _reset_backends(request: pytest.FixtureRequest) -> Iterator[None]:
    """Revoke what earlier tests released, so that the names of their holds are free, and drop this test's databases."""
    killed = "serve_process" in request.fixturenames
    with ExitStack() as stack:
        for name in ("backends", "fail_point_backends"):
            if name in request.fixturenames:
                started: Backends = request.getfixturevalue(name)
                started.ask(started.sandbox.holds.clear)
                stack.enter_context(started.dropping_databases(killed=killed))
        yield


@pytest.fixture(scope="session")
def mongodb_uri(backends: Backends) -> str:
    """The URI of MongoDB."""
    return backends.mongodb_uri


@pytest.fixture
def new_database(backends: Backends) -> str:
    """The name of a new database."""
    return backends.new_database()


@pytest.fixture
def empty_database(backends: Backends) -> str:
    """The name of a database for servers that have ended in the end; it may have indexes."""
    return backends.empty_database()


@pytest.fixture
def prepared_database(backends: Backends) -> str:
    """The name of an empty database that has all indexes, for parts of the service."""
    return backends.prepared_database()


@pytest.fixture(scope="session")
def shared_server(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address and the database of a server for all tests that need no server of their own.

    It is a process: grpc.aio fails with two event loops in one process.
    """
    with serving(backends, tmp_path_factory, **WITHOUT_WEBHOOKS, GODOTY_ENCRYPTION_KEYS=ENCRYPTION_KEY) as served:
        yield served


@pytest.fixture
def service(backends: Backends, shared_server: tuple[str, str]) -> Service:
    """A new tenant of the shared server."""
    return backends.service(*shared_server)


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[Service], Caller]]:
    """Connects callers; their channels are closed after the test."""
    async with AsyncExitStack() as stack:

        def connect_to(service: Service) -> Caller:
            channel = grpc.aio.insecure_channel(service.target)
            stack.push_async_exit(channel)
            return Caller(service, channel)

        yield connect_to


@pytest.fixture
async def caller(service: Service, connect: Callable[[Service], Caller]) -> Caller:
    """Calls the shared server as a new tenant."""
    return connect(service)


@pytest.fixture
async def other_tenant(service: Service, connect: Callable[[Service], Caller]) -> Caller:
    """Another tenant of the same server."""
    return connect(service.another_tenant())


@pytest.fixture
async def serve(backends: Backends) -> AsyncIterator[Start]:
    """Starts servers with given settings in the test's event loop."""
    async with AsyncExitStack() as stack:

        async def start(*, database: str | None = None, span_exporter: Any = None, **settings: Any) -> Service:
            name = database or backends.empty_database()
            server = await stack.enter_async_context(
                running(backends.settings(name, **settings), span_exporter=span_exporter)
            )
            return backends.service(server.address, name)

        yield start


@pytest.fixture
async def serve_process(backends: Backends, tmp_path: Path) -> AsyncIterator[StartProcess]:
    """Starts server processes, which can be killed and restarted."""
    started: list[ServerProcess] = []

    async def start(*, database: str | None = None, **environment: str) -> tuple[ServerProcess, Service]:
        name = database or backends.empty_database()
        process = ServerProcess(
            environment=server_environment(backends, name) | environment, log=tmp_path / f"server{len(started)}.log"
        )
        started.append(process)
        await process.start()
        return process, backends.service(process.address, name)

    yield start
    for process in started:
        await process.stop()


@pytest.fixture
def issue() -> Callable[..., str]:
    """Creates keys for a service's tenant, with given scopes and times."""

    def issue_for(service: Service, **wishes: Any) -> str:
        return service.backends.issue_key(service.database.name, service.tenant_id, **wishes)

    return issue_for


@contextmanager
def serving(
    backends: Backends, tmp_path_factory: pytest.TempPathFactory, **environment: str
) -> Iterator[tuple[str, str]]:
    """Run a server process on an empty database for several tests; yield its address and the name of the database."""
    database = backends.empty_database()
    log = tmp_path_factory.mktemp("server") / "server.log"
    process = ServerProcess(environment=server_environment(backends, database) | environment, log=log)
    try:
        backends.run(process.start())
        yield process.address, database
    finally:
        backends.run(process.stop())
        backends.release(database, killed=True)


def server_environment(backends: Backends, database: str) -> dict[str, str]:
    """Return the environment of a server process."""
    return {
        **os.environ,
        "GODOTY_LISTEN": "127.0.0.1:0",
        "GODOTY_MONGODB_URI": backends.mongodb_uri,
        "GODOTY_MONGODB_DATABASE": database,
        "GODOTY_OPENROUTER_BASE_URL": backends.sandbox.base_url,
        "OPENROUTER_API_KEY": ACCOUNT,
        "GODOTY_DRAIN_GRACE": "2",
        "GODOTY_WRONG_KEY_LOOKUPS": "1000000",  # all tests call from one address
        "GODOTY_MCP_NETWORKS": "127.0.0.0/8",
        "GODOTY_STORAGE_PROBE_TIMEOUT": str(backends.probe_timeout),
    }


# pytest-grpc's fixtures, for blocking clients of the real grpc.aio server.


@pytest.fixture(scope="module")
def grpc_addr(shared_server: tuple[str, str]) -> str:
    """The address of pytest-grpc's channel."""
    return shared_server[0]


@pytest.fixture(scope="module")
def grpc_server(shared_server: tuple[str, str]) -> tuple[str, str]:
    """Replaces the thread-pool server that pytest-grpc would start."""
    return shared_server


@pytest.fixture(scope="module")
def grpc_stub_cls() -> type[agent_service_pb2_grpc.AgentServiceStub]:
    """The class of pytest-grpc's `grpc_stub`."""
    return agent_service_pb2_grpc.AgentServiceStub
