"""Determines the source of a call: the address of the client, or the one that a trusted proxy forwards."""

import ipaddress
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from godoty_service.setting_types import Network

Metadata = Iterable[tuple[str, str | bytes]]

_FORWARDED = "x-forwarded-for"
_LONGEST = 1024  # characters of forwarded addresses that are read: the newest, at the end
_UNKNOWN = "unknown"  # gRPC has no address of a call that has ended already
_HOST_BITS = 64  # of an IPv6 address: one host has as many addresses in such a network as it likes


class Sources:
    """Names the source of each call: an IPv4 address, an IPv6 network of 64 bits, or the kind of a local socket."""

    def __init__(self, trusted_proxies: Sequence[Network] = ()) -> None:
        """Build it.

        Args:
            trusted_proxies: Networks of the proxies whose `x-forwarded-for` counts; from other peers it is ignored.
        """
        self._proxies = tuple(trusted_proxies)

    def of(self, peer: str, metadata: Metadata) -> str:
        """Return the source of a call.

        Args:
            peer: The address at the other end of the connection, as gRPC writes it: "ipv4:10.0.0.1:5000".
            metadata: What came with the call.
        """
        family, address = _read_peer(peer)
        if address is None:
            return family or _UNKNOWN
        if self._proxies and self._trusts(address):
            address = self._forwarded(metadata) or address
        return _name(address)

    def _forwarded(self, metadata: Metadata) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """Return the last forwarded address that is no trusted proxy's; None: there is none.

        Each proxy appends the address of its own client, so what stands before an address that is not trusted may be
        forged by it.
        """
        texts = [value for key, value in metadata if key == _FORWARDED and isinstance(value, str)]
        for text in reversed(",".join(texts)[-_LONGEST:].split(",")):
            address = _read_address(text.strip())
            if address is None:
                return None
            if not self._trusts(address):
                return address
        return None

    def _trusts(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        return any(address.version == each.version and address in each for each in self._proxies)


def _read_peer(peer: str) -> tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address | None]:
    family, _, rest = unquote(peer).partition(":")
    return family, _read_address(rest) if family in ("ipv4", "ipv6") else None


def _read_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address, with or without a port: 10.0.0.1, 10.0.0.1:80, 2001:db8::1, [2001:db8::1%eth0]:80."""
    host = text
    if text.startswith("["):
        host = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        host = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _name(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.ip_network((address, _HOST_BITS), strict=False))
