"""What the tests of the gRPC edge share."""

import fcntl
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Start
from tests.support.caller import Caller
from tests.support.service import Service


@pytest.fixture
def first_ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The ports that `godoty dev` takes first: one test at a time has them."""
    with (tmp_path_factory.getbasetemp().parent / "ports.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(params=["pymongo", "motor"])
def driver(request: pytest.FixtureRequest) -> str:
    """The database's driver: a module that uses this fixture runs its `caller` tests on each."""
    return str(request.param)


@pytest.fixture
async def caller(
    request: pytest.FixtureRequest, service: Service, serve: Start, connect: Callable[[Service], Caller]
) -> Caller:
    """Calls the shared server as a new tenant, or a server on the module's `driver`."""
    motor = "driver" in request.fixturenames and request.getfixturevalue("driver") == "motor"
    return connect(await serve(mongodb_driver="motor") if motor else service)
