"""A `godoty` command as a process of its own, without the second and a half that its imports take.

It is forked from a process that has imported the service once and started nothing of it. What a fresh interpreter
does differently (`godoty dev`, TLS, several workers) is tested with fresh ones.
"""

import asyncio
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from godoty_service.cli.main import main
from tests.service.system_clock import SKEW, skew

FILES = "GODOTY_TEST_OPEN_FILES"  # in a command's environment: the soft limit of open files that it starts with

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["godoty_service.cli.main", "godoty_service.server", __name__])


class Command:
    """A command that runs, or has ended.

    Attributes:
        pid: Its process id.
    """

    def __init__(self, *arguments: str, environment: Mapping[str, str], out: Path, err: Path | None = None) -> None:
        """Start it.

        Args:
            arguments: What follows `godoty`.
            environment: Its whole environment.
            out: Where its output is added.
            err: Where its error output is added; None: to the same file.
        """
        self._process = _FORKS.Process(target=_run, args=(arguments, dict(environment), str(out), str(err or out)))
        self._process.start()
        self.pid = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for the signal that ended it; None: it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    async def wait(self) -> int:
        """Wait for its end, and tell its exit status."""
        while self._process.exitcode is None:
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.add_reader(self._process.sentinel, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(self._process.sentinel)
        return self._process.exitcode


def _run(arguments: tuple[str, ...], environment: dict[str, str], out: str, err: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    if ahead := os.environ.pop(SKEW, None):
        skew(float(ahead))
    if files := os.environ.pop(FILES, None):
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    sys.argv = ["godoty", *arguments]
    for stream, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, stream)
        os.close(file)
    main()
