"""What the tests of turns stand on beside the rest: a second replica, and an auditor who reads the books after each."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta

import pytest

from godoty_service.metering.ledger import Ledger
from godoty_service.metering.verification import verify
from godoty_service.mongo import open_database
from godoty_service.sessions.replicas import Replicas
from godoty_service.sessions.store import Sessions
from tests.conftest import server_environment
from tests.faults.world import ServerProcess
from tests.service.caller import Caller
from tests.service.service import Service
from tests.service.surroundings import Surroundings

LONG = os.environ.get("GODOTY_TEST_LONG") == "1"


@pytest.fixture(scope="session")
def second_server(
    surroundings: Surroundings, shared_server: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a second server process on the shared server's database."""
    log = tmp_path_factory.mktemp("second") / "server.log"
    process = ServerProcess(environment=server_environment(surroundings, shared_server[1]), log=log)
    surroundings.run(process.start())
    yield process.address
    surroundings.run(process.stop())


@pytest.fixture
def twin(service: Service, second_server: str, connect: Callable[[Service], Caller]) -> Caller:
    """Calls the second server as the tenant that `caller` calls the shared one as."""
    return connect(service.at(second_server))


@pytest.fixture(autouse=True)
async def audited(surroundings: Surroundings, shared_server: tuple[str, str]) -> AsyncIterator[None]:
    """Prove the books of every tenant that a test wrote for, as `godoty ledger verify` does."""
    shared = surroundings.mongo[shared_server[1]]["ledger"]
    databases, tenants = len(surroundings._databases), set(shared.distinct("tenant_id"))
    yield
    for tenant_id in set(shared.distinct("tenant_id")) - tenants:  # other tests have providers state absurd amounts
        assert await differences(surroundings.mongodb_uri, shared_server[1], tenant_id) == []
    for name in {*surroundings._databases[databases:]} - {shared_server[1]}:
        assert await differences(surroundings.mongodb_uri, name) == []


async def differences(mongodb_uri: str, name: str, tenant_id: str | None = None) -> list[str]:
    """Tell what does not add up in a database's books, of one tenant or of all."""
    database = open_database(uri=mongodb_uri, name=name)
    try:
        replicas = Replicas(database.collection("replicas"), replica_id="auditor", lease=timedelta(seconds=1))
        sessions = Sessions(database.collection("sessions"), replicas=replicas)
        ledger = Ledger(database.collection("ledger"))
        found = verify(database=database, ledger=ledger, folds=sessions, tenant_id=tenant_id)
        return [f"{each.session_id}: {each.what}" async for each in found]
    finally:
        await database.close()
