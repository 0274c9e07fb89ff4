"""Which network addresses requests may go to: public ones, and those that the operator allows.

A name is resolved once for a connection; its addresses are checked, and the connection is made to one of those. So a
name that resolves to another address a moment later reaches nothing else.
"""

import asyncio
import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

import httpcore2

from godoty_service.agents.outbound.lookups import Address, Lookups
from godoty_service.agents.outbound.streams import BoundedHead

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAX_ATTEMPTS = 4  # addresses to which a connection is tried
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
# Reserved, or a cloud's own, although Python takes them for public: 192.0.0.192 and 168.63.129.16 serve metadata.
_RESERVED: Final = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")))


class AddressRefused(httpcore2.ConnectError):
    """No address of the host may be connected to."""


class AddressRules:
    """Decides which addresses may be connected to."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        """Create the rules.

        Args:
            allowed: Networks that the operator allows although they are not public.
        """
        self._allowed = tuple(allowed)

    def permits(self, address: Address, *, encrypted: bool) -> bool:
        """Return whether an address may be connected to.

        Args:
            address: The address.
            encrypted: Whether the connection is; only the operator's own networks are reached without encryption.
        """
        plain = unmapped(address)
        if any(each in network for each in (address, plain) for network in self._allowed):
            return True
        return encrypted and is_public(plain)

    def permits_host(self, host: str, *, encrypted: bool) -> bool:
        """Return whether a host may be connected to as far as its name shows: one that is no address is permitted."""
        try:
            return self.permits(ipaddress.ip_address(host), encrypted=encrypted)
        except ValueError:
            return encrypted or bool(self._allowed)


PUBLIC: Final = AddressRules()  # what is permitted anywhere


def unmapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    embedded = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
    return embedded if embedded is not None else address


def is_public(address: Address) -> bool:
    """Return whether an address is one of the public internet, and no cloud's metadata service."""
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST:
        return False
    reserved = any(address in network for network in _RESERVED)
    return address.is_global and not address.is_multicast and not reserved


class CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to permitted addresses only."""

    def __init__(self, rules: AddressRules, *, encrypted: bool, lookups: Lookups, owner: str = "") -> None:
        """Create the backend of a connection pool.

        Args:
            rules: Decides which addresses are permitted.
            encrypted: Whether the pool's connections are encrypted.
            lookups: Resolves names.
            owner: Whose hosts they are; empty: all tenants'.
        """
        self._rules = rules
        self._encrypted = encrypted
        self._lookups = lookups
        self._owner = owner
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface's
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve a host, and connect to the first of its permitted addresses that answers.

        Raises:
            AddressRefused: None of its addresses is permitted.
            httpcore2.ConnectError: The host is unknown, or none of the addresses answers.
            httpcore2.ConnectTimeout: None answers in time.
        """
        try:
            async with asyncio.timeout(timeout):
                found = await self._resolve(host, port)
        except TimeoutError:
            raise httpcore2.ConnectTimeout("The host's name was not resolved in time.") from None
        permitted = [each for each in found if self._rules.permits(each, encrypted=self._encrypted)]
        if not permitted:
            raise AddressRefused("The host's address is not permitted.")
        failure: Exception = httpcore2.ConnectError("No address.")
        for address in permitted[:_MAX_ATTEMPTS]:
            try:
                connected = await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return BoundedHead(connected)
        raise failure

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002 - the interface's
        timeout: float | None = None,  # noqa: ARG002, ASYNC109 - the interface's
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,  # noqa: ARG002 - the interface's
    ) -> httpcore2.AsyncNetworkStream:
        """Refuse: no server is reached by a socket of this host.

        Raises:
            AddressRefused: Always.
        """
        raise AddressRefused("Unix sockets are not permitted.")

    async def sleep(self, seconds: float) -> None:
        """Wait between two attempts."""
        await asyncio.sleep(seconds)

    async def _resolve(self, host: str, port: int) -> list[Address]:
        """Return the addresses of a host.

        Raises:
            httpcore2.ConnectError: It is unknown.
        """
        try:
            return await self._lookups.addresses(self._owner, host, port)
        except (OSError, UnicodeError, ValueError) as error:
            raise httpcore2.ConnectError("The host is unknown.") from error
