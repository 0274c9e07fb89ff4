"""URLs of requests: their origins, the header that names their host, and where redirects lead."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpcore2

from godoty_service.agents.outbound.pool import RequestFailed, RequestRefused

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_HOST: Final = re.compile(r"[a-z0-9_.-]{1,253}|[0-9a-f:.]{2,45}")


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlParts:
    """A URL of HTTP in parts.

    Attributes:
        scheme: "http" or "https".
        host: The host in lower case; an IPv6 address without brackets.
        port: The port.
        target: The path and the query.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def is_default_port(self) -> bool:
        """Whether the port is the one of the scheme."""
        return self.port == _DEFAULT_PORTS[self.scheme]


def split_url(url: str) -> UrlParts:
    """Return the parts of a URL.

    Raises:
        RequestRefused: It is not one of HTTP, or has a user or a password.
    """
    try:
        parts = urlsplit(url)
        scheme, host, port = origin(url)
    except ValueError:
        raise RequestRefused("The URL is not valid.") from None
    if scheme not in _DEFAULT_PORTS or not _HOST.fullmatch(host) or parts.port == 0:
        raise RequestRefused("The URL must be an absolute one of https (or http), with a host.")
    if "@" in parts.netloc:
        raise RequestRefused("The URL must have no user or password.")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return UrlParts(scheme=scheme, host=host, port=port, target=target)


def origin(url: str) -> tuple[str, str, int]:
    """Return a URL's scheme, host and port.

    Raises:
        ValueError: The port is not a number.
    """
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def host_header(url: httpcore2.URL) -> bytes:
    """Return the value of the header `Host` for a URL."""
    host = b"[%b]" % url.host if b":" in url.host else url.host
    return host if url.port is None else b"%b:%d" % (host, url.port)


def redirect_target(url: str, location: str) -> str:
    """Return where a redirect leads.

    Args:
        url: The URL that was requested.
        location: The header `Location` of its answer.

    Raises:
        RequestFailed: Not to a URL of HTTP.
    """
    try:
        target = urljoin(url, location)
        scheme, host, _ = origin(target)
    except ValueError:
        scheme = host = ""
    if scheme not in ("http", "https") or not host or not target.isascii():
        raise RequestFailed("The server redirects to what is no URL of HTTP.")
    return target.partition("#")[0]
