"""A port that workers share is reserved for them, from before they listen until they have ended."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest

from godoty_service.cluster.port_reservation import reserve_port

SETTING = "GODOTY_LISTEN"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test opens."""
    with ExitStack() as opened:
        yield opened


def listening(stack: ExitStack, address: str, *, shared: bool) -> socket.socket:
    """Listen as a server does, with SO_REUSEPORT or without."""
    host, _, port = address.rpartition(":")
    end = stack.enter_context(socket.socket())
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
    end.bind((host, int(port)))
    end.listen()
    end.settimeout(5)
    return end


def test_only_sharing_servers_can_listen(stack: ExitStack) -> None:
    """A server that does not share is refused before and after they listen, and so is a second supervisor."""
    address = stack.enter_context(reserve_port("127.0.0.1:0", setting=SETTING))
    for _ in range(2):
        with pytest.raises(OSError, match="in use"):
            listening(stack, address, shared=False)
        with pytest.raises(ValueError, match=f"{SETTING}={address}: the address cannot be listened on"):
            stack.enter_context(reserve_port(address, setting=SETTING))
        listening(stack, address, shared=True)


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "sharing"])
def test_port_in_use_cannot_be_reserved(stack: ExitStack, *, shared: bool) -> None:
    """The port of a server that shares, as gRPC's do by default, cannot be reserved either."""
    other = listening(stack, "127.0.0.1:0", shared=shared)

    with pytest.raises(ValueError, match=SETTING):
        stack.enter_context(reserve_port(f"127.0.0.1:{other.getsockname()[1]}", setting=SETTING))


def test_connections_are_refused_before_a_worker_listens(stack: ExitStack) -> None:
    """A client is refused at once instead of waiting in a queue."""
    host, _, port = stack.enter_context(reserve_port("127.0.0.1:0", setting=SETTING)).rpartition(":")

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


def test_port_can_be_reserved_again_after_connections(stack: ExitStack) -> None:
    """A server can be restarted at once, although the kernel still has its closed connections."""
    with reserve_port("127.0.0.1:0", setting=SETTING) as address, ExitStack() as while_reserved:
        server = listening(while_reserved, address, shared=True)
        client = stack.enter_context(socket.create_connection(server.getsockname()))
        accepted, _ = server.accept()
        accepted.close()  # the server's side closes first, so its address lingers
        client.recv(1)

    assert stack.enter_context(reserve_port(address, setting=SETTING)) == address


@pytest.mark.parametrize("listen", ["localhost:0", "0.0.0.0:0"])
async def test_grpc_servers_share_it(stack: ExitStack, listen: str) -> None:
    """Servers with so_reuseport can listen on it in each notation of the address, others cannot."""
    address = stack.enter_context(reserve_port(listen, setting=SETTING))
    servers = [grpc.aio.server(options=[("grpc.so_reuseport", share)]) for share in (1, 1, 0)]

    assert [server.add_insecure_port(address) for server in servers[:2]] == [int(address.rpartition(":")[2])] * 2
    with pytest.raises(RuntimeError):
        servers[2].add_insecure_port(address)
    for server in servers:
        await server.stop(None)


@pytest.mark.parametrize("listen", ["unix:/tmp/godoty", ":50051", "host:", "no.such.host.invalid:1", "192.0.2.1:1"])
def test_foreign_address_is_an_error(stack: ExitStack, listen: str) -> None:
    """The error names the setting and its value."""
    with pytest.raises(ValueError, match=f"{SETTING}={listen}"):
        stack.enter_context(reserve_port(listen, setting=SETTING))
