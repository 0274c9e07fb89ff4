"""The metrics page: slow or numerous clients do not block others."""

import asyncio
import socket
import threading
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress

import pytest

from godoty_service.telemetry.metrics import Metrics
from godoty_service.telemetry.metrics_server import MetricsServer, serve_metrics
from tests.support.service import eventually, soon

TIMEOUT = 0.5  # seconds
CLOSED = 30.0  # seconds; a connection without a timeout stays open


@pytest.fixture(params=[False, True], ids=["alone", "shared"])
async def page(request: pytest.FixtureRequest) -> AsyncIterator[MetricsServer]:
    """A page that closes connections after half a second."""
    registry = Metrics(methods=[]).registry
    server = serve_metrics(listen="127.0.0.1:0", registry=registry, shared=request.param, timeout=TIMEOUT)
    yield server
    await server.close()


def fetch(page: MetricsServer) -> str:
    """Read the page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{page.port}/metrics", timeout=180) as answer:
        text: str = answer.read().decode()
    return text


def fetched(page: MetricsServer) -> bool:
    """Return whether the page is available: a request that is slow itself is cut off as well."""
    try:
        return "godoty_running_turns" in fetch(page)
    except OSError:
        return False


def wait_closed(end: socket.socket, *, drip: bytes = b"") -> None:
    """Wait at most `CLOSED` seconds until the server closes a connection on which bytes are sent periodically."""
    begun = time.monotonic()
    end.settimeout(0.1)
    while time.monotonic() - begun < CLOSED:
        with suppress(TimeoutError):
            if drip:
                with suppress(OSError):
                    end.send(drip)
            try:
                if not end.recv(1024):
                    break
            except ConnectionError:
                break


@pytest.mark.parametrize(
    ("begin", "drip"),
    [(b"", b""), (b"GET /metrics HT", b""), (b"GET /metrics HTTP/1.1\r\nX: ", b"x"), (b"POST / HTTP/1.1\r\n", b"")],
    ids=["nothing", "half a line", "byte by byte", "no end"],
)
async def test_slow_client_is_cut_off(page: MetricsServer, begin: bytes, drip: bytes) -> None:
    """A connection is closed after its time even if its client keeps sending, and its thread ends."""
    threads = threading.active_count()
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", page.port)) as end:
        end.sendall(begin)
        await asyncio.to_thread(wait_closed, end, drip=drip)

    assert TIMEOUT * 0.5 < time.monotonic() - begun < CLOSED
    await soon(lambda: threading.active_count() <= threads + 1)  # asyncio's own


async def test_idle_connections_do_not_block_a_scrape(page: MetricsServer) -> None:
    """Eighty idle connections use a bounded number of threads, and the page is available again at once."""
    threads = threading.active_count()
    with ExitStack() as stack:
        for _ in range(80):
            stack.enter_context(socket.create_connection(("127.0.0.1", page.port)))
        assert threading.active_count() < threads + 40
        await eventually(lambda: asyncio.to_thread(fetched, page))
