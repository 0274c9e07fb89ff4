"""Two tenants of a server that call every RPC."""

import base64
from collections.abc import Callable, Iterator

import grpc
import pytest

from tests.conftest import serving
from tests.e2e.contract.requests import Party
from tests.support.backends import Backends


@pytest.fixture(scope="module")
def contract_server(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address and the database of a server that can encrypt, so that tenants can have webhooks."""
    environment = {
        "GODOTY_ENCRYPTION_KEYS": base64.b64encode(b"k" * 32).decode(),
        "GODOTY_WEBHOOK_NETWORKS": "127.0.0.0/8",
    }
    with serving(backends, tmp_path_factory, **environment) as served:
        yield served


@pytest.fixture(scope="module")
def new_party(backends: Backends, contract_server: tuple[str, str]) -> Iterator[Callable[[], Party]]:
    """Returns a function that creates tenants."""
    with grpc.insecure_channel(contract_server[0]) as channel:
        yield lambda: Party.new(backends.service(*contract_server), channel)


@pytest.fixture(scope="module")
def party(new_party: Callable[[], Party]) -> Party:
    """A tenant, for calls that change nothing."""
    return new_party()


@pytest.fixture(scope="module")
def stranger(new_party: Callable[[], Party]) -> Party:
    """Another tenant."""
    return new_party()
