"""A supervisor and its workers: their common start, their ends and replacements."""

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

_MODULE = "tests.e2e.workers.worker_processes"


class Supervised:
    """A running `worker_processes.py`."""

    def __init__(self, behaviour: str) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, "-m", _MODULE, behaviour],
            bufsize=0,  # so that `select` sees all unread output
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def lines(self, *starts: str) -> list[str]:
        """Read until there is a line for each of `starts`, in any order; return all lines up to the last one."""
        missing, read = list(starts), []
        while missing:
            line = self._line()
            read.append(line)
            with suppress(ValueError):
                missing.remove(line.split()[0])
        return read

    def pids(self) -> list[int]:
        """Wait until both workers serve; return their process ids in the order of their starts."""
        return sorted(int(line.split()[1]) for line in self.lines("serves", "serves") if line.startswith("serves"))

    def is_silent(self) -> bool:
        """Return whether it prints nothing for a moment."""
        assert self.process.stdout is not None
        return not select.select([self.process.stdout], [], [], 0.3)[0]

    def finish(self) -> None:
        """Let what takes a worker long end."""
        if self.process.stdin is not None:
            self.process.stdin.close()
            self.process.stdin = None

    def rest(self) -> tuple[int, list[str], str]:
        """Wait until all its processes have ended; return its exit status, its further lines and its error output."""
        self.finish()
        out, err = self.process.communicate(timeout=60)  # ends when the last process that holds the pipes does
        return self.process.returncode, out.decode().splitlines(), err.decode()

    def _line(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline().decode() if ready else ""
        assert line, "no further output"
        return line.strip()


@pytest.fixture
def start() -> Iterator[Callable[[str], Supervised]]:
    """Starts supervisors, and kills their processes after the test."""
    started: list[Supervised] = []

    def start_one(behaviour: str) -> Supervised:
        started.append(Supervised(behaviour))
        return started[-1]

    yield start_one
    for supervisor in started:
        with suppress(ProcessLookupError):
            os.killpg(supervisor.process.pid, signal.SIGKILL)
        supervisor.rest()


def test_no_worker_serves_before_all_listen(start: Callable[[str], Supervised]) -> None:
    """An early worker waits until the late one listens as well."""
    supervisor = start("late")
    supervisor.lines("listens")
    assert supervisor.is_silent()
    supervisor.finish()
    lines = supervisor.lines("serves", "serves")

    assert [line.split()[0] for line in lines] == ["listens", "serves", "serves"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signal_drains_all_workers(start: Callable[[str], Supervised], number: signal.Signals) -> None:
    """A signal to the supervisor alone drains all workers, and it ends with exit status 0 after them."""
    supervisor = start("steady")
    pids = supervisor.pids()
    supervisor.process.send_signal(number)
    lines = supervisor.lines("drained")
    assert supervisor.is_silent()  # it waits for the worker that takes longer
    assert supervisor.process.poll() is None
    code, further, _ = supervisor.rest()

    assert (code, lines + further) == (0, [f"drained {pid}" for pid in pids])


def test_second_signal_kills_workers(start: Callable[[str], Supervised]) -> None:
    """Workers that would drain for a minute are killed at once."""
    supervisor = start("stubborn")
    supervisor.pids()
    supervisor.process.terminate()
    assert supervisor.process.stderr is not None
    while b'"event": "stopping"' not in (line := supervisor.process.stderr.readline()):
        assert line
    supervisor.process.terminate()
    supervisor.process.wait(60)
    code, lines, _ = supervisor.rest()

    assert (code, lines) == (130, [])


def test_dead_worker_is_replaced(start: Callable[[str], Supervised]) -> None:
    """A worker is replaced each time it dies, and the other one continues to serve."""
    supervisor = start("steady")
    victim, other = supervisor.pids()
    for _ in range(2):
        os.kill(victim, signal.SIGKILL)
        victim = int(supervisor.lines("serves")[-1].split()[1])
    supervisor.process.terminate()
    code, lines, err = supervisor.rest()

    assert (code, sorted(lines)) == (0, sorted(f"drained {pid}" for pid in (victim, other)))
    assert len(re.findall('"how": "signal 9".*"event": "worker_ended"', err)) == 2


def test_replacements_end_after_six_deaths_at_the_start(start: Callable[[str], Supervised]) -> None:
    """A worker that keeps dying at its start is not replaced forever: the others drain, and one line has the reason."""
    supervisor = start("barren")
    first, second = supervisor.pids()
    os.kill(first, signal.SIGKILL)
    code, lines, err = supervisor.rest()

    assert (code, lines) == (1, [f"drained {second}"])
    assert err.splitlines()[-1].startswith("failed: Workers keep failing at their start")
    assert "GODOTY_SOMETHING is wrong" in err.splitlines()[-1]
    assert err.count("worker_ended") == 6


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("wrong", "GODOTY_SOMETHING is wrong"), ("crashing", "signal 6")],
    ids=["error", "signal"],
)
def test_failed_start_is_reported_once(start: Callable[[str], Supervised], behaviour: str, reason: str) -> None:
    """If one worker cannot start, none serves, and one line has the reason of the first failure."""
    code, lines, err = start(behaviour).rest()

    assert code == 1
    assert [line for line in lines if not line.startswith("listens")] == []
    assert err.splitlines()[-1].startswith("failed: ")
    assert reason in err.splitlines()[-1]
    assert err.count("worker_started") == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=["SIGKILL", "SIGHUP"])
def test_workers_do_not_outlive_their_supervisor(start: Callable[[str], Supervised], number: signal.Signals) -> None:
    """When the supervisor dies, even by SIGKILL, its workers drain and end."""
    supervisor = start("steady")
    pids = supervisor.pids()
    supervisor.process.send_signal(number)
    lines = supervisor.lines("drained")  # the first does not wait for the second, which takes longer
    code, further, _ = supervisor.rest()

    assert (code, lines + further) == (-number, [f"drained {pid}" for pid in pids])
