import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from openrouter_sandbox.answers.answer import long_text
from openrouter_sandbox.server import Sandbox

Ask = Callable[..., Awaitable[httpx.Response]]
StreamedText = Callable[[httpx.Response], str]


async def test_paced_answer_is_complete_and_billed_once(
    ask: Ask, streamed_text: StreamedText, sandbox: Sandbox
) -> None:
    """`rate=` paces tokens per second: the text is exact, the usage is complete, and one line is billed."""
    response = await ask("@sandbox long tokens=30 rate=500 flat=0")
    (line,) = sandbox.invoice.lines()

    assert streamed_text(response) == long_text(30)
    assert response.text.endswith("data: [DONE]\n\n")
    assert (line.usage["completion_tokens"], line.cancelled) == (30, False)
    assert line.generation_id == response.headers["x-generation-id"]


async def test_slow_client_receives_complete_answer(sandbox: Sandbox, streamed_text: StreamedText) -> None:
    """A paced answer waits while its client does not read, and is complete when it does."""
    text = "@sandbox long tokens=40000 rate=1000000 flat=0"
    body = json.dumps(_request(text)).encode()
    host, _, port = sandbox.origin.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
    writer.write(_head(len(body)) + body)
    async with asyncio.timeout(180):
        while not sandbox.connections.open:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)  # until its buffers are full

    assert sandbox.connections.open == 1

    answer = b"".join([part async for part in _body(reader)])
    writer.close()

    assert streamed_text(httpx.Response(200, content=answer)) == long_text(40000)
    assert [line.usage["completion_tokens"] for line in sandbox.invoice.lines()] == [40000]


def _request(text: str) -> dict[str, Any]:
    return {"model": "openai/gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": text}]}


def _head(length: int) -> bytes:
    fields = f"host: sandbox\r\nauthorization: Bearer sandbox-a\r\ncontent-length: {length}\r\n"
    return f"POST /api/v1/chat/completions HTTP/1.1\r\n{fields}\r\n".encode()


async def _body(reader: asyncio.StreamReader) -> Any:
    """Yield the chunks of a chunked body."""
    await reader.readuntil(b"\r\n\r\n")
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]
