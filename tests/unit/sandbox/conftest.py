"""A running sandbox, and clients that call it over HTTP."""

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from openrouter_sandbox.server import Sandbox

_RECORDED = Path(__file__).parents[2] / "data" / "recorded"


@pytest.fixture
def recorded() -> Path:
    """Return the folder of recorded responses."""
    return _RECORDED


@pytest.fixture
async def sandbox(recorded: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(recorded=recorded) as running:
        yield running


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the account "sandbox-a"."""
    headers = {"authorization": "Bearer sandbox-a"}
    async with _client(sandbox.base_url, headers) as client:
        yield client


@pytest.fixture
async def control(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the control endpoints."""
    async with _client(f"{sandbox.origin}/_sandbox", {}) as client:
        yield client


def _client(base_url: str, headers: dict[str, str]) -> httpx.AsyncClient:
    no_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the default context loads all root certificates
    return httpx.AsyncClient(base_url=base_url, headers=headers, timeout=60, verify=no_tls)


@pytest.fixture
def ask(http: httpx.AsyncClient) -> Callable[..., Awaitable[httpx.Response]]:
    """Return a function that sends one user message; keyword arguments set further fields of the request."""

    async def post(text: str, **body: Any) -> httpx.Response:
        messages = body.pop("messages", [{"role": "user", "content": text}])
        request = {"model": "openai/gpt-4o-mini", "stream": True, "messages": messages, **body}
        return await http.post("/chat/completions", json=request)

    return post


@pytest.fixture
def chunks() -> Callable[[httpx.Response], list[dict[str, Any]]]:
    """Return a function that parses a stream's chunks, with exact decimals."""

    def parse(response: httpx.Response) -> list[dict[str, Any]]:
        lines = [line for line in response.text.splitlines() if line.startswith("data: {")]
        return [json.loads(line.removeprefix("data: "), parse_float=Decimal) for line in lines]

    return parse


@pytest.fixture
def streamed_text(chunks: Callable[[httpx.Response], list[dict[str, Any]]]) -> Callable[[httpx.Response], str]:
    """Return a function that joins the text of a streamed response."""

    def join(response: httpx.Response) -> str:
        deltas = [choice["delta"] for chunk in chunks(response) for choice in chunk["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)

    return join
