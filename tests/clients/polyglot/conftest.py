import pytest

from tests.clients.polyglot.programs import LANGUAGES, Language, build


@pytest.fixture(scope="session", autouse=True)
def _built() -> None:
    """Builds the programs of all languages."""
    build()


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Language:
    """Each language in turn."""
    return LANGUAGES[request.param]
