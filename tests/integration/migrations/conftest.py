"""A restored database of schema 0, and the database as the service opens it."""

from collections.abc import AsyncIterator

import pytest

from godoty_service.mongo.client import Database, open_database
from tests.integration.migrations.dumps import BUILDS, restore
from tests.support.backends import Backends


@pytest.fixture
async def database(mongodb_uri: str, new_database: str) -> AsyncIterator[Database]:
    """An empty database."""
    opened = open_database(uri=mongodb_uri, name=new_database)
    yield opened
    await opened.close()


@pytest.fixture(params=BUILDS)
def old_database(request: pytest.FixtureRequest, backends: Backends, database: Database) -> Database:
    """A database that a build from before schema versions left."""
    restore(request.param, backends.mongo[database.name])
    return database
