"""A running sandbox and a client that talks to it over real HTTP."""

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from godoty_service.sandbox.server import Sandbox

_RECORDED = Path(__file__).parents[2] / "data" / "recorded"


@pytest.fixture
def recorded() -> Path:
    """The folder of recorded responses."""
    return _RECORDED


@pytest.fixture
async def sandbox(recorded: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(recorded=recorded) as running:
        yield running


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the account "sandbox-a"."""
    headers = {"authorization": "Bearer sandbox-a"}
    async with _client(sandbox.base_url, headers) as client:
        yield client


@pytest.fixture
async def control(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the sandbox's own endpoints."""
    async with _client(f"{sandbox.origin}/_sandbox", {}) as client:
        yield client


def _client(base_url: str, headers: dict[str, str]) -> httpx.AsyncClient:
    no_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the default one reads all root certificates
    return httpx.AsyncClient(base_url=base_url, headers=headers, timeout=5, verify=no_tls)


@pytest.fixture
def ask(http: httpx.AsyncClient) -> Callable[..., Awaitable[httpx.Response]]:
    """Ask a model one thing, with more fields of the request by keyword."""

    async def post(text: str, **body: Any) -> httpx.Response:
        messages = body.pop("messages", [{"role": "user", "content": text}])
        request = {"model": "openai/gpt-4o-mini", "stream": True, "messages": messages, **body}
        return await http.post("/chat/completions", json=request)

    return post


@pytest.fixture
def chunks() -> Callable[[httpx.Response], list[dict[str, Any]]]:
    """The chunks of a streamed response, each number as it was written."""

    def parse(response: httpx.Response) -> list[dict[str, Any]]:
        lines = [line for line in response.text.splitlines() if line.startswith("data: {")]
        return [json.loads(line.removeprefix("data: "), parse_float=Decimal) for line in lines]

    return parse


@pytest.fixture
def said(chunks: Callable[[httpx.Response], list[dict[str, Any]]]) -> Callable[[httpx.Response], str]:
    """The text of a streamed response."""

    def join(response: httpx.Response) -> str:
        deltas = [choice["delta"] for chunk in chunks(response) for choice in chunk["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)

    return join
