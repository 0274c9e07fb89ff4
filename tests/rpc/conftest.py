"""What the tests of the gRPC edge share."""

import fcntl
from collections.abc import Iterator

import pytest


@pytest.fixture
def first_ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The ports that `godoty dev` takes first: one test at a time has them."""
    with (tmp_path_factory.getbasetemp().parent / "ports.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
