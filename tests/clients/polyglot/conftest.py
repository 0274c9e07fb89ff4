from collections.abc import Iterator

import pytest

from tests.clients.polyglot.conformance import end_idle
from tests.clients.polyglot.programs import LANGUAGES, Language, build


@pytest.fixture(scope="session", autouse=True)
def _programs() -> Iterator[None]:
    """Ends the programs that tests have used."""
    yield
    end_idle()


@pytest.fixture(autouse=True)
def _built(request: pytest.FixtureRequest) -> None:
    """Builds the programs of the test's language; without one, those of all languages."""
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("language")
    for each in LANGUAGES:
        if name is None or name.startswith(each):
            build(each)


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Language:
    """Each language in turn."""
    return LANGUAGES[request.param]
