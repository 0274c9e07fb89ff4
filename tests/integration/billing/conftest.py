"""Servers and tenants on a database of their own, with either driver."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import pytest

from godoty_service.ledger import ledger
from godoty_service.ledger.ledger import Ledger
from godoty_service.mongo.client import Database, Driver, open_database
from godoty_service.tenancy.auth import Scope
from godoty_service.usage.rollup_job import RollupJob
from godoty_service.usage.rollup_store import RollupStore
from tests.integration.billing.caller import BillingCaller
from tests.integration.billing.harness import Server, Tenant
from tests.support.caller import Caller
from tests.support.service import Service


@pytest.fixture
def driver() -> Driver:
    """The MongoDB driver; a test may be parametrized with both."""
    return "pymongo"


@pytest.fixture
async def database(mongodb_uri: str, prepared_database: str, driver: Driver) -> AsyncIterator[Database]:
    """A database with the indexes of ledger and roll-ups."""
    opened = open_database(uri=mongodb_uri, name=prepared_database, driver=driver)
    await asyncio.gather(
        opened.collection("ledger").ensure(Ledger.INDEXES),
        opened.collection("usage_rollups").ensure(RollupStore.INDEXES),
        opened.collection("usage_rollup_state").ensure(RollupJob.INDEXES),
    )
    yield opened
    await opened.close()


@pytest.fixture
def server(database: Database) -> Server:
    """A server."""
    return Server(database, "one")


@pytest.fixture
def other(database: Database) -> Server:
    """Another one on the same database."""
    return Server(database, "two")


@pytest.fixture
def tenant(database: Database, server: Server) -> Tenant:
    """A tenant with an empty ledger."""
    return Tenant(database, server.ledger, random.Random(7))


class ConnectBilling(Protocol):
    """Connects a biller."""

    def __call__(self, service: Service, *scopes: Scope) -> BillingCaller:
        """Connect it with a key of these scopes; none: billing alone."""


@pytest.fixture
async def connect_billing(connect: Callable[[Service], Caller], issue: Callable[..., str]) -> ConnectBilling:
    """Connects billers."""

    def start(service: Service, *scopes: Scope) -> BillingCaller:
        key = issue(service, scopes=frozenset(scopes or (Scope.BILLING,)))
        return BillingCaller(service, connect(service).channel, key)

    return start


@pytest.fixture
async def served_tenant(service: Service, mongodb_uri: str) -> AsyncIterator[Tenant]:
    """The tenant of the shared server, whose ledger the test writes, too."""
    opened = open_database(uri=mongodb_uri, name=service.database.name)
    tenant = Tenant(opened, ledger.Ledger(opened.collection("ledger")), random.Random(7))
    tenant.tenant_id = service.tenant_id
    await tenant.live()
    yield tenant
    await opened.close()
