import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest

from openrouter_sandbox.server import Sandbox

Ask = Callable[..., Awaitable[httpx.Response]]
Chunks = Callable[[httpx.Response], list[dict[str, Any]]]


async def test_request_without_valid_key_gets_401(sandbox: Sandbox) -> None:
    """A missing key and a key of another service get 401 with the recorded body."""
    async with httpx.AsyncClient(base_url=sandbox.base_url) as anonymous:
        missing = await anonymous.post("/chat/completions", json={})
        foreign = await anonymous.get("/key", headers={"authorization": "Bearer gdt_x"})

    assert missing.status_code == foreign.status_code == 401
    assert missing.json() == {"error": {"message": "Missing Authentication header", "code": 401}}


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 413, 429, 500, 502, 503, 529])
async def test_error_before_sends_status_and_bills_nothing(ask: Ask, sandbox: Sandbox, status: int) -> None:
    """`error-before` sends the status, a Retry-After if set, and adds no invoice line."""
    response = await ask(f"@sandbox error-before status={status} retry_after=2")

    assert (response.status_code, response.json()["error"]["code"]) == (status, status)
    assert response.headers["retry-after"] == "2"
    assert sandbox.invoice.lines() == []


async def test_times_limits_failures_of_same_request(ask: Ask) -> None:
    """`times=2` fails the same request twice, then serves it; each session has its own count."""
    text = "@sandbox error-before status=503 times=2"
    statuses = [(await ask(text, session_id="a")).status_code for _ in range(3)]

    assert statuses == [503, 503, 200]
    assert (await ask(text, session_id="b")).status_code == 503


async def test_error_200_sends_error_body_with_status_200(ask: Ask, sandbox: Sandbox) -> None:
    """HTTP 200 with an error body, as recorded; nothing is billed."""
    response = await ask("@sandbox error-200 status=429")

    assert (response.status_code, response.json()["error"]["code"]) == (200, 429)
    assert sandbox.invoice.lines() == []


@pytest.mark.parametrize("usage", [0, 1])
async def test_mid_stream_error_bills_tokens_produced(ask: Ask, chunks: Chunks, sandbox: Sandbox, usage: int) -> None:
    """After n chunks, a chunk with a top-level error ends the stream; the n tokens are billed."""
    text = f"@sandbox error-mid n=2 code=502 usage={usage} prompt_tokens=1000"
    response = await ask(text)
    last = chunks(response)[-1]

    assert len(chunks(response)) == 3
    assert last["error"] == {"code": 502, "message": "Provider returned error"}
    assert ("usage" in last) == bool(usage)
    assert sandbox.invoice.total() == Decimal("0.0001512")  # 1000 x 0.00000015 + 2 x 0.0000006


async def test_error_before_first_token_costs_nothing(ask: Ask, chunks: Chunks, sandbox: Sandbox) -> None:
    """Zero-completion insurance: an error chunk before the first token has cost 0 and adds no invoice line."""
    last = chunks(await ask("@sandbox error-mid n=0"))[-1]

    assert last["usage"]["cost"] == 0
    assert sandbox.invoice.lines() == []


async def test_reset_before_headers_closes_connection(ask: Ask, sandbox: Sandbox) -> None:
    """`reset n=0` closes the connection without a response and bills nothing, or everything with `bill=full`."""
    with pytest.raises(httpx.RemoteProtocolError):
        await ask("@sandbox reset n=0")
    unbilled = len(sandbox.invoice.lines())
    with pytest.raises(httpx.RemoteProtocolError):
        await ask("@sandbox reset n=0 bill=full")

    assert (unbilled, len(sandbox.invoice.lines())) == (0, 1)


async def test_reset_closes_after_exact_number_of_bytes(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    """`reset n=700` sends 700 bytes of the body, then closes; the tokens produced are billed."""
    request = _request("@sandbox reset n=700")
    received = b""
    async with http.stream("POST", "/chat/completions", json=request) as response:
        parts = response.aiter_raw()
        with contextlib.suppress(httpx.RemoteProtocolError):
            while True:
                received += await anext(parts)

    assert len(received) == 700
    assert [(line.cancelled, line.usage["completion_tokens"]) for line in sandbox.invoice.lines()] == [(True, 2)]
    await _until(lambda: sandbox.connections.as_dict() == {"open": 0, "aborted": []})


async def test_hanging_response_ends_on_disconnect(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    """`hang` sends only headers; the client's disconnect is detected and billed."""
    request = _request("@sandbox hang")
    async with http.stream("POST", "/chat/completions", json=request) as response:
        assert response.headers["x-generation-id"].startswith("gen-")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(response.aread(), 0.1)

    await _until(lambda: sandbox.connections.open == 0)
    assert [line.usage["completion_tokens"] for line in sandbox.invoice.lines()] == [0]


async def test_bill_first_bills_before_headers(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    """`delay-headers bill_first=1` bills before the headers, so that a client that dies has an unknown charge."""
    for text in ("@sandbox delay-headers ms=60000 bill_first=1", "@sandbox delay-headers ms=60000"):
        asking = asyncio.create_task(http.post("/chat/completions", json=_request(text)))
        await _until(lambda: sandbox.connections.open == len(sandbox.invoice.lines()) == 1)
        asking.cancel()
        await asyncio.wait([asking])
        await _until(lambda: sandbox.connections.open == 0)

    assert [line.cancelled for line in sandbox.invoice.lines()] == [False]


@pytest.mark.parametrize(
    ("provider", "whole"),
    [
        *[(name, False) for name in ("OpenAI", "Anthropic", "Azure", "DeepSeek", "xAI", "Together")],
        *[(name, True) for name in ("Google", "Groq", "Mistral", "Perplexity", "Minimax")],
        ("amazon-bedrock", True),
    ],
)
async def test_abort_is_billed_by_rule_of_provider(
    http: httpx.AsyncClient, sandbox: Sandbox, provider: str, *, whole: bool
) -> None:
    """Disconnecting early costs the tokens so far at some providers, the whole answer at others."""
    text = f"@sandbox plain tokens=40 hold_after=4 prompt_tokens=1000 provider={provider}"
    request = _request(text, "mistralai/mistral-small-3.2-24b-instruct", session_id="s1")
    async with http.stream("POST", "/chat/completions", json=request) as response:
        async for received in response.aiter_lines():
            if '"t3 "' in received:
                break
    await _until(lambda: sandbox.connections.open == 0)
    (line,) = sandbox.invoice.lines()
    (aborted,) = sandbox.connections.as_dict()["aborted"]

    produced = line.usage["completion_tokens"]
    assert line.cancelled
    assert line.session == "s1"
    assert produced == (40 if whole else 4)
    assert line.cost == Decimal("0.000075") + produced * Decimal("0.0000002")
    assert aborted["generation_id"] == line.generation_id


async def test_fault_applies_to_one_step_of_tool_loop(ask: Ask) -> None:
    """`fault=` and `at=` inject any fault into one step."""
    text = "@sandbox tool-loop calls=3 fault=error-before status=502 at=2"
    tools = [{"type": "function", "function": {"name": "noop", "parameters": {"type": "object"}}}]
    first = {"role": "user", "content": text}
    call = {"id": "1", "type": "function", "function": {"name": "noop", "arguments": "{}"}}
    second = [first, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1"}]

    assert (await ask("", messages=[first], tools=tools)).status_code == 200
    assert (await ask("", messages=second, tools=tools)).status_code == 502


async def test_hold_applies_to_one_step_of_tool_loop(ask: Ask, sandbox: Sandbox) -> None:
    """With `at=`, only the answer of that step waits."""
    text = "@sandbox tool-loop calls=3 hold_after=0 hold=second at=2"
    tools = [{"type": "function", "function": {"name": "noop", "parameters": {"type": "object"}}}]
    first = {"role": "user", "content": text}
    call = {"id": "1", "type": "function", "function": {"name": "noop", "arguments": "{}"}}
    second = [first, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1"}]
    assert (await ask("", messages=[first], tools=tools)).status_code == 200

    held = asyncio.ensure_future(ask("", messages=second, tools=tools))
    await asyncio.wait({held}, timeout=0.2)
    assert not held.done()
    sandbox.holds.allow("second")
    assert (await held).status_code == 200


async def test_unknown_scenario_gets_400_with_known_names(ask: Ask) -> None:
    """A misspelled scenario gets 400 with the names of the scenarios."""
    response = await ask("@sandbox plian")

    assert response.status_code == 400
    assert "tool-loop" in response.json()["error"]["message"]


def _request(text: str, model: str = "openai/gpt-4o-mini", **body: str) -> dict[str, Any]:
    return {"model": model, "stream": True, "messages": [{"role": "user", "content": text}], **body}


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_paused_answer_continues_when_tokens_are_released(
    http: httpx.AsyncClient, control: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    """`hold_after=2` pauses after two tokens; each released token adds one, and a release without a number the rest."""
    directive = "@sandbox plain tokens=5 comments=0 hold_after=2 hold=mine"
    body = {"model": "openai/gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": directive}]}
    async with http.stream("POST", "/chat/completions", json=body) as response:
        lines = (line async for line in response.aiter_lines() if line.startswith("data: {"))
        received = [json.loads((await anext(lines))[6:]) for _ in range(2)]
        waiting = asyncio.ensure_future(anext(lines))
        await control.post("/holds", json={"hold": "another"})
        await asyncio.wait([waiting], timeout=0.05)
        assert not waiting.done()
        await control.post("/holds", json={"hold": "mine", "tokens": 1})
        received.append(json.loads((await waiting)[6:]))
        await control.post("/holds", json={"hold": "mine"})
        received += [json.loads(line[6:]) async for line in lines]

    text = "".join(each["choices"][0]["delta"].get("content") or "" for each in received if each["choices"])
    assert text.split() == [f"t{number}" for number in range(5)]
    assert len(sandbox.invoice.lines()) == 1
