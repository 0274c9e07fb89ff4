"""Starts worker processes, replaces those that die, and stops them all.

It forks them after all imports and before anything is started: they share the memory of the imported modules, and start
quickly. So this process must start no thread and must not use gRPC.
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

from godoty_service.cluster.worker import ALL_LISTEN, LISTENS, MAX_MESSAGE, Worker

log = structlog.get_logger(__name__)

_STOPS = (signal.SIGINT, signal.SIGTERM)
_STEADY = 60.0  # seconds that a worker must run for its death to count as the first in a row
_FIRST_DELAY = 0.5  # seconds before the second death in a row is made good, doubled for each further one
_MAX_DELAY = 30.0  # seconds
_MAX_DEATHS = 6  # in a row, the last one before the worker listened
_KILLED_STATUS = 130  # exit status after a second signal


@dataclass(slots=True, kw_only=True)
class _Child:
    """The supervisor's state of a worker.

    Attributes:
        pid: Its process id.
        control: The supervisor's end of its control socket.
        start_time: By the monotonic clock, in seconds.
        listens: It has reported that it listens.
        waits: It has not been notified yet that all workers listen.
        why: The reason that it reported for its end.
    """

    pid: int
    control: socket.socket
    start_time: float
    listens: bool = False
    waits: bool = True
    why: str = ""


class Supervisor:
    """Keeps a number of workers running."""

    def __init__(self, *, count: int, work: Callable[[Worker], None], on_end: Callable[[int], None]) -> None:
        """Create a supervisor; it starts no worker yet.

        Args:
            count: How many workers.
            work: Runs in the process of each worker until it is stopped.
            on_end: Called with a worker's process id after its end.
        """
        self._count = count
        self._work = work
        self._on_end = on_end
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        self._children: list[_Child] = []
        self._due: list[float] = []  # when replacements are due, by the monotonic clock
        self._deaths = 0  # in a row
        self._signals = 0
        self._serves = False  # at some time all workers have listened
        self._stops = False
        self._failure = ""

    def run(self) -> None:
        """Run the workers until SIGINT or SIGTERM, then let them drain; a second signal kills them.

        Raises:
            ChildProcessError: The workers cannot be started or keep failing, or one of them failed while it stopped.
            SystemExit: A second signal came.
        """
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        with self._counting_signals():
            for _ in range(self._count):
                self._start()
            while self._children or self._due:
                self._process_events()
        if self._failure:
            raise ChildProcessError(self._failure)

    @contextmanager
    def _counting_signals(self) -> Iterator[None]:
        def on_signal(*_: object) -> None:
            self._signals += 1

        before = {number: signal.signal(number, on_signal) for number in _STOPS}
        signal.set_wakeup_fd(self._wake.fileno())
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            for each in (self._selector, self._woken, self._wake):
                each.close()

    def _process_events(self) -> None:
        """Wait for the next message, signal or due replacement, and process it."""
        wait = max(0.0, min(self._due) - time.monotonic()) if self._due else None
        for key, _ in self._selector.select(wait):
            if isinstance(key.data, _Child):
                self._receive(key.data)
            else:
                self._woken.recv(MAX_MESSAGE)
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
        control, worker_control = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # in the child, this process's handlers must not run
        pid = os.fork()
        if pid == 0:
            control.close()
            self._become_worker(worker_control)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        worker_control.close()
        control.setblocking(False)
        child = _Child(pid=pid, control=control, start_time=time.monotonic())
        self._children.append(child)
        self._selector.register(control, selectors.EVENT_READ, child)
        log.info("worker_started", pid=pid)

    def _become_worker(self, control: socket.socket) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _STOPS:  # until its own handlers are set; the control socket is closed as well
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
            self._selector.close()
            for end in (self._woken, self._wake, *(child.control for child in self._children)):
                end.close()  # open here, a sibling's control socket would outlive the supervisor
            status = Worker(control).run(self._work)
        finally:
            os._exit(status)

    def _receive(self, child: _Child) -> None:
        """Read a message of a worker; when its control socket closes, it has ended."""
        try:
            message = child.control.recv(MAX_MESSAGE)
        except ConnectionResetError:  # it has died with unread data
            message = b""
        if not message:
            self._reap(child)
            return
        child.listens = child.listens or message.startswith(LISTENS)
        child.why = message.removeprefix(LISTENS).decode(errors="replace")
        if self._serves or all(each.listens for each in self._children):
            self._release_peers()

    def _release_peers(self) -> None:
        """Notify waiting workers that all listen; a worker that starts later does not wait for the others."""
        if not self._serves:
            log.info("all_workers_serve", workers=len(self._children))
        self._serves = True
        for child in self._children:
            if child.listens and child.waits:
                child.waits = False
                with suppress(OSError):  # it has died: its control socket is closed next
                    child.control.send(ALL_LISTEN)

    def _reap(self, child: _Child) -> None:
        """Remove a worker that has ended, and replace it unless the workers are stopping or never all listened."""
        self._selector.unregister(child.control)
        child.control.close()
        self._children.remove(child)
        status = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        self._on_end(child.pid)
        if self._stops:
            if status != 0:
                self._fail(child.why or f"Worker {child.pid} failed while it stopped: {_exit_text(status)}.")
            return
        log.error("worker_ended", pid=child.pid, how=_exit_text(status), why=child.why)
        if not self._serves:
            self._fail(child.why or f"A worker ended at its start: {_exit_text(status)}.")
        else:
            self._replace(child, status)

    def _replace(self, child: _Child, status: int) -> None:
        """Schedule the replacement of a worker, later if others died just before."""
        steady = child.listens and time.monotonic() - child.start_time > _STEADY
        self._deaths = 1 if steady else self._deaths + 1
        if self._deaths >= _MAX_DEATHS and not child.listens:
            self._fail(f"Workers keep failing at their start; the last one: {child.why or _exit_text(status)}")
            return
        delay = 0.0 if self._deaths == 1 else min(_FIRST_DELAY * 2 ** (self._deaths - 2), _MAX_DELAY)
        self._due.append(time.monotonic() + delay)

    def _fail(self, failure: str) -> None:
        self._failure = self._failure or failure
        self._stop()

    def _stop(self) -> None:
        """Ask all workers to drain."""
        self._stops = True
        self._due.clear()
        for child in self._children:
            with suppress(OSError):
                child.control.shutdown(socket.SHUT_WR)

    def _kill(self) -> NoReturn:
        for child in self._children:
            os.kill(child.pid, signal.SIGKILL)
        for child in self._children:
            os.waitpid(child.pid, 0)
        raise SystemExit(_KILLED_STATUS)


def _exit_text(status: int) -> str:
    return f"status {status}" if status >= 0 else f"signal {-status}"
