"""Runs the client's commands in processes, without the time that their imports take.

A process is forked from one that has imported them and started nothing (`tests/support/command.py`). That they start in
a fresh interpreter, too, `test_later_version.py` and `test_usage_command.py` show.
"""

from __future__ import annotations

import asyncio
import os
import sys
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from tests.support.command import FORKS, ended
from tests.support.service import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CHAT, USAGE = "godoty.chat", "godoty.usage.app"  # modules with a `main`


class Program:
    """A running or finished command.

    Attributes:
        process: Its process.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        environment: Mapping[str, str],
        streams: tuple[int, int, int],
        cwd: Path | None = None,
    ) -> None:
        """Start it, in a session of its own.

        Args:
            module: The module of the command.
            arguments: Its arguments.
            environment: Its whole environment.
            streams: The files of its input, its output and its error output, which remain open here.
            cwd: Its working directory; None: this one.
        """
        passed = [Connection(os.dup(each)) for each in streams]
        given = (module, arguments, dict(environment), passed, str(cwd or Path.cwd()))
        self.process = FORKS.Process(target=_run, args=given)
        self.process.start()
        for each in passed:
            each.close()

    async def wait(self) -> int:
        """Wait for its end; return its exit status."""
        return await asyncio.wait_for(ended(self.process), PATIENCE)


async def run(
    module: str, *arguments: str, environment: Mapping[str, str], typed: str = "", cwd: Path | None = None
) -> tuple[int, str, str]:
    """Run a command whose input is a pipe; return its exit status, its output and its error output."""
    reading, writing = os.pipe()
    with TemporaryFile() as out, TemporaryFile() as err:
        streams = (reading, out.fileno(), err.fileno())
        program = Program(module, *arguments, environment=environment, streams=streams, cwd=cwd)
        os.close(reading)
        os.write(writing, typed.encode())
        os.close(writing)
        code = await program.wait()
        for each in (out, err):
            each.seek(0)
        return code, out.read().decode(), err.read().decode()


def _run(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], streams: Sequence[Connection], cwd: str
) -> None:
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, each in enumerate(streams):
        os.dup2(each.fileno(), number)
        each.close()
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, encoding="utf-8", closefd=False, buffering=1 if mode == "w" else -1)
        for number, mode in enumerate("rww")
    )
    sys.argv = [module, *arguments]
    sys.exit(import_module(module).main())
