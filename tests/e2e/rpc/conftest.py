"""What the tests of the gRPC edge share."""

import fcntl
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import WITHOUT_WEBHOOKS, server_environment, serving
from tests.e2e.admin.conftest import ENCRYPTION_KEY
from tests.faults.cluster import ServerProcess, logged
from tests.support.backends import Backends
from tests.support.caller import Caller
from tests.support.service import Service, soon


@dataclass(frozen=True)
class LoggedServer:
    """A server whose log is read, with a key for the tenants' own provider keys."""

    process: ServerProcess
    database: str

    async def lines(self, event: str, **known: Any) -> list[dict[str, Any]]:
        """Return the log's lines of an event with these values, once there is one."""

        def found() -> list[dict[str, Any]]:
            lines = logged(self.process.log.read_bytes(), event)
            return [each for each in lines if known.items() <= each.items()]

        return await soon(found)


def lasting_port() -> int:
    """Return a free port below those that the system gives to connections: nothing takes it between two starts."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@pytest.fixture
def first_ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The ports that `godoty dev` takes first: one test at a time has them."""
    with (tmp_path_factory.getbasetemp().parent / "ports.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session", params=["pymongo", "motor"])
def driver(
    request: pytest.FixtureRequest,
    backends: Backends,
    shared_server: tuple[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, str]]:
    """A server on the database's driver: a module that uses this fixture runs its `caller` tests on each."""
    if request.param == "pymongo":
        yield shared_server
        return
    with serving(backends, tmp_path_factory, **WITHOUT_WEBHOOKS, GODOTY_MONGODB_DRIVER="motor") as served:
        yield served


@pytest.fixture
async def caller(
    request: pytest.FixtureRequest, backends: Backends, service: Service, connect: Callable[[Service], Caller]
) -> Caller:
    """Calls the shared server as a new tenant, or the one on the module's `driver`."""
    if "driver" not in request.fixturenames:
        return connect(service)
    return connect(backends.service(*request.getfixturevalue("driver")))


@pytest.fixture(scope="session")
def logged_server(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoggedServer]:
    """A server for all tests that read its log."""
    database = backends.new_database()
    environment = server_environment(backends, database) | WITHOUT_WEBHOOKS | {"GODOTY_ENCRYPTION_KEYS": ENCRYPTION_KEY}
    process = ServerProcess(environment=environment, log=tmp_path_factory.mktemp("logged") / "server.log")
    try:
        backends.run(process.start())
        yield LoggedServer(process, database)
    finally:
        backends.run(process.stop())
        backends.mongo.drop_database(database)


@pytest.fixture
def logged_caller(logged_server: LoggedServer, backends: Backends, connect: Callable[[Service], Caller]) -> Caller:
    """Calls that server as a new tenant."""
    return connect(backends.service(logged_server.process.address, logged_server.database))
