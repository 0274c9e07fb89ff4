"""Starts processes, and reads the CPU time and memory of a process and its children."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from openrouter_sandbox.parent_death import die_with_parent

_TICK = os.sysconf("SC_CLK_TCK")
_MEGABYTE = 1024  # in kB, the unit of /proc
_STOP_SECONDS = 20.0


def tree(pid: int) -> list[int]:
    """A process and its running descendants."""
    found = [pid]
    for each in found:
        with suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children, in user and system mode."""
    return sum(_cpu_seconds(each) for each in tree(pid))


def megabytes(pid: int) -> float:
    """Return the memory of a process and its children: resident, with shared pages divided (PSS)."""
    return sum(_kilobytes(each) for each in tree(pid)) / _MEGABYTE


def _die_with_this_process() -> None:
    die_with_parent(signal.SIGTERM)


def _cpu_seconds(pid: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK
    return 0.0


def _kilobytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


class Child:
    """A child process; its errors go to a log.

    Args:
        command: The command.
        log: The file of its standard error.
        environment: Its whole environment; None: this process's.
        output: Whether its standard output is read here; otherwise it goes to the log as well.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        output: bool = True,
    ) -> None:
        self._command = command
        self._environment = environment
        self._output = output
        self._process: asyncio.subprocess.Process | None = None
        self.log = log

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process; raises RuntimeError before its start and after it has ended by itself."""
        if self._process is None or self._process.returncode is not None:
            raise RuntimeError(f"{self._command[:4]} does not run: {self.log_end()}")
        return self._process

    async def start(self) -> None:
        """Start the process."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE if self._output else log,
                stderr=log,
                limit=2**28,
                preexec_fn=_die_with_this_process,
            )

    async def line(self, seconds: float) -> str:
        """Return its next line of output; raise RuntimeError if it ends instead."""
        assert self.process.stdout is not None  # noqa: S101 - it was asked for
        line = await asyncio.wait_for(self.process.stdout.readline(), seconds)
        if not line:
            raise RuntimeError(f"{self._command[:4]} has ended: {self.log_end()}")
        return line.decode()

    async def say(self, line: str) -> None:
        """Write a line to its input."""
        assert self.process.stdin is not None  # noqa: S101 - it was asked for
        self.process.stdin.write(line.encode())
        await self.process.stdin.drain()

    async def stop(self) -> None:
        """Terminate it, and kill it if it does not end."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()

    def log_end(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
