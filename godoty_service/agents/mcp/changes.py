"""Changes of tenants' MCP servers: each is recorded before it is made."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from godoty_service.agents.mcp.errors import McpServerChanged, McpServerNotFound, TooManyMcpServers
from godoty_service.agents.mcp.server import DEFAULT_TIMEOUT, Credentials, McpServer, OAuthClient
from godoty_service.agents.mcp.store import MAX_SERVERS, McpServers
from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.agents.outbound.urls import origin
from godoty_service.clock import Clock, utc_now
from godoty_service.errors import FieldViolation, GodotyError, InvalidRequest

_ATTEMPTS = 20  # of a change that others' changes overtake

Values = Mapping[str, Any]
Record = Callable[[Values | None, Values | None], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTerms:
    """What a tenant writes of a server.

    Attributes:
        name: Its name.
        url: The URL of its endpoint.
        headers: The secret headers by name; a value of None is the stored one.
        oauth: Its OAuth client; None: it has none.
        client_secret: The secret of that client; None: the stored one.
        allow: Names or patterns of its tools that agents may use; empty: all.
        deny: Names or patterns of tools that no agent may use.
        prefix: What the names of its tools begin with.
        timeout: The time that one call may take.
        output_bytes: The most bytes of a result; None: the service's limit alone.
    """

    name: str
    url: str
    headers: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    oauth: OAuthClient | None = None
    client_secret: str | None = field(default=None, repr=False)
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    prefix: str
    timeout: timedelta = DEFAULT_TIMEOUT
    output_bytes: int | None = None


class McpServerChanges:
    """Makes changes."""

    def __init__(self, servers: McpServers, *, clock: Clock = utc_now) -> None:
        """Create it.

        Args:
            servers: The servers.
            clock: Returns the current time.
        """
        self._servers = servers
        self._clock = clock

    async def apply(self, tenant_id: str, terms: ServerTerms, *, etag: str, record: Record) -> tuple[McpServer, bool]:
        """Create a server, or change the one of this name; the same terms as before change nothing, with any etag.

        It is in force here at once, on every server within 2 seconds.

        Args:
            tenant_id: The tenant.
            terms: The server, whose fields were checked.
            etag: The version that the change is based on; empty: any.
            record: Called with what is recorded of the server before and after, before each attempt to write.

        Returns:
            The server, and whether it was changed.

        Raises:
            InvalidRequest: A secret is left out that is not stored, or was stored for another address.
            McpServerChanged: It is not that version, or others change it again and again.
            TooManyMcpServers: The tenant may have no further server.
            ProviderKeysOff: The service has no encryption key.
        """
        for _ in range(_ATTEMPTS):
            old = await self._servers.read(tenant_id, terms.name)
            known = self._known(old)
            credentials = _credentials(terms, old, known)
            new = self._next(tenant_id, terms, old, credentials)
            if old is not None and _same(old, new) and known == credentials:
                return old, False
            _check_etag(terms.name, old, etag)
            if old is None and await self._servers.is_full(tenant_id):
                text = f"The tenant has {MAX_SERVERS} MCP servers: delete one first."
                raise TooManyMcpServers(text, metadata={"limit": str(MAX_SERVERS)})
            new = replace(new, sealed=self._servers.seal(tenant_id, terms.name, credentials))
            await record(None if old is None else recorded(old), recorded(new))
            written = await (self._servers.insert(new) if old is None else self._servers.update(old, new))
            if written:
                return new, True
        raise McpServerChanged.of(terms.name, "")

    async def delete(self, tenant_id: str, name: str, *, etag: str, record: Record) -> None:
        """Delete a server. Turns that run go on with it; later ones are without its tools.

        Raises:
            McpServerNotFound: There is no such server.
            McpServerChanged: It is not the version of the etag, or others change it again and again.
        """
        for _ in range(_ATTEMPTS):
            old = await self._servers.read(tenant_id, name)
            if old is None:
                raise McpServerNotFound.of(name)
            _check_etag(name, old, etag)
            await record(recorded(old), None)
            if await self._servers.delete(old):
                return
        raise McpServerChanged.of(name, "")

    def _known(self, server: McpServer | None) -> Credentials | None:
        """Return the stored credentials; None: there is no server, or they cannot be decrypted."""
        try:
            return None if server is None else self._servers.unseal(server)
        except GodotyError:
            return None

    def _next(self, tenant_id: str, terms: ServerTerms, old: McpServer | None, credentials: Credentials) -> McpServer:
        """Return the next revision of a server, without its credentials."""
        now = self._clock()
        return McpServer(
            tenant_id=tenant_id,
            name=terms.name,
            url=terms.url,
            header_names=tuple(name for name, _ in credentials.headers),
            oauth=terms.oauth,
            allow=terms.allow,
            deny=terms.deny,
            prefix=terms.prefix,
            timeout=terms.timeout,
            output_bytes=terms.output_bytes,
            revision=1 if old is None else old.revision + 1,
            create_time=now if old is None else old.create_time,
            update_time=now,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class McpComponents:
    """What manages the tenants' MCP servers.

    Attributes:
        servers: The servers.
        changes: Changes them.
        rules: Decides which addresses they may have.
    """

    servers: McpServers
    changes: McpServerChanges
    rules: AddressRules


def _same(old: McpServer, new: McpServer) -> bool:
    """Return whether two revisions differ in nothing but their times, numbers and credentials."""
    return old == replace(
        new, sealed=old.sealed, revision=old.revision, create_time=old.create_time, update_time=old.update_time
    )


def _credentials(terms: ServerTerms, old: McpServer | None, known: Credentials | None) -> Credentials:
    """Return the credentials of the terms, with stored ones in place of those that are left out.

    A stored secret is not sent to another address than the one that it was stored for: who may change a server must not
    be able to read its secrets.

    Raises:
        InvalidRequest: One is left out that is not stored, or was stored for another address.
    """
    violations: list[FieldViolation] = []
    kept = known is not None and old is not None and _same_host(old.url, terms.url)
    stored = {name.lower(): value for name, value in known.headers} if kept and known is not None else {}
    headers: list[tuple[str, str]] = []
    for index, (name, given) in enumerate(terms.headers.items()):
        value = stored.get(name.lower()) if given is None else given
        if value is None:
            violations.append(_left_out(f"server.headers[{index}].secret"))
        else:
            headers.append((name, value))
    secret = terms.client_secret
    if terms.oauth is not None and secret is None:
        had = old.oauth if old is not None else None
        same = had is not None and _same_host(had.token_url, terms.oauth.token_url)
        secret = known.client_secret if same and known is not None else ""
        if not secret:
            violations.append(_left_out("server.oauth.client_secret"))
    if violations:
        text = "; ".join(f"{each.field}: {each.description}" for each in violations)
        raise InvalidRequest(text, violations=violations)
    return Credentials(headers=tuple(headers), client_secret=secret or "" if terms.oauth is not None else "")


def _same_host(one: str, other: str) -> bool:
    return origin(one) == origin(other)


def _left_out(path: str) -> FieldViolation:
    return FieldViolation(field=path, description="must be set: no value is stored for this address")


def _check_etag(name: str, server: McpServer | None, etag: str) -> None:
    """Check that a server is the version of an etag; empty: any.

    Raises:
        McpServerChanged: It is another version, or does not exist.
    """
    known = server.etag if server is not None else ""
    if etag not in ("", known):
        raise McpServerChanged.of(name, known)


def recorded(server: McpServer) -> Values:
    """Return what the audit log records of a server: nothing secret."""
    return {
        "mcp_server": server.name,
        "url": server.url,
        "headers": list(server.header_names),
        "oauth_client_id": server.oauth.client_id if server.oauth is not None else None,
        "oauth_token_url": server.oauth.token_url if server.oauth is not None else None,
        "allow": list(server.allow),
        "deny": list(server.deny),
        "prefix": server.prefix,
        "timeout_seconds": server.timeout.total_seconds(),
        "output_bytes": server.output_bytes,
    }
