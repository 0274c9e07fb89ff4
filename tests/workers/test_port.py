"""A port that several processes share: theirs alone, from before they listen until they have ended."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest

from godoty_service.workers.port import held

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


def test_only_sharers_get_it(stack: ExitStack) -> None:
    """Before and after they listen, a server that does not share is refused, and so is a second supervisor."""
    address = stack.enter_context(held("127.0.0.1:0", setting=SETTING))
    for _ in range(2):
        with pytest.raises(OSError, match="in use"):
            listening(stack, address, shared=False)
        with pytest.raises(ValueError, match=f"{SETTING}={address}: the address cannot be listened on"):
            stack.enter_context(held(address, setting=SETTING))
        listening(stack, address, shared=True)


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "sharing"])
def test_where_somebody_listens_it_cannot_be_had(stack: ExitStack, *, shared: bool) -> None:
    """Also not from a server that would share, as gRPC's do by default."""
    other = listening(stack, "127.0.0.1:0", shared=shared)

    with pytest.raises(ValueError, match=SETTING):
        stack.enter_context(held(f"127.0.0.1:{other.getsockname()[1]}", setting=SETTING))


def test_nobody_is_let_in_before_a_worker_listens(stack: ExitStack) -> None:
    """A client is refused, and not kept waiting for nobody."""
    host, _, port = stack.enter_context(held("127.0.0.1:0", setting=SETTING)).rpartition(":")

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


def test_it_is_free_again_though_connections_have_just_ended(stack: ExitStack) -> None:
    """A server that is started again at once does not wait for the kernel to forget its clients."""
    with held("127.0.0.1:0", setting=SETTING) as address, ExitStack() as while_held:
        server = listening(while_held, address, shared=True)
        client = stack.enter_context(socket.create_connection(server.getsockname()))
        accepted, _ = server.accept()
        accepted.close()  # the server's side closes first, so its address lingers
        client.recv(1)

    assert stack.enter_context(held(address, setting=SETTING)) == address


@pytest.mark.parametrize("listen", ["localhost:0", "0.0.0.0:0"])
async def test_grpc_shares_it(stack: ExitStack, listen: str) -> None:
    """Servers with so_reuseport get it under each way to say an address, those without do not."""
    address = stack.enter_context(held(listen, setting=SETTING))
    servers = [grpc.aio.server(options=[("grpc.so_reuseport", share)]) for share in (1, 1, 0)]

    assert [server.add_insecure_port(address) for server in servers[:2]] == [int(address.rpartition(":")[2])] * 2
    with pytest.raises(RuntimeError):
        servers[2].add_insecure_port(address)
    for server in servers:
        await server.stop(None)


@pytest.mark.parametrize("listen", ["unix:/tmp/godoty", ":50051", "host:", "no.such.host.invalid:1", "192.0.2.1:1"])
def test_what_is_no_address_of_this_machine_is_told(stack: ExitStack, listen: str) -> None:
    """The error names the setting and what it says."""
    with pytest.raises(ValueError, match=f"{SETTING}={listen}"):
        stack.enter_context(held(listen, setting=SETTING))
