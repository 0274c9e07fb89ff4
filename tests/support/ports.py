"""Ports of servers that are down: no other process gets one meanwhile."""

import socket


def hold_port(port: int = 0) -> socket.socket:
    """Return a socket that has a port of 127.0.0.1, 0: any, and does not listen: connections to it are refused.

    A server that may reuse addresses can listen on the port all the same.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", port))
    return held
