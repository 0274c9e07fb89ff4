"""The link to one version of a server: its connections, credentials and protocol, shared by all its clients."""

import asyncio
import json
import time
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mcp_types import DiscoverResult, Tool
from pydantic_core import to_json

from godoty_service.agents.mcp.errors import McpUnavailable
from godoty_service.agents.mcp.oauth import AccessToken
from godoty_service.agents.mcp.server import Credentials, McpServer
from godoty_service.agents.outbound.pool import HttpPool, Network
from godoty_service.agents.outbound.urls import origin
from godoty_service.errors import GodotyError

CLOSE_SECONDS = 5.0  # in which a client must be closed
_LEAST_SECRET = 6  # characters: shorter ones occur in texts by chance
_LARGE_ANSWERS = 8  # of one server at once
_MASK = "[secret]"
_IDLE = 60.0  # seconds after its last use at which a link is closed

Unseal = Callable[[McpServer], Credentials]


class Progress(typing.Protocol):
    """Receives the reports of progress of a call."""

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        """Receive a report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How clients open a connection, learned from the first one.

    Attributes:
        mode: The `mcp` package's name of it.
        discovered: What the server said of itself, for modes that need it.
    """

    mode: str
    discovered: DiscoverResult | None = None


class ServerLink:
    """The link to a version of a server.

    Attributes:
        server: The server.
        origin: The scheme, host and port of its URL: only these get its credentials.
        pool: The HTTP connections.
        protocol: How clients open a connection; None: not known yet.
        lists_first: Whether a client must list the tools before it calls one: some are called with HTTP headers that
            the list defines.
        users: The number of clients that are open.
        used_at: When the last client was closed, by the monotonic clock.
        tasks: The tasks of its clients.
        large_answers: Acquired for each large answer, so that few at once are in memory.
    """

    def __init__(self, server: McpServer, credentials: Credentials, network: Network) -> None:
        self.server = server
        self.origin = origin(server.url)
        self.pool = HttpPool(network, owner=server.tenant_id)
        self.protocol: Protocol | None = None
        self.lists_first = False
        self.users = 0
        self.used_at = time.monotonic()
        self.tasks: set[asyncio.Task[None]] = set()
        self.large_answers = asyncio.Semaphore(_LARGE_ANSWERS)
        values = [value for _, value in credentials.headers]
        parts = [*values, *(value.rpartition(" ")[2] for value in values), credentials.client_secret]
        parts += [json.dumps(each)[1:-1] for each in parts]  # as a text of JSON has it
        self._secrets = tuple(dict.fromkeys(each for each in parts if len(each) >= _LEAST_SECRET))
        self._headers = [(name.encode(), value.encode()) for name, value in credentials.headers]
        self._token = (
            AccessToken(server.oauth, credentials.client_secret, self.pool) if server.oauth is not None else None
        )

    async def authorization(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that identify the tenant to its server.

        Raises:
            McpUnavailable: There is no access token.
        """
        if self._token is None:
            return self._headers
        return [*self._headers, (b"Authorization", b"Bearer " + (await self._token.get()).encode())]

    def refuse(self, authorization: list[tuple[bytes, bytes]]) -> bool:
        """Forget the access token that the server refused; return whether there was one."""
        if self._token is None:
            return False
        self._token.refuse(authorization[-1][1].decode().removeprefix("Bearer "))
        return True

    async def close(self, grace: float = CLOSE_SECONDS) -> None:
        """Close the connections: clients have `grace` seconds to take leave of the server."""
        tasks = list(self.tasks)
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=grace)
        finally:
            for task in tasks:
                task.cancel()
        await self.pool.aclose()

    def mask(self, text: str) -> str:
        """Return a text of the server without the credentials that it was given: it may repeat them."""
        token = (self._token.current,) if self._token is not None and self._token.current else ()
        for each in (*self._secrets, *token):
            text = text.replace(each, _MASK)
        return text

    def masked_tools(self, tools: Sequence[Tool]) -> list[Tool]:
        """Return the tools of the server without these credentials; one whose name has any is left out."""
        named = [each for each in tools if self.mask(each.name) == each.name]
        for each in named:
            each.description = self.mask(each.description or "") or None
            each.title = self.mask(each.title or "") or None
            each.input_schema = self._masked_schema(each.input_schema)
        return named

    def _masked_schema(self, schema: dict[str, typing.Any]) -> dict[str, typing.Any]:
        try:
            text = to_json(schema).decode()
        except ValueError:  # nested too deeply: it is neither used nor shown
            return schema
        masked = self.mask(text)
        return schema if masked == text else typing.cast("dict[str, typing.Any]", json.loads(masked))

    def enter(self) -> None:
        """Count a client."""
        self.users += 1

    def leave(self) -> None:
        """Discount a client that was closed."""
        self.users -= 1
        self.used_at = time.monotonic()


class ServerLinks:
    """The links by server. One that has no client for a minute is closed."""

    def __init__(self, network: Network, *, unseal: Unseal) -> None:
        """Create it without a link.

        Args:
            network: What all connections have in common.
            unseal: Returns the credentials of a server.
        """
        self._network = network
        self._unseal = unseal
        self._links: dict[tuple[str, str, str], ServerLink] = {}

    def __len__(self) -> int:
        return len(self._links)

    def get(self, server: McpServer) -> ServerLink:
        """Return the link to a server, which has at least this much time before it may be closed.

        Raises:
            McpUnavailable: Its credentials cannot be decrypted.
        """
        link = self._links.get(server.key)
        if link is None:
            try:
                credentials = self._unseal(server)
            except GodotyError as error:
                raise McpUnavailable("The server's credentials cannot be decrypted.") from error
            link = self._links[server.key] = ServerLink(server, credentials, self._network)
        link.used_at = time.monotonic()
        return link

    def new(self, server: McpServer) -> ServerLink:
        """Return a link of its own for a check. The caller closes it.

        Raises:
            McpUnavailable: Its credentials cannot be decrypted.
        """
        try:
            return ServerLink(server, self._unseal(server), self._network)
        except GodotyError as error:
            raise McpUnavailable("The server's credentials cannot be decrypted.") from error

    def lists_first(self, server: McpServer, *, needed: bool) -> None:
        """Set whether clients of a server must list its tools before they call one."""
        if (link := self._links.get(server.key)) is not None:
            link.lists_first = needed

    async def close_idle(self) -> None:
        """Close the links that have had no client for a while."""
        limit = time.monotonic() - _IDLE
        for key, link in list(self._links.items()):
            if not link.users and link.used_at < limit:
                del self._links[key]
                await link.pool.aclose()

    async def aclose(self, grace: float = 2.0) -> None:
        """Close all links: clients have `grace` seconds to take leave of their servers."""
        links = list(self._links.values())
        self._links.clear()
        await asyncio.gather(*(link.close(grace) for link in links), return_exceptions=True)
