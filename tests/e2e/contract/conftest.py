"""Two tenants of the shared server that call every RPC."""

from collections.abc import Callable, Iterator

import grpc
import pytest

from tests.e2e.contract.requests import Party
from tests.support.backends import Backends


@pytest.fixture(scope="module")
def new_party(backends: Backends, shared_server: tuple[str, str]) -> Iterator[Callable[[], Party]]:
    """Returns a function that creates tenants."""
    with grpc.insecure_channel(shared_server[0]) as channel:
        yield lambda: Party.new(backends.service(*shared_server), channel)


@pytest.fixture(scope="module")
def party(new_party: Callable[[], Party]) -> Party:
    """A tenant, for calls that change nothing."""
    return new_party()


@pytest.fixture(scope="module")
def stranger(new_party: Callable[[], Party]) -> Party:
    """Another tenant."""
    return new_party()
