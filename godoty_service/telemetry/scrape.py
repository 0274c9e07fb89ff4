"""The HTTP page that Prometheus reads, from a thread of its own."""

import asyncio
import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server


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


def serve_metrics(*, listen: str, registry: CollectorRegistry) -> MetricsServer:
    """Serve a registry.

    Args:
        listen: "host:port"; an IPv6 host stands in brackets, port 0 takes any.
        registry: What is served.

    Raises:
        ValueError: If `listen` names no host or port.
        OSError: If the port is taken.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"metrics listen address is not host:port: {listen!r}")
    server, thread = start_http_server(int(port), host.strip("[]"), registry)
    return MetricsServer(server=server, thread=thread)
