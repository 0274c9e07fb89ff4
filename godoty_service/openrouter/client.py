"""The HTTP client to the provider: one for the service, its connections shared by all turns."""

import httpx2 as httpx
from openai import AsyncOpenAI

from godoty_service.openrouter.pace import Pace
from godoty_service.openrouter.transport import AiohttpTransport


def open_client(
    *,
    api_key: str,
    base_url: str,
    site_url: str,
    app_name: str,
    connect_timeout: float,
    read_timeout: float,
    pace: Pace,
) -> AsyncOpenAI:
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
    return AsyncOpenAI(
        api_key=api_key,
        base_url=base_url,
        max_retries=0,
        timeout=timeout,
        default_headers={"HTTP-Referer": site_url, "X-Title": app_name, "X-OpenRouter-Title": app_name},
        http_client=httpx.AsyncClient(base_url=base_url, timeout=timeout, transport=AiohttpTransport(pace)),
    )
