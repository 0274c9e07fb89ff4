"""The client sends each request as its `AsyncOpenAI` is configured."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI
from strands.models.openai import OpenAIModel

from godoty_service.openrouter.client import OpenRouterClient, open_client
from godoty_service.openrouter.model import OpenRouterModel
from godoty_service.openrouter.read_pacer import ReadPacer

ATTRIBUTION = {"http-referer": "https://site.example", "x-title": "App", "x-openrouter-title": "App"}


@asynccontextmanager
async def recording_server() -> AsyncIterator[tuple[OpenRouterClient, list[dict[str, str]]]]:
    """Yield a client of a server that answers `{}`, and the heads of the requests that the server received."""
    heads: list[dict[str, str]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        head = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        heads.append({"request": request, **head})
        await reader.readexactly(int(head.get("content-length", 0)))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = open_client(
            api_key="key-1",
            base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1",
            site_url="https://site.example",
            app_name="App",
            connect_timeout=60,
            read_timeout=60,
            read_pacer=ReadPacer(),
        )
        try:
            yield client, heads
        finally:
            await client.close()


async def test_completion_and_read_have_key_and_attribution_headers() -> None:
    """Both have the base URL, the key and all attribution headers; they differ in method and path only."""
    async with recording_server() as (client, heads):
        await (await client.complete({"model": "a/b"})).aread()
        await (await client.fetch("/models?a=b")).aread()

    requests = [each["request"] for each in heads]
    assert requests == ["POST /api/v1/chat/completions HTTP/1.1", "GET /api/v1/models?a=b HTTP/1.1"]
    for head in heads:
        assert head.items() >= {"authorization": "Bearer key-1", **ATTRIBUTION}.items()


async def test_client_with_other_key_differs_in_key_only() -> None:
    """The other headers, the base URL and the connection pool are those of the first client."""
    async with recording_server() as (client, heads):
        for each in (client, client.with_key("key-2")):
            await (await each.complete({"model": "a/b"})).aread()

    first, second = heads
    assert (first.pop("authorization"), second.pop("authorization")) == ("Bearer key-1", "Bearer key-2")
    assert first == second


async def test_model_is_openai_model_with_injected_client() -> None:
    """Strands' model has the very `AsyncOpenAI` whose configuration the requests have."""
    meter: Any = None
    async with recording_server() as (client, _):
        model = OpenRouterModel(client=client, meter=meter, model="a/b")

        assert isinstance(model, OpenAIModel)
        assert isinstance(client.openai, AsyncOpenAI)
        assert str(client.openai.base_url).endswith("/api/v1/")
        async with model._get_client() as injected:
            assert injected is client.openai


async def test_own_requests_of_openai_client_use_same_headers_and_pool() -> None:
    """A request that bypasses the fast path has the same key and attribution headers."""
    async with recording_server() as (client, heads):
        await client.openai.models.list()

    assert heads[0]["request"] == "GET /api/v1/models HTTP/1.1"
    assert heads[0].items() >= {"authorization": "Bearer key-1", **ATTRIBUTION}.items()
