"""The programs `conformance`: each runs the commands that it is sent, and is used again by the next test."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from tests.clients.polyglot.programs import CLIENTS, Language, Line

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType

    from tests.support.service import Service

_LINE = 180.0  # seconds until a program's next line

Process = subprocess.Popen[bytes]
_idle: defaultdict[str, list[Process]] = defaultdict(list)  # by the folder of the language


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
    """The program `conformance` of a language.

    Args:
        language: The language.
        target: The server.
        api_key: The API key.
        environment: Variables; with any, the program is one of its own.
    """

    def __init__(self, language: Language, target: str, api_key: str, **environment: str) -> None:
        self._language = language
        self._members = dict(language.options)
        self._environment = environment
        if environment:
            self._environment = {"GODOTY_LISTEN": target, "GODOTY_API_KEY": api_key} | environment
        else:
            self._members |= {"target": target, "api_key": api_key}
        self._busy = False

    @classmethod
    def of(cls, language: Language, service: Service, **environment: str) -> Self:
        """Return the program for a tenant."""
        return cls(language, service.target, service.api_key, **environment)

    async def __aenter__(self) -> Self:
        idle = _idle[self._language.folder]
        self._process = idle.pop() if idle and not self._environment else self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._environment or self._busy or kind is not None:
            _end(self._process)
        else:
            _idle[self._language.folder].append(self._process)

    def _start(self) -> Process:
        # The event loop's own processes are forked, which gRPC's threads in this process do not survive.
        return subprocess.Popen(  # noqa: S603 - our own commands
            self._language.command("conformance"),
            cwd=CLIENTS / self._language.folder,
            env=os.environ | self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    async def lines(self, do: str, **members: Any) -> AsyncGenerator[Line, None]:
        """Send a command; yield the lines of its answer as they come."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._busy = True
        command = {"do": do} | self._members | members
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        while True:
            line = await asyncio.wait_for(asyncio.to_thread(self._process.stdout.readline), _LINE)
            assert line, "the program has ended"
            found: Line = json.loads(line)
            self._busy = not ("done" in found or "error" in found)
            yield found
            if not self._busy:
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


def end_idle() -> None:
    """End the programs that no test uses."""
    for processes in _idle.values():
        while processes:
            _end(processes.pop())


def _end(process: Process) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
