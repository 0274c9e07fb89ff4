"""URLs of requests: their origins, the header that names their host, and where redirects lead."""

from typing import Final
from urllib.parse import urljoin, urlsplit

import httpcore2

from godoty_service.agents.outbound.pool import RequestFailed

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


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
