"""A database that cannot be used at the start: the error names the host and the cause."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from godoty_service.cli.main import app
from godoty_service.errors import StorageError, StorageUnavailable
from godoty_service.rooms import open_rooms
from godoty_service.sandbox.mongod import Mongod, free_port
from godoty_service.settings import Settings


@pytest.fixture
async def uninitiated(tmp_path: Path) -> AsyncIterator[str]:
    """host:port of a mongod whose replica set is not initiated."""
    process = Mongod(tmp_path)
    await process.start()
    yield process.host
    await process.stop()


async def said_at_start(uri: str, *, patience: float = 1.5) -> str:
    """Open the rooms on a database that cannot be used; returns what the error says."""
    settings = Settings(mongodb_uri=uri, mongodb_database="godoty_test_start", storage_timeout=patience)
    with pytest.raises(StorageError) as caught:
        async with open_rooms(settings):
            pass
    return caught.value.text


async def test_closed_port_is_named() -> None:
    """Nothing listens: the host, and that the connection is refused. A password in the address is not shown."""
    host = f"127.0.0.1:{free_port()}"
    said = await said_at_start(f"mongodb://ann:secret@{host}/?replicaSet=rs0")

    assert host in said
    assert "refused" in said
    assert "secret" not in said


async def test_uninitiated_replica_set_is_named(uninitiated: str) -> None:
    """The server answers and its set is not initiated: the error says what to run, with and without a set's name."""
    for query in ("", "?replicaSet=godoty"):
        said = await said_at_start(f"mongodb://{uninitiated}/{query}")

        assert uninitiated in said
        assert "not initiated" in said
        assert "rs.initiate()" in said


async def test_wrong_set_name_is_told_at_once(mongodb_uri: str) -> None:
    """Waiting would not help: both names are in the error, long before the storage timeout."""
    address, _, name = mongodb_uri.partition("/?replicaSet=")
    begun = time.monotonic()
    said = await said_at_start(f"{address}/?replicaSet=other", patience=60)

    assert time.monotonic() - begun < 30
    assert address.removeprefix("mongodb://") in said
    assert f"named {name}" in said
    assert "replicaSet=other" in said


async def test_refused_account_is_told(mongodb_uri: str) -> None:
    """A wrong user or password is the database's refusal, not an unknown one."""
    address, _, query = mongodb_uri.partition("/?")
    said = await said_at_start(f"mongodb://ann:secret@{address.removeprefix('mongodb://')}/?{query}&authSource=admin")

    assert "Authentication failed" in said
    assert "secret" not in said


def test_command_prints_the_cause() -> None:
    """A command ends with one line that names the host."""
    host = f"127.0.0.1:{free_port()}"
    environment = {"GODOTY_MONGODB_URI": f"mongodb://{host}/?replicaSet=rs0", "GODOTY_STORAGE_TIMEOUT": "1"}
    outcome = CliRunner().invoke(app, ["tenant", "list"], env=environment)

    assert isinstance(outcome.exception, StorageUnavailable)
    assert host in str(outcome.exception)
