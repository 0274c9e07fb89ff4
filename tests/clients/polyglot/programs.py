"""The programs in other languages: each is built once, and run against the service."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType

ROOT = Path(__file__).parents[3]
CLIENTS = ROOT / "clients"
_TIMEOUT = 300  # seconds: go, npm and maven may have to fetch and compile
_LINE = 180.0  # seconds until a program's next line
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


@dataclass
class Result:
    """What a command of `conformance` printed.

    Attributes:
        events: The turn's events.
        done: What it returned; empty if it failed.
        error: Its error; empty if it did not fail.
    """

    events: list[Line] = field(default_factory=list)
    done: Line = field(default_factory=dict)
    error: Line = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The answer, from the events."""
        return "".join(each.get("text", "") for each in self.events)


class Conformance:
    """The program `conformance` of a language: it runs the commands that it is sent."""

    def __init__(self, language: Language, **environment: str) -> None:
        self._language = language
        self._environment = os.environ | environment
        self._lines = asyncio.StreamReader()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        # The event loop's own processes are forked, which gRPC's threads in this process do not survive.
        self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - our own commands
            self._language.command("conformance"),
            cwd=CLIENTS / self._language.folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._stack.callback(self._end)
        protocol = asyncio.StreamReaderProtocol(self._lines)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self._process.stdout)
        self._stack.callback(transport.close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def lines(self, do: str, **members: Any) -> AsyncGenerator[Line, None]:
        """Send a command; yield the lines of its answer as they come."""
        assert self._process.stdin is not None
        command = {"do": do} | self._language.options | members
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        while True:
            line = await asyncio.wait_for(self._lines.readline(), _LINE)
            assert line, "the program has ended"
            found: Line = json.loads(line)
            yield found
            if "done" in found or "error" in found:
                return

    async def ask(self, do: str, **members: Any) -> Result:
        """Send a command; return the whole of its answer."""
        result = Result()
        async for line in self.lines(do, **members):
            result.done |= line.get("done", {})
            result.error |= line.get("error", {})
            if "event" in line:
                result.events.append(line)
        return result
