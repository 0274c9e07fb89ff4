"""One MongoDB for all workers of pytest-xdist: an idle one costs a hundredth of a core, and its start a second."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from openrouter_sandbox.mongodb.replica_set import LocalMongo

# Of the MongoDB of tests.
PARAMETERS = {
    # A dropped database's files stay for the history; its default of 5 minutes would keep those of many tests.
    "minSnapshotHistoryWindowInSeconds": "20",
    # Tests set clocks, and restore databases of months ago: nothing is to be deleted beside them for its age.
    "ttlMonitorEnabled": "false",
}
_GIVEN = "godoty_mongodb_uri"  # in a worker's input


def new_directory() -> Path:
    """Return a new directory for data, in memory if possible."""
    memory = Path("/dev/shm")  # noqa: S108 - a directory of our own is made below it
    return Path(tempfile.mkdtemp(prefix="godoty-test-", dir=memory if os.access(memory, os.W_OK) else None))


def given_uri(config: pytest.Config) -> str | None:
    """Return the URI of the MongoDB that the controller of this worker has started; None: there is none."""
    uri: str | None = getattr(config, "workerinput", {}).get(_GIVEN)
    return uri


class SharedMongo:
    """Starts a MongoDB before the first worker, and stops it after the last one."""

    def __init__(self) -> None:
        self._directory = new_directory()
        self._mongo = LocalMongo(self._directory, parameters=PARAMETERS)
        self._started = False

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Give a worker the address."""
        if not self._started:
            asyncio.run(self._mongo.start())
            self._started = True
        node.workerinput[_GIVEN] = self._mongo.uri

    def pytest_unconfigure(self) -> None:
        """Stop it; its data are deleted."""
        if self._started:
            asyncio.run(self._mongo.stop())
        shutil.rmtree(self._directory)
