"""Fixtures of the turn tests: a second replica, and a ledger verification after each test."""

import os
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.verification import verify
from godoty_service.mongo.client import Database, open_database
from godoty_service.sessions.store import SessionStore
from tests.conftest import WITHOUT_WEBHOOKS, server_environment
from tests.faults.cluster import ServerProcess
from tests.support.backends import Backends
from tests.support.caller import Caller
from tests.support.service import Service

LONG = os.environ.get("GODOTY_TEST_LONG") == "1"


@pytest.fixture(scope="package")
def second_server(
    backends: Backends, shared_server: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Return the address of a second server process on the shared server's database; an idle one costs CPU time."""
    log = tmp_path_factory.mktemp("second") / "server.log"
    environment = server_environment(backends, shared_server[1]) | WITHOUT_WEBHOOKS
    process = ServerProcess(environment=environment, log=log)
    backends.run(process.start())
    yield process.address
    backends.run(process.stop())


@pytest.fixture
def second_caller(service: Service, second_server: str, connect: Callable[[Service], Caller]) -> Caller:
    """Return a caller of the second server, of the same tenant as `caller`."""
    return connect(service.at(second_server))


@pytest.fixture(autouse=True)
def verify_ledger_afterwards(backends: Backends, shared_server: tuple[str, str]) -> Iterator[None]:
    """Verify the ledger of every tenant that a test wrote for, as `godoty ledger verify` does."""
    shared = backends.mongo[shared_server[1]]["ledger"]
    databases, tenants = len(backends._databases), set(shared.distinct("tenant_id"))

    def verified(name: str, tenant_id: str | None = None) -> list[str]:
        return backends.run(_found(Database(backends._client, name), tenant_id))

    yield
    for tenant_id in set(shared.distinct("tenant_id")) - tenants:  # other tests have providers report absurd amounts
        assert verified(shared_server[1], tenant_id) == []
    for name in {*backends._databases[databases:]} - {shared_server[1]}:
        assert verified(name) == []


async def differences(mongodb_uri: str, name: str, tenant_id: str | None = None) -> list[str]:
    """Return the differences that `verify` finds in a database, for one tenant or for all."""
    database = open_database(uri=mongodb_uri, name=name)
    try:
        return await _found(database, tenant_id)
    finally:
        await database.close()


async def _found(database: Database, tenant_id: str | None) -> list[str]:
    replicas = ReplicaHeartbeats(database.collection("replicas"), replica_id="auditor", lease=timedelta(seconds=1))
    sessions = SessionStore(database.collection("sessions"), replicas=replicas)
    ledger = Ledger(database.collection("ledger"))
    found = verify(database=database, ledger=ledger, totals_store=sessions, tenant_id=tenant_id)
    return [f"{each.session_id}: {each.what}" async for each in found]
