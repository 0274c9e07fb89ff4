"""Generates the answer to a request from its scenario and its messages."""

import base64
import secrets
from typing import Any

from openrouter_sandbox.answers import canned_replies
from openrouter_sandbox.answers.answer import (
    Answer,
    Piece,
    ToolCall,
    encrypted_piece,
    long_pieces,
    reasoning_piece,
    text_piece,
    tool_pieces,
)
from openrouter_sandbox.answers.tool_input import sample_value, wrong_value
from openrouter_sandbox.conversation import Conversation, text_of
from openrouter_sandbox.decimal_json import dumps
from openrouter_sandbox.scenarios.scenario import Scenario, ScenarioError, without_directive


def tool_loop_step(conversation: Conversation, scenario: Scenario) -> int:
    """Return a request's step in a tool loop: 1 before any tool result, plus 1 for each round of results."""
    return len(conversation.tool_results) // max(1, scenario.number("parallel", 1)) + 1


def generate_answer(conversation: Conversation, scenario: Scenario) -> Answer:
    """Return the answer to a request, truncated to its `max_tokens`."""
    calls = _tool_calls(conversation, scenario)
    pieces: list[Piece] = _reasoning(scenario)
    if calls:
        for index, call in enumerate(calls):
            pieces += tool_pieces(index, call)
        answer = Answer(pieces, calls, "tool_calls")
    else:
        text = _text_pieces(conversation, scenario)
        answer = Answer((*pieces, *text) if pieces else text, (), scenario.text("finish", "stop"))
    return answer.limited(conversation.max_tokens)


def _reasoning(scenario: Scenario) -> list[Piece]:
    pieces = [reasoning_piece(f"thought {number} ") for number in range(scenario.number("reasoning"))]
    encrypted = [base64.b64encode(secrets.token_bytes(48)).decode() for _ in range(scenario.number("encrypted"))]
    return [*pieces, *map(encrypted_piece, encrypted)]


def _text_pieces(conversation: Conversation, scenario: Scenario) -> tuple[Piece, ...]:
    if scenario.has("text"):
        return tuple(text_piece(word) for word in canned_replies.words(scenario.text("text")))
    if scenario.has("tokens"):
        return long_pieces(scenario.number("tokens"))
    schema = _response_schema(conversation)
    if schema is None:
        text = _default_reply(conversation)
    else:
        text = dumps(wrong_value(schema) if _is_wrong(conversation, scenario) else sample_value(schema))
    return tuple(text_piece(word) for word in canned_replies.words(text))


def _is_wrong(conversation: Conversation, scenario: Scenario) -> bool:
    """Return whether an answer by a schema is to be invalid: the first `wrong` since the last user message are."""
    return tool_loop_step(conversation, scenario) <= scenario.number("wrong")


def _default_reply(conversation: Conversation) -> str:
    if conversation.tool_results:
        return canned_replies.tool_results_reply(_named_results(conversation))
    return canned_replies.chat_reply([without_directive(text) for text in conversation.user_texts])


def _named_results(conversation: Conversation) -> list[tuple[str, str]]:
    names = {
        call.get("id"): call.get("function", {}).get("name", "tool")
        for message in conversation.messages
        for call in message.get("tool_calls") or ()
    }
    return [(names.get(message.get("tool_call_id"), "tool"), text_of(message)) for message in conversation.tool_results]


def _response_schema(conversation: Conversation) -> dict[str, Any] | None:
    form = conversation.body.get("response_format") or {}
    schema: dict[str, Any] | None = (form.get("json_schema") or {}).get("schema")
    return schema if form.get("type") == "json_schema" else None


def _tool_calls(conversation: Conversation, scenario: Scenario) -> list[ToolCall]:
    choice = conversation.body.get("tool_choice")
    if not conversation.tools or choice == "none":
        return []
    if scenario.has("calls"):
        return _loop_calls(conversation, scenario)
    if isinstance(choice, dict):
        return [_call(conversation, scenario, choice.get("function", {}).get("name"))]
    if choice == "required":
        usual = [] if conversation.tool_results else _default_calls(conversation, scenario)
        return usual or [_call(conversation, scenario, conversation.tool_names[-1])]
    return [] if conversation.tool_results or scenario.name != "default" else _default_calls(conversation, scenario)


def _loop_calls(conversation: Conversation, scenario: Scenario) -> list[ToolCall]:
    step, names = tool_loop_step(conversation, scenario), conversation.tool_names
    if step >= scenario.number("calls") or conversation.has_said(scenario.text("until")):
        return []
    count = max(1, scenario.number("parallel", 1))
    turn = (step - 1) * count
    chosen = [scenario.text("tool") or names[(turn + number) % len(names)] for number in range(count)]
    return [_call(conversation, scenario, name) for name in chosen]


def _default_calls(conversation: Conversation, scenario: Scenario) -> list[ToolCall]:
    """Return calls of `calculator` for arithmetic and of `current_time` for a question about the time, if offered."""
    question = conversation.last_text
    names = []
    if canned_replies.arithmetic(question) and "calculator" in conversation.tool_names:
        names.append("calculator")
    if canned_replies.asks_time(question) and "current_time" in conversation.tool_names:
        names.append("current_time")
    return [_call(conversation, scenario, name) for name in names]


def _call(conversation: Conversation, scenario: Scenario, name: str) -> ToolCall:
    functions = {tool.get("function", {}).get("name"): tool["function"] for tool in conversation.tools}
    if name not in functions:
        raise ScenarioError(f"tool {name!r} is not offered; offered: {', '.join(conversation.tool_names)}")
    value = _input(conversation, functions[name])
    if _is_wrong(conversation, scenario):
        value = wrong_value(functions[name].get("parameters") or {"type": "object"})
    arguments = scenario.text("input") or dumps(value)
    return ToolCall(f"call_{secrets.token_hex(12)}", name, arguments)


def _input(conversation: Conversation, function: dict[str, Any]) -> Any:
    schema = function.get("parameters") or {"type": "object"}
    expression = canned_replies.arithmetic(conversation.last_text)
    properties = schema.get("properties", {})
    name = "expression" if "expression" in properties else next(iter(schema.get("required", ())), "")
    known = {name: expression} if expression and name and function["name"] == "calculator" else {}
    return sample_value(schema, known)
