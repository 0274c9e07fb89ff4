"""Look-ups of host names: those of one owner hold up no other's, and nothing else of the process."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.agents.outbound.files import FileFetcher
from godoty_service.agents.outbound.lookups import _OF_ONE_OWNER, Lookups
from godoty_service.agents.outbound.pool import Network, RequestRefused
from tests.support.service import soon

_MUTE = "mute.example"
_INSIDE = "inside.example"  # has an address that is not public


class NameServer:
    """Answers for all names but one, for which it does not until it is released.

    Attributes:
        asked: The names that it was asked for.
        released: Set when it answers for that name, too.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()

    def look_up(self, host: str, port: int, **_: Any) -> list[Any]:
        """Answer as `socket.getaddrinfo` does."""
        self.asked.append(host)
        if host == _MUTE:
            self.released.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        if host == _INSIDE:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    """The name server of this process."""
    made = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", made.look_up)
    yield made
    made.released.set()


async def test_mute_name_server_of_one_owner_holds_up_no_other(name_server: NameServer) -> None:
    """Neither another's look-up, nor what asyncio runs in threads; also once the waits are cancelled."""
    lookups = Lookups()
    waiting = [asyncio.create_task(lookups.addresses("acme", _MUTE, 443)) for _ in range(100)]
    await soon(lambda: len(name_server.asked) == _OF_ONE_OWNER)
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)
    waiting = [asyncio.create_task(lookups.addresses("acme", _MUTE, 443)) for _ in range(100)]

    async with asyncio.timeout(50):
        (found,) = await lookups.addresses("other", "server.example", 443)
        await asyncio.to_thread(int)

    assert str(found) == "93.184.216.34"
    assert name_server.asked == [_MUTE] * _OF_ONE_OWNER + ["server.example"]
    for each in waiting:
        each.cancel()


async def test_mute_name_server_of_one_tenant_holds_up_no_other_file(name_server: NameServer) -> None:
    """Files at URLs have look-ups and connections of their tenant's own."""
    network = Network(rules=AddressRules())
    fetcher = FileFetcher(network, seconds=60)
    hung = [asyncio.create_task(_fetch(fetcher, f"https://{_MUTE}/", "acme")) for _ in range(20)]
    await soon(lambda: len(name_server.asked) == _OF_ONE_OWNER)

    async with asyncio.timeout(50):
        with pytest.raises(RequestRefused):
            await _fetch(fetcher, f"https://{_INSIDE}/", "other")

    assert name_server.asked == [_MUTE] * _OF_ONE_OWNER + [_INSIDE]
    for each in hung:
        each.cancel()
    await asyncio.wait(hung)


async def _fetch(fetcher: FileFetcher, url: str, tenant_id: str) -> bytes:
    return b"".join([each async for each in fetcher.fetch(url, tenant_id=tenant_id)])


async def test_owner_goes_on_when_its_look_ups_have_ended(name_server: NameServer) -> None:
    """A look-up that failed does not count any more."""
    lookups = Lookups()
    waiting = [asyncio.create_task(lookups.addresses("acme", _MUTE, 443)) for _ in range(_OF_ONE_OWNER + 1)]
    await soon(lambda: len(name_server.asked) == _OF_ONE_OWNER)

    name_server.released.set()

    assert all(isinstance(each, OSError) for each in await asyncio.gather(*waiting, return_exceptions=True))
    assert await lookups.addresses("acme", "server.example", 443)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%eth0"])
async def test_address_needs_no_look_up(name_server: NameServer, host: str) -> None:
    """It is its own."""
    (found,) = await Lookups().addresses("acme", host, 443)

    assert str(found) == host.partition("%")[0]
    assert not name_server.asked
