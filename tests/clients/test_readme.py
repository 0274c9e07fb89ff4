"""The programs of the client's README, run as they stand by the built package, outside of the checkout."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from godoty_service.tenancy.auth import Scope
from tests.support.media import png

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.service import Service

CLIENT = Path(__file__).parents[2] / "clients" / "python"
README = (CLIENT / "README.md").read_text(encoding="utf-8")
PROGRAMS = [match[1] for match in re.finditer(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)]


def name_of(program: str) -> str:
    """Return a program's line by which a failed test is found."""
    return next(line for line in program.splitlines() if "client." in line).strip()


def scopes_of(program: str) -> set[Scope]:
    """Return the scopes of the key that a program needs."""
    return {Scope.ADMIN} if "client.admin" in program else {Scope.CONVERSE, Scope.BILLING, Scope.AGENTS}


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built package, alone."""
    folder = tmp_path_factory.mktemp("installed")
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(CLIENT)]
    subprocess.run(command, check=True, timeout=240)  # noqa: S603 - our own command
    return folder


@pytest.mark.parametrize("program", PROGRAMS, ids=map(name_of, PROGRAMS))
async def test_program_runs_as_it_stands(
    program: str, installed: Path, service: Service, issue: Callable[..., str], tmp_path: Path
) -> None:
    """It prints something, and ends without an error."""
    (tmp_path / "photo.png").write_bytes(png(30, 20))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GODOTY_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        cwd=tmp_path,
        env=environment
        | {
            "PYTHONPATH": str(installed),
            "GODOTY_LISTEN": service.target,
            "GODOTY_API_KEY": issue(service, scopes=frozenset(scopes_of(program))),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), timeout=120)

    assert (process.returncode, err.decode()) == (0, "")
    assert out.strip()
