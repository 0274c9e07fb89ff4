"""The examples in other languages, against the real service: `make clients-test`, with go, node and maven."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path
from typing import Protocol

import pytest

_CLIENTS = Path(__file__).parents[3] / "clients"
_PATIENCE = 300  # go, npm and maven may have to fetch and compile


class Service(Protocol):
    """What `tests/conftest.py` serves."""

    target: str
    api_key: str


async def _run(folder: str, *command: str, target: str = "", api_key: str = "") -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=_CLIENTS / folder,
        env=os.environ | {"GODOTY_LISTEN": target, "GODOTY_API_KEY": api_key},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), timeout=_PATIENCE)
    return process.returncode or 0, out.decode()


_EXAMPLES = [
    pytest.param("go", ("go", "run", "./examples/converse"), id="go"),
    pytest.param("typescript", ("npm", "run", "--silent", "example"), id="typescript"),
    pytest.param("java", ("mvn", "-B", "-q", "-Dstyle.color=never", "compile", "exec:java"), id="java"),
]


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    """Installs what TypeScript's package-lock.json names."""
    if not (_CLIENTS / "typescript/node_modules").is_dir():
        subprocess.run(["npm", "ci", "--silent"], cwd=_CLIENTS / "typescript", check=True)  # noqa: S607 - found on PATH


@pytest.mark.parametrize(("folder", "command"), _EXAMPLES)
async def test_a_conversation_costs_what_its_metrics_say(
    folder: str, command: tuple[str, ...], service: Service
) -> None:
    """Two turns in one session; their last total and the metrics are the same amount, and more than the first."""
    code, out = await _run(folder, *command, target=service.target, api_key=service.api_key)

    assert code == 0, out
    first, second = re.findall(r"^session_totals: cost_usd=(\S+) turns=\d+$", out, re.MULTILINE)
    assert re.findall(r"^metrics: cost_usd=(\S+) turns=(\d+)$", out, re.MULTILINE) == [(second, "2")]
    assert first != second


@pytest.mark.parametrize(("folder", "command"), _EXAMPLES)
async def test_a_refused_key_ends_the_example(folder: str, command: tuple[str, ...], service: Service) -> None:
    """A failure is told, without the key, and the exit code is not 0."""
    code, out = await _run(folder, *command, target=service.target, api_key="gdt_no_such_key")

    assert code != 0
    assert "UNAUTHENTICATED" in out.upper()
    assert "no_such_key" not in out


async def test_go_tests_pass() -> None:
    """The Go client's own tests."""
    code, out = await _run("go", "go", "test", "./...")

    assert code == 0, out
