"""The HTTP page that Prometheus reads, from threads of its own: bounded in number and in time."""

import asyncio
import socket
import threading
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

_CONNECTIONS = 16  # at the same time; Prometheus needs one


class MetricsServer:
    """A running page; `port` is the one it got when it was opened on port 0."""

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
    """A page of one process.

    Attributes:
        seconds: How long a connection may last.
    """

    daemon_threads = True
    block_on_close = False
    seconds = 5.0

    def server_activate(self) -> None:
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        super().server_activate()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, if there are not too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, and close it after its time even if its client sends or reads a byte now and then."""
        timer = threading.Timer(self.seconds, _break_off, [request])
        timer.daemon = True
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that goes away or is too slow."""


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Shared(_Server):
    """A page that is served by several processes: whichever is asked tells what all have counted."""

    allow_reuse_port = True


class _SharedV6(_Shared):
    address_family = socket.AF_INET6


def _break_off(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended meanwhile
        connection.shutdown(socket.SHUT_RDWR)


def serve_metrics(
    *, listen: str, registry: CollectorRegistry, shared: bool = False, timeout: float = 5.0
) -> MetricsServer:
    """Serve a registry.

    Args:
        listen: "host:port"; an IPv6 host stands in brackets, port 0 takes any.
        registry: What is served.
        shared: Other processes serve the same page on the same port.
        timeout: Seconds that a connection may last.

    Raises:
        ValueError: If `listen` names no host or port.
        OSError: If the port is taken.
    """
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
