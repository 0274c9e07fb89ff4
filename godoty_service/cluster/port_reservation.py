"""Reserves a port for processes that share it, so that no other program can listen on it."""

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def reserve_port(listen: str, *, setting: str) -> Iterator[str]:
    """Reserve an address while the block runs: only sockets of this user with SO_REUSEPORT can be bound to it.

    Connections to it are refused until one of them listens.

    Args:
        listen: host:port; port 0 takes any free port.
        setting: The setting that names the address, for the error.

    Yields:
        host:port, with the port's number.

    Raises:
        ValueError: The address is in use, or is not a host:port of this machine.
    """
    if sys.platform != "linux":
        raise ValueError("GODOTY_WORKERS: several workers on one port need Linux.")
    host, _, number = listen.rpartition(":")
    if not host or not number.isdecimal():
        raise ValueError(f"{setting}={listen}: several workers need a host and a port.")
    with ExitStack() as stack:
        try:
            port = _reserve(stack, host.strip("[]"), int(number))
        except OSError as error:
            raise ValueError(f"{setting}={listen}: the address cannot be listened on: {error.strerror}.") from error
        yield f"{host}:{port}"


def _reserve(stack: ExitStack, host: str, port: int) -> int:
    """Reserve a port on each of a host's addresses; return its number.

    Raises:
        OSError: It is in use, or no address is this machine's.
    """
    absent: list[OSError] = []
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, address in found:
        end = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        try:
            port = port or _free_port(family, str(address[0]))
            _bind_exclusively(end, str(address[0]), port)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            absent.append(error)  # a name may also have addresses that this machine does not have
    if len(absent) == len(found):
        raise absent[0]
    return port


def _free_port(family: int, host: str) -> int:
    """Return a free port. Only a port that is bound by its number stays reserved by a socket that does not listen."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _bind_exclusively(end: socket.socket, host: str, port: int) -> None:
    """Bind a socket exclusively, then allow our workers to share its port.

    Linux refuses to listen on a port that another socket listens on, unless both have set SO_REUSEPORT before. It
    reserves a port that was bound by its number until the socket is closed, whether it listens or not.

    Raises:
        OSError: The address is in use.
    """
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else connections that have just ended block the port
    end.bind((host, port))
    end.listen(1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # a second reservation of the port is refused
    end.shutdown(socket.SHUT_RD)  # stop listening: the workers accept the connections
