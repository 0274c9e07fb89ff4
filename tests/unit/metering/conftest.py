from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from godoty_service.metering import money
from godoty_service.metering.catalogue import Catalogue

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="session")
def completions() -> list[Mapping[str, Any]]:
    """Real completions: what was used, what was billed, what was listed."""
    return [money.loads(line) for line in (DATA / "priced_completions.jsonl").read_text().splitlines()]


def _listing(day: str) -> Catalogue:
    body = (DATA / "catalogue" / f"models_{day}_trimmed.json").read_bytes()
    return Catalogue.parse(body, fetch_time=datetime.fromisoformat(day).replace(tzinfo=UTC))


@pytest.fixture(scope="session")
def listing() -> Catalogue:
    """OpenRouter's listing of 2026-08-22, in part."""
    return _listing("2026-08-22")


@pytest.fixture(scope="session")
def old_listing() -> Catalogue:
    """OpenRouter's listing of 2026-02-10, in part."""
    return _listing("2026-02-10")


@pytest.fixture(scope="session", params=["2026-02-10", "2026-08-15", "2026-08-22"])
def any_listing(request: pytest.FixtureRequest) -> Catalogue:
    """Each of the listings at hand."""
    return _listing(request.param)
