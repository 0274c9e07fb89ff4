"""Reads a whole answer in the shape of the Responses API, as some gateways give it, as one of the chat API."""

from typing import Any

Document = dict[str, Any]

_CUT_OFF = {"max_output_tokens": "length"}


def as_chat(body: Document) -> Document:
    """Return a body that has the chat API's `choices`; one that has them, or no `output`, is returned as it is."""
    output = body.get("output")
    if "choices" in body or not isinstance(output, list):
        return body
    items = [item for item in output if isinstance(item, dict)]
    message = {
        "role": "assistant",
        "content": [part for item in _of("message", items) for part in _parts(item, "content")],
        "reasoning": "".join(
            part["text"]
            for item in _of("reasoning", items)
            for part in _parts(item, "summary")
            if isinstance(part.get("text"), str)
        ),
        "tool_calls": [_tool_call(item) for item in _of("function_call", items)],
    }
    return {**body, "choices": [{"index": 0, "message": message, "finish_reason": _finish_reason(body, message)}]}


def _of(kind: str, items: list[Document]) -> list[Document]:
    return [item for item in items if item.get("type") == kind]


def _parts(item: Document, name: str) -> list[Document]:
    parts = item.get(name)
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _tool_call(item: Document) -> Document:
    function = {"name": item.get("name"), "arguments": item.get("arguments")}
    return {"id": item.get("call_id"), "type": "function", "function": function}


def _finish_reason(body: Document, message: Document) -> str | None:
    """Tell in the chat API's words why it ended; None: it did not say."""
    details = body.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    if reason is not None:
        return _CUT_OFF.get(str(reason), str(reason))
    if body.get("status") != "completed":
        return None
    return "tool_calls" if message["tool_calls"] else "stop"
