import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from openrouter_sandbox.answers.answer import long_text
from openrouter_sandbox.server import Sandbox

Ask = Callable[..., Awaitable[httpx.Response]]
Chunks = Callable[[httpx.Response], list[dict[str, Any]]]
StreamedText = Callable[[httpx.Response], str]

CALCULATOR = {
    "type": "function",
    "function": {
        "name": "calculator",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "current_time",
        "parameters": {"type": "object", "properties": {"timezone": {"type": "string"}}},
    },
}


async def test_stream_has_comment_chunks_finish_usage_and_done(ask: Ask, chunks: Chunks) -> None:
    """A stream consists of a comment, content chunks, finish chunk, usage chunk and [DONE], with one generation id."""
    response = await ask("@sandbox plain tokens=3")
    parsed = chunks(response)

    assert response.text.startswith(": OPENROUTER PROCESSING\n\ndata: {")
    assert response.text.endswith("data: [DONE]\n\n")
    assert len(parsed) == 5
    assert {chunk["id"] for chunk in parsed} == {response.headers["x-generation-id"]}
    assert re.fullmatch(r"gen-\d{10}-[A-Za-z0-9]{20}", parsed[0]["id"])
    assert [chunk["choices"][0]["finish_reason"] for chunk in parsed] == [None, None, None, "stop", "stop"]
    assert ["usage" in chunk for chunk in parsed] == [False, False, False, False, True]


@pytest.mark.parametrize(("shape", "reasons"), [("repeat", ["stop"]), ("null", [None]), ("empty", [])], ids=str)
async def test_usage_chunk_has_three_shapes(ask: Ask, chunks: Chunks, shape: str, reasons: list[str | None]) -> None:
    """The usage chunk's choices repeat the finish reason, have none, or are empty."""
    last = chunks(await ask(f"@sandbox plain usage_chunk={shape}"))[-1]

    assert [choice["finish_reason"] for choice in last["choices"]] == reasons
    assert last["usage"]["completion_tokens"] == 12


async def test_default_answer_quotes_conversation(ask: Ask, streamed_text: StreamedText) -> None:
    """Without a directive the answer quotes the last two user messages and counts all of them."""
    messages = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": [{"type": "text", "text": "What is my name?"}]},
    ]

    text = streamed_text(await ask("", messages=messages))

    assert "What is my name?" in text
    assert "My name is Ada." in text
    assert "This is message 2 of our conversation." in text


async def test_arithmetic_question_calls_calculator(ask: Ask, chunks: Chunks, streamed_text: StreamedText) -> None:
    """An arithmetic question calls the offered calculator; the answer contains its result."""
    body = (await ask("What is 12 * (3 + 4)?", stream=False, tools=[CALCULATOR, CLOCK])).json()
    message = body["choices"][0]["message"]
    call = message["tool_calls"][0]
    messages = [
        {"role": "user", "content": "What is 12 * (3 + 4)?"},
        message,
        {"role": "tool", "tool_call_id": call["id"], "content": "84"},
    ]

    answer = streamed_text(await ask("", messages=messages, tools=[CALCULATOR]))

    assert call["function"] == {"name": "calculator", "arguments": '{"expression":"12 * (3 + 4)"}'}
    assert body["choices"][0]["finish_reason"] == "tool_calls"
    assert answer == "That makes 84."


async def test_time_question_calls_clock(ask: Ask) -> None:
    """A question about the time calls the offered clock."""
    body = (await ask("What time is it?", stream=False, tools=[CALCULATOR, CLOCK])).json()

    called = [call["function"]["name"] for call in body["choices"][0]["message"]["tool_calls"]]
    assert called == ["current_time"]


async def test_tool_loop_has_configured_number_of_calls(ask: Ask, sandbox: Sandbox) -> None:
    """`calls=3` is three model calls: two with `parallel` tool calls each, then the answer."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "@sandbox tool-loop calls=3 parallel=2 text=done"}]
    rounds = 0
    while True:
        body = (await ask("", messages=messages, stream=False, tools=[CALCULATOR, CLOCK])).json()
        rounds += 1
        message = body["choices"][0]["message"]
        if not message.get("tool_calls"):
            break
        messages.append(message)
        assert len(message["tool_calls"]) == 2
        calls = [call["id"] for call in message["tool_calls"]]
        messages += [{"role": "tool", "tool_call_id": call, "content": "ok"} for call in calls]

    assert rounds == 3
    assert message["content"] == "done"
    assert len(sandbox.invoice.lines()) == 3


async def test_tool_loop_ends_once_the_assistant_has_said_a_word(ask: Ask) -> None:
    """In any of its messages, such as a summary of the results that are left out; what others say does not count."""
    user = {"role": "user", "content": "@sandbox tool-loop calls=9 until=Summarized text=done"}
    answers = []
    for said in ("on it", "[Summarized: 4 messages]"):
        messages = [user, {"role": "assistant", "content": said}, {"role": "user", "content": user["content"]}]
        body = (await ask("", messages=messages, stream=False, tools=[CALCULATOR])).json()
        answers.append(body["choices"][0]["message"])

    assert answers[0]["tool_calls"]
    assert answers[1]["content"] == "done"


async def test_streamed_tool_arguments_form_valid_json(ask: Ask, chunks: Chunks) -> None:
    """A streamed tool call has its id and tool name first; its arguments follow in parts."""
    parsed = chunks(await ask("@sandbox tool-loop calls=2", tools=[CALCULATOR]))
    parts = [part for chunk in parsed for part in chunk["choices"][0]["delta"].get("tool_calls", [])]

    assert parts[0]["function"] == {"name": "calculator", "arguments": ""}
    assert "".join(part["function"]["arguments"] for part in parts) == '{"expression":"6 * 7"}'


async def test_unstreamed_body_starts_with_white_space(ask: Ask) -> None:
    """`whitespace` sends blank lines before the JSON."""
    response = await ask("@sandbox whitespace lines=3 text=hello", stream=False)

    assert response.text.startswith("\n         \n")
    assert response.json()["choices"][0]["message"]["content"] == "hello"


async def test_max_tokens_truncates_answer(ask: Ask, chunks: Chunks, streamed_text: StreamedText) -> None:
    """`max_tokens` truncates the answer at exactly that number of tokens, with finish reason "length"."""
    response = await ask("@sandbox plain tokens=50", max_tokens=4)
    last = chunks(response)[-1]

    assert streamed_text(response) == long_text(4)
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["usage"]["completion_tokens"] == 4


async def test_long_answer_is_exact_and_not_logged(
    ask: Ask, streamed_text: StreamedText, control: httpx.AsyncClient
) -> None:
    """`long` sends every token without delays, and is not in the request log."""
    response = await ask("@sandbox long tokens=2000")
    logged = (await control.get("/requests")).json()["requests"]

    assert streamed_text(response) == long_text(2000)
    assert logged == []


async def test_reasoning_details_are_checked_in_next_request(ask: Ask, sandbox: Sandbox) -> None:
    """Reasoning has readable and encrypted entries; the request log says whether they came back unchanged."""
    text = "@sandbox tool-loop calls=4 reasoning=3 encrypted=1"
    message = (await ask(text, stream=False, tools=[CALCULATOR])).json()["choices"][0]["message"]
    kinds = [entry["type"] for entry in message["reasoning_details"]]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "42"}
    changed = {**message, "reasoning_details": message["reasoning_details"][:1]}
    missing = {key: value for key, value in message.items() if key != "reasoning_details"}
    for returned in (message, changed, missing):
        await ask("", messages=[{"role": "user", "content": text}, returned, result], tools=[CALCULATOR])

    assert kinds == ["reasoning.text", "reasoning.encrypted"]
    assert message["reasoning"] == "thought 0 thought 1 thought 2 "
    checks = [entry["reasoning"] for entry in sandbox.request_log.entries()]
    assert checks[1] == {"unchanged": 1, "changed": 0, "missing": 0}
    assert checks[2] == {"unchanged": 0, "changed": 1, "missing": 0}
    assert checks[3] == {"unchanged": 0, "changed": 0, "missing": 1}


async def test_cost_in_response_is_exact_number(ask: Ask) -> None:
    """The cost is a JSON number with all its decimals; small numbers have an exponent."""
    response = await ask("@sandbox plain tokens=1 prompt_tokens=1", stream=False, model="openai/gpt-5-nano")

    assert '"cost":4.5E-7' in response.text


async def test_unicode_is_quoted_and_schema_gets_valid_json(ask: Ask, streamed_text: StreamedText) -> None:
    """Unicode text is quoted unchanged, and a JSON schema gets JSON that is valid for it."""
    form = {
        "type": "json_schema",
        "json_schema": {
            "name": "x",
            "schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
        },
    }

    assert "Grüße 🦊" in streamed_text(await ask("Grüße 🦊"))
    assert streamed_text(await ask("@sandbox default", response_format=form)) == '{"n":1}'
