"""A server process whose memory and CPU time are measured."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import WITHOUT_WEBHOOKS, server_environment
from tests.faults.cluster import ServerProcess
from tests.support.backends import Backends
from tests.support.lasting import Lasting, lasting
from tests.support.service import Service

Measured = tuple[ServerProcess, str]
_FOLDER = Path(__file__).parent


@contextmanager
def _measured(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    database = backends.new_database()
    environment = server_environment(backends, database) | WITHOUT_WEBHOOKS | {"GODOTY_LOG_FORMAT": "json"}
    process = ServerProcess(environment=environment, log=tmp_path_factory.mktemp("server") / "server.log")
    try:
        backends.run(process.start())
        yield process, database
    finally:
        backends.run(process.stop())
        backends.mongo.drop_database(database)


@pytest.fixture(scope="session")
def lasting_server(
    request: pytest.FixtureRequest, backends: Backends, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lasting[Measured]]:
    """The server of `measured_server`, for all files of this folder."""
    with lasting(request, _FOLDER, lambda: _measured(backends, tmp_path_factory)) as one:
        yield one


@pytest.fixture(scope="module")
def measured_server(lasting_server: Lasting[Measured]) -> Measured:
    """A server process of default settings, and its database."""
    return lasting_server.value


@pytest.fixture
def measured(backends: Backends, measured_server: Measured) -> tuple[ServerProcess, Service]:
    """That process, and a new tenant."""
    process, database = measured_server
    return process, backends.service(process.address, database)
