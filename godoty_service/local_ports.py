"""The ports of `godoty dev`: the same ones at each start, and free ones beside another checkout."""

import socket
from collections.abc import Iterator
from pathlib import Path

_LOOPBACK = "127.0.0.1"
_TRIES = 20  # between a look at a port and its use, another process may take it


class LocalPorts:
    """Ports by name, kept in a file as NAME=PORT lines."""

    def __init__(self, path: Path) -> None:
        """Read what is kept.

        Args:
            path: The file; it need not exist.
        """
        self._path = path
        self._kept = _read(path)

    def candidates(self, name: str, *, preferred: int) -> Iterator[int]:
        """Yield the ports to try: the kept one, then the preferred one if it is free, then others that are free."""
        kept = self._kept.get(name)
        if kept is not None:
            yield kept
        if preferred != kept and is_free(preferred):
            yield preferred
        for _ in range(_TRIES):
            yield _free_port()

    def keep(self, name: str, port: int) -> None:
        """Keep the port that is used."""
        if self._kept.get(name) != port:
            self._kept[name] = port
            self._path.write_text("".join(f"{each}={number}\n" for each, number in self._kept.items()))


def is_free(port: int) -> bool:
    """Return whether a port of 127.0.0.1 can be listened on now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _read(path: Path) -> dict[str, int]:
    """Read the file; a line that names no port is passed over."""
    lines = path.read_text().splitlines() if path.exists() else []
    named = (line.partition("=") for line in lines)
    return {name: int(port) for name, _, port in named if port.isdecimal() and 0 < int(port) < 2**16}
