from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from godoty_service.pricing import money
from godoty_service.pricing.catalogue import Catalogue

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="session")
def completions() -> list[Mapping[str, Any]]:
    """Recorded completions with their usage, their charge and the listed prices."""
    return [money.loads(line) for line in (DATA / "priced_completions.jsonl").read_text().splitlines()]


def _listing(day: str) -> Catalogue:
    body = (DATA / "catalogue" / f"models_{day}_trimmed.json").read_bytes()
    return Catalogue.parse(body, fetch_time=datetime.fromisoformat(day).replace(tzinfo=UTC))


@pytest.fixture(scope="session")
def listing() -> Catalogue:
    """An excerpt of OpenRouter's listing of 2026-08-22."""
    return _listing("2026-08-22")


@pytest.fixture(scope="session")
def old_listing() -> Catalogue:
    """An excerpt of OpenRouter's listing of 2026-02-10."""
    return _listing("2026-02-10")


@pytest.fixture(scope="session", params=["2026-02-10", "2026-08-15", "2026-08-22"])
def any_listing(request: pytest.FixtureRequest) -> Catalogue:
    """Each of the recorded listings."""
    return _listing(request.param)
