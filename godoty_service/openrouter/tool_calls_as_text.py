"""Writes the tool calls of a history as text, for requests that offer no tools. Pure.

Anthropic rejects tool calls in a request without tools, and models that cannot call tools reject them in any request.
An agent's newest version may have no tools though the session has tool calls, and summaries are requested without any.
"""

from typing import Any

_Message = dict[str, Any]


def tool_calls_as_text(messages: list[_Message]) -> list[_Message]:
    """Return chat messages without tool calls: each call is text of its answer, each result text of a user message.

    Adjacent user messages become one, since some providers require that roles alternate. Messages before the first
    tool call are unchanged.
    """
    written: list[_Message] = []
    names: dict[str, str] = {}  # of the last answer's tools, by tool call id
    has_calls = False
    for message in messages:
        if calls := message.get("tool_calls"):
            has_calls = True
            names = {call["id"]: call["function"]["name"] for call in calls}
            lines = [f"[Tool call: {_line(call['function'])}]" for call in calls]
            # Its reasoning is signed for the calls that it led to.
            kept = {key: value for key, value in message.items() if key not in ("tool_calls", "reasoning_details")}
            written.append({**kept, "content": [*_parts(message), *map(_text, lines)]})
        elif message["role"] == "tool":
            name = names.get(message["tool_call_id"], "a tool")
            _add_user_parts(written, [_text(f"[Result of {name}]"), *_parts(message)])
        elif message["role"] == "user" and has_calls:
            _add_user_parts(written, _parts(message))
        else:
            written.append(message)
    return written


def _line(function: dict[str, Any]) -> str:
    return f"{function['name']} {function['arguments']}"


def _add_user_parts(written: list[_Message], parts: list[dict[str, Any]]) -> None:
    if written and written[-1]["role"] == "user":
        written[-1] = {**written[-1], "content": [*_parts(written[-1]), *parts]}
    else:
        written.append({"role": "user", "content": parts})


def _parts(message: _Message) -> list[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, list):
        return content
    return [_text(content)] if content and content.strip() else []


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
