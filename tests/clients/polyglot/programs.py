"""The programs in other languages: each is built once, and run against the service."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
CLIENTS = ROOT / "clients"
_TIMEOUT = 300  # seconds: go, npm and maven may have to fetch and compile
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # mvn prints some even with -Dstyle.color=never
_GO = ROOT / ".local" / "clients" / "go"  # its programs
MAVEN = ("mvn", "-B", "-q", "-Dstyle.color=never")
_JAVA = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")  # they run for a second

Line = dict[str, Any]


@dataclass(frozen=True)
class Language:
    """A client and its programs.

    Attributes:
        folder: Its folder in `clients`.
        build: The command that builds the programs.
        programs: The commands that run what was built.
        example: The command of the README that runs the example `converse`.
        options: Members of each command for `conformance`.
    """

    folder: str
    build: tuple[str, ...]
    programs: dict[str, tuple[str, ...]]
    example: tuple[str, ...]
    options: Line = field(default_factory=dict)

    def command(self, program: str) -> tuple[str, ...]:
        """Return the command that runs a program."""
        if self.folder != "java":
            return self.programs[program]
        libraries = (CLIENTS / "java/target/classpath").read_text().strip()
        return (*_JAVA, "-cp", f"target/classes:target/test-classes:{libraries}", *self.programs[program])


LANGUAGES = {
    "go": Language(
        folder="go",
        build=("go", "build", "-o", f"{_GO}/", "./examples/converse", "./examples/history", "./internal/conformance"),
        programs={name: (str(_GO / name),) for name in ("converse", "history", "conformance")},
        example=("go", "run", "./examples/converse"),
    ),
    "typescript": Language(
        folder="typescript",
        build=("npm", "run", "--silent", "build:examples"),
        programs={
            "converse": ("node", ".build/examples/converse.js"),
            "history": ("node", ".build/examples/history.js"),
            "conformance": ("node", ".build/tests/conformance.js"),
        },
        example=("npm", "run", "--silent", "example"),
    ),
    "java": Language(
        folder="java",
        build=(*MAVEN, "-DskipTests", "install"),
        programs={
            "converse": ("app.godoty.examples.Converse",),
            "history": ("app.godoty.examples.History",),
            "conformance": ("app.godoty.conformance.Conformance",),
        },
        example=(*MAVEN, "test-compile", "exec:java"),
    ),
}
READERS = {**LANGUAGES, "java-reactive": replace(LANGUAGES["java"], options={"reactive": True})}
"""The languages, and Java's reactive stream."""


@cache
def build(name: str) -> None:
    """Build the programs of a language, once."""
    language = LANGUAGES[name]
    if name == "typescript" and not (CLIENTS / "typescript/node_modules").is_dir():
        _check("typescript", "npm", "ci", "--silent")
    _check(language.folder, *language.build)


def _check(folder: str, *command: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own commands
        command, cwd=CLIENTS / folder, check=False, capture_output=True, text=True, timeout=_TIMEOUT
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


async def run(folder: str | Path, *command: str, **environment: str) -> tuple[int, str]:
    """Run a command in a client's folder; return its exit code and what it printed."""
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=CLIENTS / folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_TIMEOUT,
        check=False,
    )
    return done.returncode, _COLOUR.sub("", done.stdout.decode())
