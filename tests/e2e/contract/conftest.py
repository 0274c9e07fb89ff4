"""Two tenants of a server that call every RPC."""

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from tests.conftest import ENCRYPTION_KEY, WITHOUT_WEBHOOKS, serving
from tests.e2e.contract.requests import Party
from tests.support.backends import Backends
from tests.support.lasting import Lasting, lasting

_FOLDER = Path(__file__).parent
# So that tenants can have webhooks, to which nothing is delivered meanwhile.
_ENVIRONMENT = {
    **WITHOUT_WEBHOOKS,
    "GODOTY_ENCRYPTION_KEYS": ENCRYPTION_KEY,
    "GODOTY_WEBHOOK_NETWORKS": "127.0.0.0/8",
}


@pytest.fixture(scope="session")
def lasting_server(
    request: pytest.FixtureRequest, backends: Backends, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lasting[tuple[str, str]]]:
    """The server of `contract_server`, for all files of this folder."""
    with lasting(request, _FOLDER, lambda: serving(backends, tmp_path_factory, **_ENVIRONMENT)) as one:
        yield one


@pytest.fixture(scope="module")
def contract_server(lasting_server: Lasting[tuple[str, str]]) -> tuple[str, str]:
    """The address and the database of a server that can encrypt, so that tenants can have webhooks."""
    return lasting_server.value


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
def adding(new_party: Callable[[], Party]) -> Party:
    """A tenant, for calls that add or change something and take nothing away."""
    return new_party()


@pytest.fixture(scope="module")
def stranger(new_party: Callable[[], Party]) -> Party:
    """Another tenant."""
    return new_party()
