"""The programs of the Python client's README, in an environment that has the built package and what it needs alone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.clients.test_readme import CLIENT, PROGRAMS, scopes_of
from tests.support.media import png

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.service import Service

_EXTRAS = ("pydantic", "godoty.frames")
_ALONE = [each for each in PROGRAMS if not any(f"from {name} import" in each for name in _EXTRAS)]


@pytest.fixture(autouse=True)
def _built() -> None:
    """Nothing in another language is needed."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of the environment."""
    folder = tmp_path_factory.mktemp("package")
    quiet = ("--quiet", "--disable-pip-version-check")
    wheel = ("wheel", *quiet, "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(CLIENT))
    interpreter = folder / "environment" / "bin" / "python"
    for command in (
        (sys.executable, "-m", "pip", *wheel),
        (sys.executable, "-m", "venv", str(folder / "environment")),
    ):
        subprocess.run(command, check=True, timeout=240)  # noqa: S603 - our own command
    (built,) = folder.glob("*.whl")
    subprocess.run((interpreter, "-m", "pip", "install", *quiet, str(built)), check=True, timeout=240)  # noqa: S603 - ours
    return interpreter


def test_package_needs_little(python: Path) -> None:
    """What a user gets beside it."""
    command = (python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check")
    out = subprocess.run(command, check=True, timeout=60, capture_output=True).stdout  # noqa: S603 - our own command
    names = {each["name"].lower().replace("_", "-") for each in json.loads(out)}

    needed = {"godoty-client", "googleapis-common-protos", "grpcio", "protobuf", "typing-extensions"}
    assert names - {"pip", "setuptools"} == needed


async def test_programs_run_as_pasted(
    python: Path, service: Service, issue: Callable[..., str], tmp_path: Path
) -> None:
    """All but those that need an extra."""
    (tmp_path / "photo.png").write_bytes(png(30, 20))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GODOTY_", "PYTHON"))}
    assert len(_ALONE) > 10
    for program in _ALONE:
        key = issue(service, scopes=frozenset(scopes_of(program)))
        process = await asyncio.create_subprocess_exec(
            *(python, "-c", program),
            cwd=tmp_path,
            env=environment | {"GODOTY_LISTEN": service.target, "GODOTY_API_KEY": key},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), timeout=120)
        assert (process.returncode, err.decode()) == (0, ""), program
        assert out.strip(), program
