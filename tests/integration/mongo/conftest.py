"""A database for each test, by either driver."""

from collections.abc import AsyncIterator

import pytest

from godoty_service.mongo.client import Database, Driver, open_database
from godoty_service.pricing import provider_prices
from godoty_service.sessions.store import SessionStore
from tests.integration.mongo.session_stores import session_store


@pytest.fixture(params=["motor", "pymongo"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """The driver of the database."""
    found: Driver = request.param
    return found


@pytest.fixture
def database_name(prepared_database: str) -> str:
    """The name of the database; tests that make collections with indexes of their own replace it by a new one."""
    return prepared_database


@pytest.fixture
async def database(mongodb_uri: str, database_name: str, driver: Driver) -> AsyncIterator[Database]:
    """An empty database."""
    opened = open_database(uri=mongodb_uri, name=database_name, driver=driver)
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls wait for the providers' prices until they are there: a busy machine may need more than two seconds."""
    monkeypatch.setattr(provider_prices, "_WAIT", 600.0)


@pytest.fixture
async def sessions(database: Database) -> SessionStore:
    """The session store of a living server."""
    await database.collection("sessions").ensure(SessionStore.INDEXES)
    return await session_store(database, "alive")
