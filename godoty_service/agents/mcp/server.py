"""A tenant's MCP server, as the tenant defined it, and its credentials."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

DEFAULT_TIMEOUT = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """An OAuth 2.0 client that gets its tokens with its own credentials (RFC 6749, section 4.4).

    Attributes:
        token_url: The token endpoint.
        client_id: The client's id.
        scope: The scopes to request, separated by spaces; empty: none are named.
    """

    token_url: str
    client_id: str
    scope: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The secrets of a server, which are stored sealed and never shown.

    Attributes:
        headers: Names and values of HTTP headers.
        client_secret: The secret of the OAuth client; empty: there is none.
    """

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    client_secret: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        """Return whether there is any secret."""
        return bool(self.headers or self.client_secret)

    def to_json(self) -> str:
        """Encode the secrets, to be sealed."""
        return json.dumps({"headers": self.headers, "client_secret": self.client_secret})

    @classmethod
    def from_json(cls, text: str) -> "Credentials":
        """Decode what `to_json` returned."""
        read = json.loads(text)
        headers = tuple((str(name), str(value)) for name, value in read["headers"])
        return cls(headers=headers, client_secret=read["client_secret"])


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """A server of a tenant.

    Attributes:
        tenant_id: The tenant.
        name: Its name, unique within the tenant.
        url: The URL of its Streamable HTTP endpoint.
        header_names: The names of its secret headers.
        oauth: Its OAuth client; None: it has none.
        sealed: Its credentials, sealed; None: it has none.
        allow: Names of its tools that agents may use, or patterns with `*`; empty: all.
        deny: Names or patterns of tools that no agent may use.
        prefix: What the names of its tools begin with, followed by an underscore.
        timeout: The time that one call may take.
        output_bytes: The most bytes of a result in UTF-8; None: the service's limit alone.
        revision: The number of changes since it was created, plus 1.
        create_time: When it was created.
        update_time: When it was last changed.
    """

    tenant_id: str
    name: str
    url: str
    header_names: tuple[str, ...] = ()
    oauth: OAuthClient | None = None
    sealed: bytes | None = field(default=None, repr=False)
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    prefix: str
    timeout: timedelta = DEFAULT_TIMEOUT
    output_bytes: int | None = None
    revision: int = 1
    create_time: datetime
    update_time: datetime

    @property
    def etag(self) -> str:
        """Identifies this version; a server that is deleted and created anew has another one."""
        parts = [self.tenant_id, self.name, self.create_time.isoformat(), self.revision]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    @property
    def key(self) -> tuple[str, str, str]:
        """Identifies this version among those of all tenants."""
        return self.tenant_id, self.name, self.etag

    def permits(self, tool: str) -> bool:
        """Return whether agents may use a tool, by the server's name of it."""
        return matches(self.allow, tool) and not any(fnmatchcase(tool, each) for each in self.deny)


def matches(patterns: tuple[str, ...], tool: str) -> bool:
    """Return whether one of some patterns matches a tool's name, or there are none."""
    return not patterns or any(fnmatchcase(tool, each) for each in patterns)


def origin(url: str) -> tuple[str, str, int]:
    """Return a URL's scheme, host and port.

    Raises:
        ValueError: The port is not a number.
    """
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)
