"""The HTTP page that Prometheus reads, from a thread of its own."""

import asyncio
import socket
import threading
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server
from prometheus_client.exposition import ThreadingWSGIServer


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


class _Shared(ThreadingWSGIServer):
    """A page that is served by several processes: whichever is asked tells what all have counted."""

    allow_reuse_port = True


class _SharedV6(_Shared):
    address_family = socket.AF_INET6


def serve_metrics(*, listen: str, registry: CollectorRegistry, shared: bool = False) -> MetricsServer:
    """Serve a registry.

    Args:
        listen: "host:port"; an IPv6 host stands in brackets, port 0 takes any.
        registry: What is served.
        shared: Other processes serve the same page on the same port.

    Raises:
        ValueError: If `listen` names no host or port.
        OSError: If the port is taken.
    """
    host, _, number = listen.rpartition(":")
    if not host or not number.isdecimal():
        raise ValueError(f"metrics listen address is not host:port: {listen!r}")
    host, port = host.strip("[]"), int(number)
    if not shared:
        server, thread = start_http_server(port, host, registry)
        return MetricsServer(server=server, thread=thread)
    kind = _SharedV6 if ":" in host else _Shared
    server = make_server(host, port, make_wsgi_app(registry), kind, _Silent)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    return MetricsServer(server=server, thread=thread)
