"""Errors of a database that cannot be used at the start name the host and the cause."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from godoty_service.bootstrap.components import open_components
from godoty_service.cli.app import app
from godoty_service.errors import StorageError, StorageUnavailable
from godoty_service.settings.settings import Settings
from openrouter_sandbox.mongodb.mongod import Mongod, free_port


@pytest.fixture
async def uninitiated(tmp_path: Path) -> AsyncIterator[str]:
    """host:port of a mongod whose replica set is not initiated."""
    process = Mongod(tmp_path)
    await process.start()
    yield process.host
    await process.stop()


async def start_error(uri: str, *, storage_timeout: float = 1.5) -> str:
    """Open the components on a database that cannot be used; return the text of the error."""
    settings = Settings(mongodb_uri=uri, mongodb_database="godoty_test_start", storage_timeout=storage_timeout)
    with pytest.raises(StorageError) as caught:
        async with open_components(settings):
            pass
    return caught.value.text


async def test_closed_port_is_named() -> None:
    """The error has the host and the refused connection, and no password of the address."""
    host = f"127.0.0.1:{free_port()}"
    said = await start_error(f"mongodb://ann:secret@{host}/?replicaSet=rs0")

    assert host in said
    assert "refused" in said
    assert "secret" not in said


async def test_uninitiated_replica_set_is_named(uninitiated: str) -> None:
    """The error says how to initiate the set, with and without a set's name in the address."""
    for query in ("", "?replicaSet=godoty"):
        said = await start_error(f"mongodb://{uninitiated}/{query}")

        assert uninitiated in said
        assert "not initiated" in said
        assert "rs.initiate()" in said


async def test_wrong_set_name_is_reported_at_once(mongodb_uri: str) -> None:
    """Waiting does not help: the error has both names, long before the storage timeout."""
    address, _, name = mongodb_uri.partition("/?replicaSet=")
    begun = time.monotonic()
    said = await start_error(f"{address}/?replicaSet=other", storage_timeout=60)

    assert time.monotonic() - begun < 30
    assert address.removeprefix("mongodb://") in said
    assert f"named {name}" in said
    assert "replicaSet=other" in said


async def test_refused_account_is_reported(mongodb_uri: str) -> None:
    """The error of a wrong user or password is the database's refusal."""
    address, _, query = mongodb_uri.partition("/?")
    said = await start_error(f"mongodb://ann:secret@{address.removeprefix('mongodb://')}/?{query}&authSource=admin")

    assert "Authentication failed" in said
    assert "secret" not in said


def test_command_prints_the_cause() -> None:
    """A command ends with one line that names the host."""
    host = f"127.0.0.1:{free_port()}"
    environment = {"GODOTY_MONGODB_URI": f"mongodb://{host}/?replicaSet=rs0", "GODOTY_STORAGE_TIMEOUT": "1"}
    outcome = CliRunner().invoke(app, ["tenant", "list"], env=environment)

    assert isinstance(outcome.exception, StorageUnavailable)
    assert host in str(outcome.exception)
