"""Worker side of the control socket; the worker exits when it closes."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

import structlog

from godoty_service.errors import GodotyError

log = structlog.get_logger(__name__)

LISTENS = b"+"  # sent once by a worker
ALL_LISTEN = b"!"  # sent once to it
MAX_MESSAGE = 4096  # bytes of one message


class StopRequested(Exception):
    """A worker is stopped before it has served."""


class Worker:
    """One of several processes that share a port.

    The supervisor closes its end of the control socket to stop the worker; the kernel closes it when the supervisor
    dies, even by SIGKILL.
    """

    def __init__(self, control: socket.socket) -> None:
        """Create the worker side.

        Args:
            control: Its end of a pair of sockets.
        """
        self._control = control
        control.setblocking(False)

    async def wait_for_peers(self) -> None:
        """Report that this worker listens, and wait until all workers do.

        Raises:
            StopRequested: It is stopped instead.
        """
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._control, LISTENS)
            notice = await loop.sock_recv(self._control, len(ALL_LISTEN))
        except OSError:  # the supervisor is gone
            notice = b""
        if not notice:
            raise StopRequested

    async def wait_for_stop(self) -> None:
        """Wait until this worker is stopped. Call it after `wait_for_peers`."""
        with suppress(OSError):
            while await asyncio.get_running_loop().sock_recv(self._control, 1):
                pass

    def run(self, work: "Callable[[Worker], None]") -> int:
        """Run the work, and report to the supervisor why it failed; return the exit status."""
        try:
            work(self)
        except StopRequested:
            return 0
        except (GodotyError, ValueError, OSError) as error:
            self._report(str(error))
            return 1
        except Exception:
            log.exception("worker_failed")
            return 1
        return 0

    def _report(self, text: str) -> None:
        self._control.setblocking(True)
        with suppress(OSError):
            self._control.sendall(text.encode()[:MAX_MESSAGE])
