"""The HTTP client to the provider: one for the service, its connections shared by all turns."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

import aiohttp
import httpx2 as httpx
from openai import APIConnectionError, APITimeoutError, AsyncOpenAI
from pydantic_core import to_json

from godoty_service.openrouter.bounded_body import ENCODINGS
from godoty_service.openrouter.pace import Pace
from godoty_service.openrouter.transport import AiohttpTransport, limits_of


class OpenRouterClient(AsyncOpenAI):
    """OpenAI's client, with a way to ask for a completion at a third of its cost."""

    async def complete(self, body: Mapping[str, Any]) -> httpx.Response:
        """Ask for a completion, once; returns as soon as the response's headers are here.

        `chat.completions.create` copies the options four times, walks through the whole history, which changes nothing,
        and types the answer, which is read as it comes.

        Raises:
            openai.APIConnectionError: No response came.
            openai.APIStatusError: The response is a refusal; it has been read.
        """
        http = cast("_Http", self._client)
        try:
            response = await http.transport.ask(
                "POST", self._completions, headers=self._headers, content=to_json(body), limits=self._limits
            )
        except httpx.TimeoutException as error:
            raise APITimeoutError(request=self._request(body)) from error
        except Exception as error:
            raise APIConnectionError(request=self._request(body)) from error
        if not response.is_success:
            response.request = self._request(body)
            try:
                await response.aread()
            finally:
                await response.aclose()
            raise self._make_status_error_from_response(response)
        return response

    async def fetch(self, path: str) -> httpx.Response:
        """Send a GET request below the base URL, once; return the response, of any status, when its headers are here.

        Raises:
            httpx.TransportError: No response came.
        """
        http = cast("_Http", self._client)
        url = f"{str(self.base_url).rstrip('/')}{path}"
        headers = {**self._headers, "accept-encoding": ENCODINGS}
        return await http.transport.ask("GET", url, headers=headers, content=b"", limits=self._limits)

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
    def _limits(self) -> aiohttp.ClientTimeout:
        return limits_of(self._client.timeout.as_dict())


class _Http(httpx.AsyncClient):
    """httpx's client, and the way past it."""

    def __init__(self, transport: AiohttpTransport, **options: Any) -> None:
        super().__init__(transport=transport, **options)
        self.transport = transport


def open_client(
    *,
    api_key: str,
    base_url: str,
    site_url: str,
    app_name: str,
    connect_timeout: float,
    read_timeout: float,
    pace: Pace,
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
    """
    timeout = httpx.Timeout(read_timeout, connect=connect_timeout)
    return OpenRouterClient(
        api_key=api_key,
        base_url=base_url,
        max_retries=0,
        timeout=timeout,
        default_headers={"HTTP-Referer": site_url, "X-Title": app_name, "X-OpenRouter-Title": app_name},
        http_client=_Http(AiohttpTransport(pace), base_url=base_url, timeout=timeout),
    )
