"""A port that does not answer the handshake, like a host behind a firewall that drops packets."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress


@contextmanager
def unanswered_port() -> Iterator[int]:
    """Yield a port of 127.0.0.1 whose accept queue is full: a connection to it never completes."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(listener.getsockname())
        yield int(listener.getsockname()[1])
