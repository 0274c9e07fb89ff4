"""Starts worker processes, replaces those that die, and stops them all.

It forks them from itself, after all imports and before anything was started: they share the memory of what was
imported, and start in a moment. So this process must start no thread and must not use gRPC.
"""

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

import structlog

from godoty_service.workers.worker import ALL_LISTEN, LISTENS, LONGEST, Worker

log = structlog.get_logger(__name__)

_STOPS = (signal.SIGINT, signal.SIGTERM)
_STEADY = 60.0  # seconds after which a worker's death has nothing to do with the deaths before it
_FIRST_DELAY = 0.5  # seconds before the second worker in a row is replaced, doubled for each one after that
_LONGEST_DELAY = 30.0  # seconds
_MAX_DEATHS = 6  # in a row, the last one before it listened
_AT_ONCE = 130  # exit status after a second signal


@dataclass(slots=True, kw_only=True)
class _Child:
    """A worker, as its supervisor sees it.

    Attributes:
        pid: Its process id.
        line: The supervisor's end of its line.
        start_time: By the monotonic clock, in seconds.
        listens: It said so.
        waits: It has not been told that the others do.
        why: What it said of its end.
    """

    pid: int
    line: socket.socket
    start_time: float
    listens: bool = False
    waits: bool = True
    why: str = ""


class Supervisor:
    """Keeps a number of workers running."""

    def __init__(self, *, count: int, work: Callable[[Worker], None], on_end: Callable[[int], None]) -> None:
        """Build it.

        Args:
            count: How many workers.
            work: What each does, until it is dismissed; runs in its process.
            on_end: Told each worker's process id after its end.
        """
        self._count = count
        self._work = work
        self._on_end = on_end
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        self._children: list[_Child] = []
        self._due: list[float] = []  # when workers are to be replaced, by the monotonic clock
        self._deaths = 0  # in a row
        self._signals = 0
        self._serves = False  # all workers listened at once, some time
        self._stops = False
        self._failure = ""

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, let the workers drain, and return; a second signal ends them at once.

        Raises:
            ChildProcessError: The workers cannot be started, or do not stay; or one did not stop in order.
            SystemExit: A second signal came.
        """
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        with self._listening_to_signals():
            for _ in range(self._count):
                self._start()
            while self._children or self._due:
                self._look()
        if self._failure:
            raise ChildProcessError(self._failure)

    @contextmanager
    def _listening_to_signals(self) -> Iterator[None]:
        def count(*_: object) -> None:
            self._signals += 1

        before = {number: signal.signal(number, count) for number in _STOPS}
        signal.set_wakeup_fd(self._wake.fileno())
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            for each in (self._selector, self._woken, self._wake):
                each.close()

    def _look(self) -> None:
        """Wait until something happens, and see to it."""
        wait = max(0.0, min(self._due) - time.monotonic()) if self._due else None
        for key, _ in self._selector.select(wait):
            if isinstance(key.data, _Child):
                self._hear(key.data)
            else:
                self._woken.recv(LONGEST)
        if self._signals > 1:
            self._kill()
        if self._signals and not self._stops:
            log.info("stopping", workers=len(self._children))
            self._stop()
        while self._due and min(self._due) <= time.monotonic():
            self._due.remove(min(self._due))
            self._start()

    def _start(self) -> None:
        """Fork a worker."""
        line, its_line = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # in the child, this process's handlers are the wrong ones
        pid = os.fork()
        if pid == 0:
            line.close()
            self._become_worker(its_line)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        its_line.close()
        line.setblocking(False)
        child = _Child(pid=pid, line=line, start_time=time.monotonic())
        self._children.append(child)
        self._selector.register(line, selectors.EVENT_READ, child)
        log.info("worker_started", pid=pid)

    def _become_worker(self, line: socket.socket) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _STOPS:  # until its own handlers are there; the line tells it, too
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
            self._selector.close()
            for end in (self._woken, self._wake, *(child.line for child in self._children)):
                end.close()  # held here, a sibling's line would outlive the supervisor
            status = Worker(line).run(self._work)
        finally:
            os._exit(status)

    def _hear(self, child: _Child) -> None:
        """Read what a worker says; its end is the end of its line."""
        try:
            said = child.line.recv(LONGEST)
        except ConnectionResetError:  # it has died with something unread
            said = b""
        if not said:
            self._bury(child)
            return
        child.listens = child.listens or said.startswith(LISTENS)
        child.why = said.removeprefix(LISTENS).decode(errors="replace")
        if self._serves or all(each.listens for each in self._children):
            self._let_meet()

    def _let_meet(self) -> None:
        """Tell those who wait for it that all listen; a worker that comes later waits for nobody."""
        if not self._serves:
            log.info("all_workers_serve", workers=len(self._children))
        self._serves = True
        for child in self._children:
            if child.listens and child.waits:
                child.waits = False
                with suppress(OSError):  # it has died: its line says so next
                    child.line.send(ALL_LISTEN)

    def _bury(self, child: _Child) -> None:
        """Take note of a worker's end, and of what follows from it."""
        self._selector.unregister(child.line)
        child.line.close()
        self._children.remove(child)
        status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        self._on_end(child.pid)
        if self._stops:
            if status != 0:
                self._fail(child.why or f"Worker {child.pid} did not stop in order: {_told(status)}.")
            return
        log.error("worker_ended", pid=child.pid, how=_told(status), why=child.why)
        if not self._serves:
            self._fail(child.why or f"A worker ended at its start: {_told(status)}.")
        else:
            self._replace(child, status)

    def _replace(self, child: _Child, status: int) -> None:
        """Have a worker replaced, later if others died just before."""
        steady = child.listens and time.monotonic() - child.start_time > _STEADY
        self._deaths = 1 if steady else self._deaths + 1
        if self._deaths >= _MAX_DEATHS and not child.listens:
            self._fail(f"Workers end at their start again and again, the last one: {child.why or _told(status)}")
            return
        delay = 0.0 if self._deaths == 1 else min(_FIRST_DELAY * 2 ** (self._deaths - 2), _LONGEST_DELAY)
        self._due.append(time.monotonic() + delay)

    def _fail(self, failure: str) -> None:
        self._failure = self._failure or failure
        self._stop()

    def _stop(self) -> None:
        """Have all workers drain."""
        self._stops = True
        self._due.clear()
        for child in self._children:
            with suppress(OSError):
                child.line.shutdown(socket.SHUT_WR)

    def _kill(self) -> NoReturn:
        for child in self._children:
            os.kill(child.pid, signal.SIGKILL)
        for child in self._children:
            os.waitpid(child.pid, 0)
        raise SystemExit(_AT_ONCE)


def _told(status: int) -> str:
    return f"status {status}" if status >= 0 else f"signal {-status}"
