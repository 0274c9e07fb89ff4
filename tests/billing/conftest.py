"""Usage books on a database of their own, by either driver."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from godoty_service.metering import booking, ledger, rollups
from godoty_service.mongo import Database, Driver, open_database
from tests.billing.books import Server, Tenant


@pytest.fixture
def driver() -> Driver:
    """Which driver speaks to the database: tests/mongo tries both."""
    return "motor"


@pytest.fixture
async def database(mongodb_uri: str, new_database: str, driver: Driver) -> AsyncIterator[Database]:
    """A database with the books' indexes."""
    opened = open_database(uri=mongodb_uri, name=new_database, driver=driver)
    await asyncio.gather(
        opened.collection("ledger").ensure(ledger.INDEXES),
        opened.collection("usage_quarters").ensure(rollups.INDEXES),
        opened.collection("usage_books").ensure(booking.INDEXES),
    )
    yield opened
    await opened.close()


@pytest.fixture
def server(database: Database) -> Server:
    """A server."""
    return Server(database, "one")


@pytest.fixture
def other(database: Database) -> Server:
    """Another one on the same books."""
    return Server(database, "two")


@pytest.fixture
def tenant(database: Database, server: Server) -> Tenant:
    """A tenant with an empty ledger."""
    return Tenant(database, server.ledger, random.Random(7))
