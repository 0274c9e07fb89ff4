"""Which hosts a tool may request: those that the operator names."""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

_NAME = r"(?=[^:]{1,253}(?::|$))(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_ENTRY = re.compile(rf"(\*|(?:\*\.)?{_NAME}|\[[0-9a-f:.]{{2,45}}\])(?::([0-9]{{1,5}}))?")
_DEFAULT_PORTS = {"https": 443, "http": 80}
_LARGEST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class HostPattern:
    """Hosts that may be requested.

    Attributes:
        host: A host, `*.` and a domain for its subdomains, or `*` for all hosts; in lower case.
        port: The port; None: the one of the URL's scheme.
    """

    host: str
    port: int | None = None

    @classmethod
    def of(cls, text: str) -> Self:
        """Read a pattern, such as "example.com", "*.example.com", "127.0.0.1:8080" or "[::1]:8080".

        Raises:
            ValueError: It is none.
        """
        found = _ENTRY.fullmatch(text.strip().lower())
        if found is None or int(found[2] or 1) not in range(1, _LARGEST_PORT + 1):
            raise ValueError(f"no host: {text[:300]!r}")
        host = found[1]
        if host.startswith("["):
            host = str(ipaddress.IPv6Address(host[1:-1]))
        return cls(host, int(found[2]) if found[2] else None)

    def matches(self, scheme: str, host: str, port: int) -> bool:
        """Return whether the host of a URL is one of these."""
        if port != (self.port or _DEFAULT_PORTS.get(scheme)):
            return False
        host = _normal(host)
        if self.host.startswith("*."):
            return host.endswith(self.host[1:])
        return self.host in ("*", host)


def read_hosts(text: str) -> tuple[HostPattern, ...]:
    """Read patterns, separated by commas.

    Raises:
        ValueError: One of them is none.
    """
    return tuple(HostPattern.of(each) for each in text.split(","))


def permits(patterns: Sequence[HostPattern], scheme: str, host: str, port: int) -> bool:
    """Return whether one of some patterns matches the host of a URL."""
    return any(each.matches(scheme, host, port) for each in patterns)


def _normal(host: str) -> str:
    """Return a host as patterns have it."""
    host = host.lower().removesuffix(".")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host
