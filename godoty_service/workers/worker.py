"""A worker process, as it sees itself: a line to its supervisor, as long as which it lives."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

import structlog

from godoty_service.errors import GodotyError

log = structlog.get_logger(__name__)

LISTENS = b"+"  # what a worker says once
ALL_LISTEN = b"!"  # what it is told once
LONGEST = 4096  # bytes that a worker says at once


class Dismissed(Exception):
    """A worker is to stop before it has served."""


class Worker:
    """One of several processes that share a port.

    The supervisor's end of the line is closed when the worker is to stop, and by the kernel when the supervisor has
    died, however that came.
    """

    def __init__(self, line: socket.socket) -> None:
        """Build it.

        Args:
            line: Its end of a pair of sockets.
        """
        self._line = line
        line.setblocking(False)

    async def meet(self) -> None:
        """Say that this worker listens, and wait until all of them do.

        Raises:
            Dismissed: It is to stop instead.
        """
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._line, LISTENS)
            met = await loop.sock_recv(self._line, len(ALL_LISTEN))
        except OSError:  # the supervisor is gone
            met = b""
        if not met:
            raise Dismissed

    async def dismissed(self) -> None:
        """Wait until this worker is to stop. Call it after `meet`."""
        with suppress(OSError):
            while await asyncio.get_running_loop().sock_recv(self._line, 1):
                pass

    def run(self, work: "Callable[[Worker], None]") -> int:
        """Do the work, and tell the supervisor why it could not be done; returns the exit status."""
        try:
            work(self)
        except Dismissed:
            return 0
        except (GodotyError, ValueError, OSError) as error:
            self._tell(str(error))
            return 1
        except Exception:
            log.exception("worker_fault")
            return 1
        return 0

    def _tell(self, text: str) -> None:
        self._line.setblocking(True)
        with suppress(OSError):
            self._line.sendall(text.encode()[:LONGEST])
