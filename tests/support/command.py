"""Runs a `godoty` command in a process, without the second and a half that its imports take.

The process is forked from one that has imported the service and started nothing. Commands that behave differently in a
fresh interpreter (`godoty dev`, TLS, several workers) are tested in one.
"""

import asyncio
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from godoty_service.agents.outbound.pool import trusted_certificates
from godoty_service.cli.app import main
from tests.support.killed_writes import KILL_AFTER, kill_after
from tests.support.later_schema import LATER_SCHEMA, install
from tests.support.system_clock import SKEW, skew

FILES = "GODOTY_TEST_OPEN_FILES"  # in a command's environment: its soft limit of open files

trusted_certificates()  # loaded before the fork, too
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["godoty_service.cli.app", "godoty_service.server", "godoty.chat.app", "godoty.usage.app", __name__]
)


class Command:
    """A running or finished command.

    Attributes:
        pid: Its process id.
    """

    def __init__(self, *arguments: str, environment: Mapping[str, str], out: Path, err: Path | None = None) -> None:
        """Start it.

        Args:
            arguments: The arguments of `godoty`.
            environment: Its whole environment.
            out: The file that its output is appended to.
            err: The file that its error output is appended to; None: the same file.
        """
        self._process = FORKS.Process(target=_run, args=(arguments, dict(environment), str(out), str(err or out)))
        self._process.start()
        self.pid = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative if a signal ended it; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; one that has just ended gets none, as with `subprocess`."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def wait(self) -> int:
        """Wait for its end; return its exit status."""
        return await ended(self._process)


async def ended(process: BaseProcess) -> int:
    """Wait for the end of a process; return its exit status."""
    while process.exitcode is None:
        seen = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(process.sentinel, seen.set)
        try:
            await seen.wait()
        finally:
            loop.remove_reader(process.sentinel)
    return process.exitcode


def _run(arguments: tuple[str, ...], environment: dict[str, str], out: str, err: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    if ahead := os.environ.pop(SKEW, None):
        skew(float(ahead))
    if os.environ.pop(LATER_SCHEMA, None):
        install()
    if number := os.environ.pop(KILL_AFTER, None):
        kill_after(int(number))
    if files := os.environ.pop(FILES, None):
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    sys.argv = ["godoty", *arguments]
    for stream, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, stream)
        os.close(file)
    main()
