"""The examples in other languages, against the real service: `make clients`, with go, node and maven."""

from __future__ import annotations

import re
from typing import Protocol

import pytest

from tests.clients.polyglot.examples import run


class Service(Protocol):
    """What `tests/conftest.py` serves."""

    target: str
    api_key: str


_EXAMPLES = [
    pytest.param("go", ("go", "run", "./examples/converse"), id="go"),
    pytest.param("typescript", ("npm", "run", "--silent", "example"), id="typescript"),
    pytest.param("java", ("mvn", "-B", "-q", "-Dstyle.color=never", "compile", "exec:java"), id="java"),
]


@pytest.mark.parametrize(("folder", "command"), _EXAMPLES)
async def test_example_total_equals_metrics(folder: str, command: tuple[str, ...], service: Service) -> None:
    """Two turns in one session; their last total and the metrics are the same amount, and more than the first."""
    code, out = await run(folder, *command, GODOTY_LISTEN=service.target, GODOTY_API_KEY=service.api_key)

    assert code == 0, out
    first, second = re.findall(r"^session_totals: cost_usd=(\S+) turns=\d+$", out, re.MULTILINE)
    assert re.findall(r"^metrics: cost_usd=(\S+) turns=(\d+)$", out, re.MULTILINE) == [(second, "2")]
    assert first != second


@pytest.mark.parametrize(("folder", "command"), _EXAMPLES)
async def test_refused_key_ends_example_with_error(folder: str, command: tuple[str, ...], service: Service) -> None:
    """The example reports the failure without the key and exits with a code other than 0."""
    code, out = await run(folder, *command, GODOTY_LISTEN=service.target, GODOTY_API_KEY="gdt_no_such_key")

    assert code != 0
    assert "UNAUTHENTICATED" in out.upper()
    assert "no_such_key" not in out


async def test_go_tests_pass() -> None:
    """The Go client's own tests."""
    code, out = await run("go", "go", "test", "./...")

    assert code == 0, out
