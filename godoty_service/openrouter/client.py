"""Sends requests to the provider as an `AsyncOpenAI` is configured, over one connection pool for all turns."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI
from pydantic_core import to_json

from godoty_service.attachments.embedding import EmbeddedBody, Embedding
from godoty_service.errors import GodotyError
from godoty_service.openrouter.read_pacer import ReadPacer
from godoty_service.openrouter.transport import (
    ENCODINGS,
    AiohttpTransport,
    UnreadableBody,
    client_timeout,
    read_bounded,
)

_METADATA = {"x-openrouter-metadata": "enabled"}  # asks for the answer's `openrouter_metadata`, which has fees
_BODY_HEADERS = {"content-encoding", "content-length", "transfer-encoding"}  # of the body before decoding


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBodyLimits:
    """Bounds of an error answer's body; beyond them it is not read, and the error is known by its status alone.

    Attributes:
        size: Bytes, after decoding.
        seconds: Seconds to read it in.
    """

    size: int = 1024 * 1024
    seconds: float = 5.0


class RequestBody:
    """The body of a request for a completion.

    Attributes:
        content: Its bytes.
        may_have_fees: It may cost more than its tokens.
    """

    def __init__(self, fields: Mapping[str, Any], embedding: Embedding | None = None) -> None:
        """Encode it.

        Args:
            fields: The request.
            embedding: The attachments for which it has placeholders; None: none.
        """
        encoded = to_json(fields)
        self.may_have_fees = _may_have_fees(fields)
        self._embedded = embedding.body(encoded) if embedding is not None else None
        self.content: bytes | EmbeddedBody = self._embedded or encoded

    @property
    def failure(self) -> GodotyError | None:
        """Why it was not sent completely: an attachment could not be read. None: another reason, or it was."""
        return self._embedded.failure if self._embedded is not None else None


class OpenRouterClient:
    """Sends requests with the base URL, key, headers and timeouts of an `AsyncOpenAI`.

    `chat.completions.create` copies the options four times, walks the whole history without changing it, and types the
    answer, which is decoded as it arrives: sending without it costs a third.

    Attributes:
        openai: The configuration of every request; its own requests use the same connection pool.
    """

    def __init__(self, openai: AsyncOpenAI, transport: AiohttpTransport, *, error_limits: ErrorBodyLimits) -> None:
        """Build it.

        Args:
            openai: Its HTTP client sends by `transport`.
            transport: The connection pool.
            error_limits: Bounds of the body of an error answer.
        """
        self.openai = openai
        self._transport = transport
        self._error_limits = error_limits
        self._base_url = str(openai.base_url).rstrip("/")
        named = {**openai.default_headers, **openai.auth_headers, "accept-encoding": ENCODINGS}
        self._headers = {name: value for name, value in named.items() if isinstance(value, str)}
        self._limits = client_timeout(httpx.Timeout(openai.timeout).as_dict())

    @property
    def api_key(self) -> str:
        """The key that requests are sent with."""
        return self.openai.api_key

    def with_key(self, api_key: str) -> "OpenRouterClient":
        """Return a client with another key on the same connection pool; it need not be closed."""
        return OpenRouterClient(
            self.openai.with_options(api_key=api_key), self._transport, error_limits=self._error_limits
        )

    async def complete(
        self, body: "Mapping[str, Any] | RequestBody", *, on_sending: Callable[[], None] | None = None
    ) -> httpx.Response:
        """Request a completion, without retries; return the response when its headers have arrived.

        Args:
            body: The request.
            on_sending: Called before the first byte is sent; if it raises, nothing is sent.

        Raises:
            openai.APIConnectionError: No response came.
            openai.APIStatusError: The response is an error; its body is read within `ErrorBodyLimits`.
        """
        url = f"{self._base_url}/chat/completions"
        request = body if isinstance(body, RequestBody) else RequestBody(body)
        headers = {**self._headers, **_METADATA} if request.may_have_fees else self._headers
        try:
            response = await self._transport.send(
                "POST", url, headers=headers, content=request.content, limits=self._limits, on_sending=on_sending
            )
        except httpx.TimeoutException as error:
            raise APITimeoutError(httpx.Request("POST", url)) from error
        except Exception as error:
            raise APIConnectionError(request=httpx.Request("POST", url)) from error
        if not response.is_success:
            read = await _read_error(response, self._error_limits, httpx.Request("POST", url))
            raise APIStatusError(f"HTTP status {read.status_code}", response=read, body=None)
        return response

    async def fetch(self, path: str) -> httpx.Response:
        """Send a GET request for a path below the base URL, without retries; return the response, of any status.

        Raises:
            httpx.TransportError: No response came.
        """
        url = f"{self._base_url}{path}"
        return await self._transport.send("GET", url, headers=self._headers, content=b"", limits=self._limits)

    async def close(self) -> None:
        """Close the connection pool, also for the clients of other keys."""
        await self.openai.close()


def _may_have_fees(body: Mapping[str, Any]) -> bool:
    """Return whether a request may cost more than its tokens: for server tools, plugins, or a model that searches."""
    models = (body.get("model"), *body.get("models", ()))
    return (
        "plugins" in body
        or any(tool["type"] != "function" for tool in body.get("tools", ()))
        or any(isinstance(model, str) and model.endswith(":online") for model in models)
    )


async def _read_error(response: httpx.Response, limits: ErrorBodyLimits, request: httpx.Request) -> httpx.Response:
    """Return an error answer with its decoded body, which is empty if it is too large, too slow or broken."""
    try:
        async with asyncio.timeout(limits.seconds):
            body = await read_bounded(response, max_size=limits.size)
    except (UnreadableBody, TimeoutError, httpx.HTTPError):
        body = b""
    headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in _BODY_HEADERS]
    return httpx.Response(response.status_code, headers=headers, content=body, request=request)


def open_client(
    *,
    api_key: str,
    base_url: str,
    site_url: str,
    app_name: str,
    connect_timeout: float,
    read_timeout: float,
    read_pacer: ReadPacer,
    error_limits: ErrorBodyLimits | None = None,
) -> OpenRouterClient:
    """Build the client. It never retries: each request must be in the ledger first.

    Args:
        api_key: The account's key.
        base_url: OpenRouter's `/api/v1`, or a compatible gateway.
        site_url: Attribution, `HTTP-Referer`.
        app_name: Attribution, `X-Title`.
        connect_timeout: Seconds to connect.
        read_timeout: Seconds that a stream may be silent.
        read_pacer: Paces the reads of its streams.
        error_limits: Bounds of the body of an error answer.
    """
    transport = AiohttpTransport(read_pacer)
    openai = AsyncOpenAI(
        api_key=api_key,
        base_url=base_url,
        max_retries=0,
        timeout=httpx.Timeout(read_timeout, connect=connect_timeout),
        default_headers={"HTTP-Referer": site_url, "X-Title": app_name, "X-OpenRouter-Title": app_name},
        http_client=httpx.AsyncClient(transport=transport),
    )
    return OpenRouterClient(openai, transport, error_limits=error_limits or ErrorBodyLimits())
