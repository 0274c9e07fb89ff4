"""The examples in other languages, against the real service: `make clients`, with go, node and maven."""

from __future__ import annotations

import re
from typing import Protocol

from tests.clients.polyglot.programs import Language, run


class Service(Protocol):
    """What `tests/conftest.py` serves."""

    target: str
    api_key: str


async def test_example_total_equals_metrics(language: Language, service: Service) -> None:
    """By the README's command: two turns in one session; their last total and the metrics are the same amount."""
    code, out = await run(
        language.folder, *language.example, GODOTY_LISTEN=service.target, GODOTY_API_KEY=service.api_key
    )

    assert code == 0, out
    first, second = re.findall(r"^session_totals: cost_usd=(\S+) turns=\d+$", out, re.MULTILINE)
    assert re.findall(r"^metrics: cost_usd=(\S+) turns=(\d+)$", out, re.MULTILINE) == [(second, "2")]
    assert first != second


async def test_refused_key_ends_example_with_error(language: Language, service: Service) -> None:
    """The example reports the failure without the key and exits with a code other than 0."""
    code, out = await run(
        language.folder,
        *language.command("converse"),
        GODOTY_LISTEN=service.target,
        GODOTY_API_KEY="gdt_no_such_key",
    )

    assert code != 0
    assert "UNAUTHENTICATED" in out.upper()
    assert "INVALID_API_KEY" in out
    assert "no_such_key" not in out


async def test_go_tests_pass() -> None:
    """The Go client's own tests, and its code is formatted and without findings."""
    for command in (("go", "vet", "./..."), ("go", "test", "./...")):
        code, out = await run("go", *command)
        assert code == 0, out
    assert await run("go", "gofmt", "-l", ".") == (0, "")
