"""The commands of docs/debugging.md, as pasted into a shell beside `godoty dev`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.clients.debugging_page import ROOT, TOOLS, Step, steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.backends import Backends

_BIN = ROOT / ".local/tools/bin"
_START_TIMEOUT = 90.0
_TIMEOUT = 300.0
_MARK = "=-=-="


@pytest.fixture(autouse=True)
def _built() -> None:
    """The programs of the other languages are of no use here."""


@pytest.fixture(scope="module")
def checkout(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder beside a running `godoty dev`, with the protos."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "protos").symlink_to(ROOT / "protos")
    environment = {
        **os.environ,
        "GODOTY_MONGODB_URI": backends.mongodb_uri,
        "GODOTY_MONGODB_DATABASE": backends.new_database(),
    }
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "godoty_service.cli", "dev"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        end = time.monotonic() + _START_TIMEOUT
        while not (folder / ".local/dev.env").exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield folder
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(_START_TIMEOUT)
    assert code == 0, log.read_text()


def _run(*command: str, **environment: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own commands
        command, check=True, env=os.environ | environment, stdout=subprocess.PIPE, text=True, timeout=_TIMEOUT
    )
    return done.stdout


@pytest.fixture(scope="session")
def tools() -> str:
    """The PATH with both tools, of the versions that the page names; buf without npx, which takes a second a call."""
    page = (ROOT / "docs/debugging.md").read_text()
    install, package = re.search(r"go install (\S+@\S+)", page), re.search(r"npx --yes (\S+@\S+)", page)
    assert install is not None
    assert package is not None
    _run("go", "install", install[1], GOBIN=str(_BIN))
    shim = _run("npx", "--yes", "--package", package[1], "--", "sh", "-c", "command -v buf")
    (buf,) = Path(shim.strip()).parents[1].glob("@bufbuild/buf-*/bin/buf")
    return f"{_BIN}:{buf.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize("tool", TOOLS)
def test_commands_work_as_pasted(tool: str, checkout: Path, tools: str) -> None:
    """One after another in one shell: each has success and prints what the page says."""
    done = subprocess.run(  # noqa: S603 - the page's commands
        ["bash", "-c", _script(tool)],  # noqa: S607 - the user's shell
        cwd=checkout,
        env=os.environ | {"PATH": tools},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_TIMEOUT,
        check=False,
    )
    printed = re.findall(rf"^{_MARK}\n(.*?)^{_MARK}(\d+)$", done.stdout.decode(), re.MULTILINE | re.DOTALL)

    assert len(printed) == len(steps()), done.stdout.decode()
    for step, (output, status) in zip(steps(), printed, strict=True):
        assert status == "0", f"{step.title}: {output}"
        assert _squeezed(step.expected) in _squeezed(output), f"{step.title}: {output}"


def _script(tool: str) -> str:
    """Return the commands of the page for a tool, with marks around what each prints."""
    return "\n".join(["set -o pipefail", *(_marked(step, tool) for step in steps())])


def _marked(step: Step, tool: str) -> str:
    return f"echo {_MARK}\n{step.commands[tool]}\nstatus=$?; echo; echo {_MARK}$status"


def _squeezed(text: str) -> str:
    """Return a text without what the tools do differently: white space, and names in camel case or with underscores."""
    return re.sub(r"[\s_]", "", text).lower()
