"""Holds a port for processes that share it, so that nobody else can."""

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def held(listen: str, *, setting: str) -> Iterator[str]:
    """Hold an address for as long as the block runs: only sockets of this user with SO_REUSEPORT can be bound to it.

    Nothing answers on it until one of them listens.

    Args:
        listen: host:port; port 0 takes any.
        setting: The setting that says it, for the error.

    Yields:
        host:port, with the port's number.

    Raises:
        ValueError: It cannot be had: somebody listens there, or it is no host:port of this machine.
    """
    if sys.platform != "linux":
        raise ValueError("GODOTY_WORKERS: several workers on one port need Linux.")
    host, _, number = listen.rpartition(":")
    if not host or not number.isdecimal():
        raise ValueError(f"{setting}={listen}: several workers need a host and a port.")
    with ExitStack() as stack:
        try:
            port = _hold(stack, host.strip("[]"), int(number))
        except OSError as error:
            raise ValueError(f"{setting}={listen}: the address cannot be listened on: {error.strerror}.") from error
        yield f"{host}:{port}"


def _hold(stack: ExitStack, host: str, port: int) -> int:
    """Hold a port on each of a host's addresses; tells which.

    Raises:
        OSError: It is taken, or no address is this machine's.
    """
    absent: list[OSError] = []
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, address in found:
        end = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        try:
            port = port or _free_port(family, str(address[0]))
            _occupy(end, str(address[0]), port)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            absent.append(error)  # a name may have addresses beside those that are set up here
    if len(absent) == len(found):
        raise absent[0]
    return port


def _free_port(family: int, host: str) -> int:
    """Find a port that is free: only one that is asked for by number is kept by a socket that does not listen."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _occupy(end: socket.socket, host: str, port: int) -> None:
    """Bind a socket as if it were the only one, then let our workers in beside it.

    Linux refuses to listen where anybody else does, unless both said SO_REUSEPORT before, and keeps a port that was
    asked for by number until its socket is closed, whether it listens or not.

    Raises:
        OSError: Somebody has the address.
    """
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else connections that have just ended are in the way
    end.bind((host, port))
    end.listen(1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # a second one that tries the same is refused
    end.shutdown(socket.SHUT_RD)  # listen no more: connections are the workers'
