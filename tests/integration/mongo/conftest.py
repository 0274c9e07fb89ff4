"""A database for each test, by either driver."""

from collections.abc import AsyncIterator

import pytest

from godoty_service.mongo.client import Database, Driver, open_database
from godoty_service.sessions.store import SessionStore
from tests.integration.mongo.session_stores import session_store


@pytest.fixture(params=["motor", "pymongo"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """The driver of the database."""
    found: Driver = request.param
    return found


@pytest.fixture
async def database(mongodb_uri: str, new_database: str, driver: Driver) -> AsyncIterator[Database]:
    """An empty database."""
    opened = open_database(uri=mongodb_uri, name=new_database, driver=driver)
    yield opened
    await opened.close()


@pytest.fixture
async def sessions(database: Database) -> SessionStore:
    """The session store of a living server."""
    await database.collection("sessions").ensure(SessionStore.INDEXES)
    return await session_store(database, "alive")
