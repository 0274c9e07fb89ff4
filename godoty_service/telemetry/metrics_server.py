"""Serves the metrics page to Prometheus, of one process or of several that share their counts.

Requests are served in threads, bounded in number and in time. Prometheus' client decides when it is imported whether
counts are shared through files, so this module does not import it before `serve_metrics`.
"""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import ThreadingMixIn
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_CONNECTIONS = 16  # concurrent ones; Prometheus needs one


@contextmanager
def shared_counts() -> Iterator[Path]:
    """Share the counts of this process and its children through a new directory, which is deleted in the end.

    Call it before anything imports `prometheus_client`.
    """
    with TemporaryDirectory(prefix="godoty-metrics-", ignore_cleanup_errors=True) as directory:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory  # the client has no other setting for it
        yield Path(directory)


def process_ended(directory: Path, pid: int) -> None:
    """Delete the gauges of a process that has ended; its counts stay."""
    from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415 - see the module's docstring

    mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call] # has no types


class MetricsServer:
    """A running metrics page; `port` is its actual port, also if it was opened on port 0."""

    def __init__(self, *, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port = server.server_port

    async def close(self) -> None:
        """Stop serving and free the port."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Log no scrape."""


class _Server(ThreadingMixIn, WSGIServer):
    """The page of one process.

    Attributes:
        seconds: The longest duration of a connection.
    """

    daemon_threads = True
    block_on_close = False
    seconds = 5.0

    def server_activate(self) -> None:
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        super().server_activate()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, or close it if there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, and close it after its time even if its client stays active."""
        timer = threading.Timer(self.seconds, _shut_down, [request])
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do not log a client that disconnects or is too slow."""


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Shared(_Server):
    """The page of several processes that share its port; each of them serves the counts of all."""

    allow_reuse_port = True


class _SharedV6(_Shared):
    address_family = socket.AF_INET6


def _shut_down(connection: socket.socket) -> None:
    with suppress(OSError):  # it has closed meanwhile
        connection.shutdown(socket.SHUT_RDWR)


def serve_metrics(
    *, listen: str, registry: "CollectorRegistry", shared: bool = False, timeout: float = 5.0
) -> MetricsServer:
    """Serve a registry.

    Args:
        listen: "host:port"; an IPv6 host stands in brackets, port 0 takes any.
        registry: The metrics.
        shared: Whether other processes serve the same page on the same port.
        timeout: The longest duration of a connection, in seconds.

    Raises:
        ValueError: If `listen` names no host or port.
        OSError: If the port is taken.
    """
    from prometheus_client import make_wsgi_app  # noqa: PLC0415 - see the module's docstring

    host, _, number = listen.rpartition(":")
    if not host or not number.isdecimal():
        raise ValueError(f"metrics listen address is not host:port: {listen!r}")
    host, port = host.strip("[]"), int(number)
    kinds = (_Shared, _SharedV6) if shared else (_Server, _ServerV6)
    server = make_server(host, port, make_wsgi_app(registry), kinds[":" in host], _Silent)
    server.seconds = timeout
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    return MetricsServer(server=server, thread=thread)
