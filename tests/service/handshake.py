"""A port that does not answer the handshake, as a host behind a silent firewall."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress


@contextmanager
def unanswered_port() -> Iterator[int]:
    """A port of 127.0.0.1 whose queue of handshakes is full: connecting to it takes for ever."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            knocking = stack.enter_context(socket.socket())
            knocking.setblocking(False)
            with suppress(BlockingIOError):
                knocking.connect(listener.getsockname())
        yield int(listener.getsockname()[1])
