"""The access token of an OAuth client: fetched when it is first needed, and again before it expires."""

import asyncio
import base64
import time
from urllib.parse import quote, urlencode

import httpcore2
from pydantic import BaseModel, Field, ValidationError

from godoty_service.agents.mcp.errors import McpUnavailable
from godoty_service.agents.mcp.http_pool import HttpPool, header, raw_headers, read_bounded
from godoty_service.agents.mcp.server import OAuthClient

_MAX_BYTES = 64 * 1024
_TIMEOUT = 10.0  # seconds
_AFTER_FAILURE = 2.0  # seconds until the next try
_MARGIN = 30.0  # seconds before its end at which a token is fetched again
_LIFETIME = 300.0  # seconds, if the answer states none
_OK = 200


class _TokenAnswer(BaseModel):
    """The answer of a token endpoint (RFC 6749, section 5.1)."""

    access_token: str = Field(min_length=1, max_length=16 * 1024, pattern=r"^[!-~]+$")
    token_type: str = Field(max_length=64)
    expires_in: float | None = Field(None, ge=0, le=10**9)


class AccessToken:
    """A token in memory."""

    def __init__(self, client: OAuthClient, secret: str, pool: HttpPool) -> None:
        """Create it without a token.

        Args:
            client: The OAuth client.
            secret: Its secret.
            pool: Sends the requests, under the same rules as all others.
        """
        self._client = client
        self._secret = secret
        self._pool = pool
        self._token = ""
        self._expiry = 0.0
        self._failure: McpUnavailable | None = None
        self._retry_at = 0.0
        self._fetching = asyncio.Lock()

    @property
    def current(self) -> str:
        """The token that was fetched last; empty: none was."""
        return self._token

    async def get(self) -> str:
        """Return a valid token.

        Raises:
            McpUnavailable: The token endpoint does not issue one.
        """
        if time.monotonic() >= self._expiry:
            async with self._fetching:
                if time.monotonic() >= self._expiry:
                    await self._fetch_unless_it_failed()
        return self._token

    def refuse(self, token: str) -> None:
        """Forget a token that the server refused."""
        if token == self._token:
            self._expiry = 0.0

    async def _fetch_unless_it_failed(self) -> None:
        """Fetch a token, unless that failed a moment ago: a connection is tried several ways."""
        if self._failure is not None and time.monotonic() < self._retry_at:
            raise McpUnavailable(str(self._failure))
        try:
            await self._fetch()
        except McpUnavailable as failure:
            self._failure, self._retry_at = failure, time.monotonic() + _AFTER_FAILURE
            raise

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                answer = await self._request()
        except TimeoutError:
            raise McpUnavailable("The token endpoint did not answer in time.") from None
        lifetime = _LIFETIME if answer.expires_in is None else answer.expires_in
        self._token = answer.access_token
        self._expiry = time.monotonic() + max(lifetime - _MARGIN, lifetime / 2)

    async def _request(self) -> _TokenAnswer:
        form = {"grant_type": "client_credentials", **({"scope": self._client.scope} if self._client.scope else {})}
        content = urlencode(form).encode()
        url = httpcore2.URL(self._client.token_url)
        response = await self._pool.send(
            "POST", url, headers=self._headers(url, content), content=content, read_timeout=_TIMEOUT
        )
        encoding = header(response, "content-encoding")
        body = await read_bounded(response, max_bytes=_MAX_BYTES)
        if response.status != _OK or encoding not in ("", "identity"):
            raise McpUnavailable(f"The token endpoint refused the client's credentials: HTTP {response.status}.")
        try:
            answer = _TokenAnswer.model_validate_json(body)
        except ValidationError:
            raise McpUnavailable("The token endpoint's answer is not a token.") from None
        if answer.token_type.lower() != "bearer":
            raise McpUnavailable("The token endpoint issues tokens of another type than Bearer.")
        return answer

    def _headers(self, url: httpcore2.URL, content: bytes) -> list[tuple[bytes, bytes]]:
        pair = f"{quote(self._client.client_id, safe='')}:{quote(self._secret, safe='')}"
        return [
            (b"Host", host_header(url)),
            *raw_headers(
                {
                    "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
                    "Content-Type": "application/x-www-form-urlencoded",
                    "Content-Length": len(content),
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                }
            ),
        ]


def host_header(url: httpcore2.URL) -> bytes:
    """Return the value of the header `Host` for a URL."""
    host = b"[%b]" % url.host if b":" in url.host else url.host
    return host if url.port is None else b"%b:%d" % (host, url.port)
