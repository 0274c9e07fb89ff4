"""Which addresses may be connected to."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from typing import Any

import httpcore2
import pytest

from godoty_service.agents.outbound.addresses import AddressRefused, AddressRules, CheckedNetwork
from godoty_service.agents.outbound.lookups import Lookups

PUBLIC = ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34", "64:ff9b::5db8:d822")
REFUSED = (
    *("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "0.0.0.0"),  # noqa: S104
    *("192.0.0.192", "168.63.129.16", "224.0.0.1", "255.255.255.255", "198.18.0.1"),
    *("::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::"),
    "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo of 127.0.0.1
)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_permitted_if_encrypted(address: str) -> None:
    """Also those that are written as IPv6 addresses; not without encryption."""
    rules = AddressRules()

    assert rules.permits(ipaddress.ip_address(address), encrypted=True)
    assert not rules.permits(ipaddress.ip_address(address), encrypted=False)


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    """Loopback, private, link-local, metadata, multicast and reserved ones, in all ways to write them."""
    assert not AddressRules().permits(ipaddress.ip_address(address), encrypted=True)


def test_networks_of_the_operator_are_permitted() -> None:
    """Also without encryption, and as IPv6 addresses; others remain refused."""
    rules = AddressRules([ipaddress.ip_network("127.0.0.0/8")])

    assert rules.permits(ipaddress.ip_address("127.0.0.1"), encrypted=False)
    assert rules.permits(ipaddress.ip_address("::ffff:127.0.0.1"), encrypted=True)
    assert not rules.permits(ipaddress.ip_address("10.0.0.1"), encrypted=True)
    assert not rules.permits(ipaddress.ip_address("93.184.216.34"), encrypted=False)


@pytest.fixture
async def listener() -> AsyncIterator[int]:
    """The port of a listener on 127.0.0.1."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


class Recording(httpcore2.AsyncNetworkBackend):
    """Records which addresses are connected to."""

    def __init__(self) -> None:
        self.hosts: list[str] = []

    async def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        """Record the address."""
        self.hosts.append(host)
        raise httpcore2.ConnectError


async def connect(rules: AddressRules, answers: list[str], counted: "Counted") -> list[str]:
    """Connect to a name that resolves to these addresses; return those that were connected to."""
    network = CheckedNetwork(rules, encrypted=True, lookups=Lookups())
    recording = Recording()
    network._network = recording  # type: ignore[assignment] # nothing is connected to
    network._resolve = counted.of(answers)  # type: ignore[method-assign] # no name is looked up
    with pytest.raises(httpcore2.ConnectError):
        await network.connect_tcp("server.example", 443, timeout=1)
    return recording.hosts


class Counted:
    """Counts look-ups."""

    def __init__(self) -> None:
        self.count = 0

    def of(self, answers: list[str]) -> Any:
        """Return a look-up that answers with these addresses."""

        async def resolve(_: str, __: int) -> list[Any]:
            self.count += 1
            return [ipaddress.ip_address(each) for each in answers]

        return resolve


async def test_name_is_resolved_once_and_its_permitted_addresses_are_connected_to() -> None:
    """Not the name, which may resolve to another address a moment later; refused addresses are skipped."""
    counted = Counted()

    hosts = await connect(AddressRules(), ["127.0.0.1", "93.184.216.34", "10.0.0.1", "93.184.216.35"], counted)

    assert hosts == ["93.184.216.34", "93.184.216.35"]
    assert counted.count == 1


async def test_name_of_a_refused_address_is_not_connected_to(listener: int) -> None:
    """`localhost` is 127.0.0.1, and so are other ways to write it."""
    network = CheckedNetwork(AddressRules(), encrypted=True, lookups=Lookups())

    for host in ("localhost", "127.1", "2130706433", "0x7f.1"):
        with pytest.raises(AddressRefused):
            await network.connect_tcp(host, listener, timeout=5)


async def test_name_in_a_network_of_the_operator_is_connected_to(listener: int) -> None:
    """By the address that was checked."""
    network = CheckedNetwork(AddressRules([ipaddress.ip_network("127.0.0.0/8")]), encrypted=False, lookups=Lookups())

    stream = await network.connect_tcp("127.0.0.1", listener, timeout=5)
    await stream.aclose()


async def test_sockets_of_the_host_are_refused() -> None:
    """No server is reached by a path."""
    network = CheckedNetwork(AddressRules(), encrypted=False, lookups=Lookups())

    with pytest.raises(AddressRefused):
        await network.connect_unix_socket("/run/docker.sock")
