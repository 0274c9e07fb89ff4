"""The programs of the client's README, run as they stand by the built package, outside of the checkout."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from godoty_service.tenancy.auth import Scope
from tests.support.media import png
from tests.support.service import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.service import Service

CLIENT = Path(__file__).parents[2] / "clients" / "python"
README = (CLIENT / "README.md").read_text(encoding="utf-8")
PROGRAMS = [match[1] for match in re.finditer(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)]
# Has imported the package, and runs each program in a fork of itself: its folder and variables come as a line of JSON.
INTERPRETER = """
import json, os, sys
import godoty
assert godoty.__file__.startswith(os.getcwd()), godoty.__file__
sys.path.remove("")
for line in sys.stdin:
    given = json.loads(line)
    if not os.fork():
        os.chdir(given["folder"])
        os.environ.update(given["variables"])
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
        exec(compile(given["program"], "program", "exec"), {"__name__": "__main__"})
        break
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def name_of(program: str) -> str:
    """Return a program's line by which a failed test is found."""
    return next(line for line in program.splitlines() if "client." in line).strip()


def scopes_of(program: str) -> set[Scope]:
    """Return the scopes of the key that a program needs."""
    return {Scope.ADMIN} if "client.admin" in program else {Scope.CONVERSE, Scope.BILLING, Scope.AGENTS}


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """An interpreter that has the built package, and not the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(CLIENT)]
    subprocess.run(command, check=True, timeout=240)  # noqa: S603 - our own command
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GODOTY_")}
    process = subprocess.Popen(  # noqa: S603 - our own command
        (sys.executable, "-c", INTERPRETER),
        cwd=folder,
        env=environment | {"PYTHONPATH": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.communicate()


@pytest.mark.parametrize("program", PROGRAMS, ids=map(name_of, PROGRAMS))
async def test_program_runs_as_it_stands(
    program: str,
    interpreter: subprocess.Popen[str],
    service: Service,
    issue: Callable[..., str],
    tmp_path: Path,
) -> None:
    """It prints something, and ends without an error."""
    (tmp_path / "photo.png").write_bytes(png(30, 20))
    key = issue(service, scopes=frozenset(scopes_of(program)))
    variables = {"GODOTY_LISTEN": service.target, "GODOTY_API_KEY": key}
    assert interpreter.stdin is not None
    assert interpreter.stdout is not None
    json.dump({"program": program, "folder": str(tmp_path), "variables": variables}, interpreter.stdin)
    print(file=interpreter.stdin, flush=True)
    code = await asyncio.wait_for(asyncio.to_thread(interpreter.stdout.readline), PATIENCE)

    assert (code, (tmp_path / "err").read_text()) == ("0\n", "")
    assert (tmp_path / "out").read_text().strip()
