"""A supervisor and its workers: how they start together, and how they end, each of them and all."""

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

_CREW = Path(__file__).with_name("crew.py")


class Crew:
    """A running `crew.py`."""

    def __init__(self, behaviour: str) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - ours
            [sys.executable, _CREW, behaviour],
            bufsize=0,  # what is read is what was waited for
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def lines(self, *starts: str) -> list[str]:
        """Read a line for each start that is given, in whatever order they come; returns all lines up to the last."""
        missing, read = list(starts), []
        while missing:
            line = self._line()
            read.append(line)
            with suppress(ValueError):
                missing.remove(line.split()[0])
        return read

    def pids(self) -> list[int]:
        """Wait until both workers serve, and tell their process ids in the order in which they were started."""
        return sorted(int(line.split()[1]) for line in self.lines("serves", "serves") if line.startswith("serves"))

    def rest(self) -> tuple[int, list[str], str]:
        """Wait until no process of it is left: its exit status, the lines since then, and its error output."""
        out, err = self.process.communicate(timeout=60)  # ends when the last process that holds the pipes does
        return self.process.returncode, out.decode().splitlines(), err.decode()

    def _line(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline().decode() if ready else ""
        assert line, "it says no more"
        return line


@pytest.fixture
def start() -> Iterator[Callable[[str], Crew]]:
    """Starts crews, and leaves none behind."""
    started: list[Crew] = []

    def start_one(behaviour: str) -> Crew:
        started.append(Crew(behaviour))
        return started[-1]

    yield start_one
    for crew in started:
        with suppress(ProcessLookupError):
            os.killpg(crew.process.pid, signal.SIGKILL)
        crew.process.communicate()


def test_no_worker_serves_before_all_listen(start: Callable[[str], Crew]) -> None:
    """Ready means that every worker is: one that is early waits for the late one."""
    lines = start("late").lines("serves", "serves")

    assert [line.split()[0] for line in lines] == ["listens", "listens", "serves", "serves"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_drains_all_workers(start: Callable[[str], Crew], number: signal.Signals) -> None:
    """The supervisor alone is told, and ends with exit status 0 after its workers have drained."""
    crew = start("steady")
    pids = crew.pids()
    crew.process.send_signal(number)
    code, lines, _ = crew.rest()

    assert (code, sorted(lines)) == (0, sorted(f"drained {pid}" for pid in pids))


def test_a_second_signal_ends_them_at_once(start: Callable[[str], Crew]) -> None:
    """Workers that would drain for a minute are killed."""
    crew = start("stubborn")
    crew.pids()
    crew.process.terminate()
    assert crew.process.stderr is not None
    while b'"event": "stopping"' not in (said := crew.process.stderr.readline()):
        assert said
    crew.process.terminate()
    code, lines, _ = crew.rest()

    assert (code, lines) == (130, [])


def test_a_worker_that_dies_is_replaced(start: Callable[[str], Crew]) -> None:
    """However often it happens, and the other one serves on."""
    crew = start("steady")
    victim, other = crew.pids()
    for _ in range(2):
        os.kill(victim, signal.SIGKILL)
        victim = int(crew.lines("serves")[-1].split()[1])
    crew.process.terminate()
    code, lines, err = crew.rest()

    assert (code, sorted(lines)) == (0, sorted(f"drained {pid}" for pid in (victim, other)))
    assert len(re.findall('"how": "signal 9".*"event": "worker_ended"', err)) == 2


def test_workers_that_die_at_their_start_are_given_up(start: Callable[[str], Crew]) -> None:
    """Not in a busy loop, and not for ever: the others drain, and one line says why; the exit status is 1."""
    crew = start("barren")
    first, second = crew.pids()
    os.kill(first, signal.SIGKILL)
    code, lines, err = crew.rest()

    assert (code, lines) == (1, [f"drained {second}"])
    assert err.splitlines()[-1].startswith("failed: Workers end at their start again and again")
    assert "GODOTY_SOMETHING is wrong" in err.splitlines()[-1]
    assert err.count("worker_ended") == 6


@pytest.mark.parametrize(
    ("behaviour", "said"), [("wrong", "GODOTY_SOMETHING is wrong"), ("crashing", "signal 6")], ids=["said", "unsaid"]
)
def test_a_start_that_fails_fails_once(start: Callable[[str], Crew], behaviour: str, said: str) -> None:
    """Where one worker cannot start, none serves, and one line tells the reason of the first."""
    code, lines, err = start(behaviour).rest()

    assert code == 1
    assert [line for line in lines if not line.startswith("listens")] == []
    assert err.splitlines()[-1].startswith("failed: ")
    assert said in err.splitlines()[-1]
    assert err.count("worker_started") == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=["SIGKILL", "SIGHUP"])
def test_workers_do_not_outlive_their_supervisor(start: Callable[[str], Crew], number: signal.Signals) -> None:
    """However it ended, they drain and end; SIGHUP does to it what it does to any process."""
    crew = start("steady")
    pids = crew.pids()
    crew.process.send_signal(number)
    code, lines, _ = crew.rest()

    # In the order in which they drain: the first does not wait for the second, who takes longer.
    assert (code, lines) == (-number, [f"drained {pid}" for pid in pids])
