"""The HTTP client to the provider: one for the service, its connections shared by all turns."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import aiohttp
import httpx2 as httpx
from openai import APIConnectionError, APITimeoutError, AsyncOpenAI
from pydantic_core import to_json

from godoty_service.openrouter.bounded_body import ENCODINGS, UnreadableBody, read_bounded
from godoty_service.openrouter.pace import Pace
from godoty_service.openrouter.transport import AiohttpTransport, limits_of

_OF_THE_BODY = {"content-encoding", "content-length", "transfer-encoding"}  # headers of the body as it was sent


class OpenRouterClient(AsyncOpenAI):
    """OpenAI's client, with a way to ask for a completion at a third of its cost."""

    async def complete(self, body: Mapping[str, Any]) -> httpx.Response:
        """Ask for a completion, once; returns as soon as the response's headers are here.

        `chat.completions.create` copies the options four times, walks through the whole history, which changes nothing,
        and types the answer, which is read as it comes.

        Raises:
            openai.APIConnectionError: No response came.
            openai.APIStatusError: The response is an error; its body is read as far as `ErrorBodyLimits` permit.
        """
        http = cast("_Http", self._client)
        try:
            response = await http.transport.ask(
                "POST", self._completions, headers=self._encoded_headers, content=to_json(body), limits=self._limits
            )
        except httpx.TimeoutException as error:
            raise APITimeoutError(request=self._request(body)) from error
        except Exception as error:
            raise APIConnectionError(request=self._request(body)) from error
        if not response.is_success:
            read = await _read_error(response, http.error_limits, self._request(body))
            raise self._make_status_error_from_response(read)
        return response

    async def fetch(self, path: str) -> httpx.Response:
        """Send a GET request below the base URL, once; return the response, of any status, when its headers are here.

        Raises:
            httpx.TransportError: No response came.
        """
        http = cast("_Http", self._client)
        url = f"{str(self.base_url).rstrip('/')}{path}"
        return await http.transport.ask("GET", url, headers=self._encoded_headers, content=b"", limits=self._limits)

    def _request(self, body: Mapping[str, Any]) -> httpx.Request:
        """What an error names."""
        return httpx.Request("POST", self._completions, headers=self._headers, content=to_json(body))

    @cached_property
    def _completions(self) -> str:
        return f"{str(self.base_url).rstrip('/')}/chat/completions"

    @cached_property
    def _headers(self) -> dict[str, str]:
        named = {**self.default_headers, **self.auth_headers}
        return {name: value for name, value in named.items() if isinstance(value, str)}

    @cached_property
    def _encoded_headers(self) -> dict[str, str]:
        return {**self._headers, "accept-encoding": ENCODINGS}

    @cached_property
    def _limits(self) -> aiohttp.ClientTimeout:
        return limits_of(self._client.timeout.as_dict())


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBodyLimits:
    """Bounds of the body of an error answer; one beyond them is not read, and the error is known by its status.

    Attributes:
        size: Bytes, after decoding.
        seconds: Seconds to read it in.
    """

    size: int = 1024 * 1024
    seconds: float = 5.0


class _Http(httpx.AsyncClient):
    """httpx's client, and the way past it."""

    def __init__(self, transport: AiohttpTransport, *, error_limits: ErrorBodyLimits, **options: Any) -> None:
        super().__init__(transport=transport, **options)
        self.transport = transport
        self.error_limits = error_limits


async def _read_error(response: httpx.Response, limits: ErrorBodyLimits, request: httpx.Request) -> httpx.Response:
    """Return an error answer with its decoded body, which is empty where it is too large, too slow or broken."""
    try:
        async with asyncio.timeout(limits.seconds):
            body = await read_bounded(response, most=limits.size)
    except (UnreadableBody, TimeoutError, httpx.HTTPError):
        body = b""
    headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in _OF_THE_BODY]
    return httpx.Response(response.status_code, headers=headers, content=body, request=request)


def open_client(
    *,
    api_key: str,
    base_url: str,
    site_url: str,
    app_name: str,
    connect_timeout: float,
    read_timeout: float,
    pace: Pace,
    error_limits: ErrorBodyLimits | None = None,
) -> OpenRouterClient:
    """Build the client. It never retries: each request must stand in the ledger first.

    Args:
        api_key: The account's key.
        base_url: OpenRouter's `/api/v1`, or a gateway that speaks as it does.
        site_url: Attribution, `HTTP-Referer`.
        app_name: Attribution, `X-Title`.
        connect_timeout: Seconds to connect.
        read_timeout: Seconds that a stream may be silent.
        pace: The beat of its streams.
        error_limits: Bounds of the body of an error answer.
    """
    timeout = httpx.Timeout(read_timeout, connect=connect_timeout)
    return OpenRouterClient(
        api_key=api_key,
        base_url=base_url,
        max_retries=0,
        timeout=timeout,
        default_headers={"HTTP-Referer": site_url, "X-Title": app_name, "X-OpenRouter-Title": app_name},
        http_client=_Http(
            AiohttpTransport(pace),
            error_limits=error_limits or ErrorBodyLimits(),
            base_url=base_url,
            timeout=timeout,
        ),
    )
