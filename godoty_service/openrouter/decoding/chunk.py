"""Parses the chunks of a completion and what they report: content, finish reason, usage. Pure.

Gateways differ from OpenRouter in each of them; a document of the Responses API is converted to a chat completion.
"""

import re
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from typing import Any

from pydantic_core import from_json
from strands.types.event_loop import StopReason, Usage

from godoty_service.errors import ProviderUnavailable
from godoty_service.openrouter import decimal_json
from godoty_service.pricing import money
from godoty_service.pricing.token_usage import PIPELINE_COST

Document = dict[str, Any]

DONE = (b"[DONE]", b"DONE")
_MAX_VALUES = 50_000  # of one chunk, and as many names: more would take the event loop longer than 50 ms
_MAX_LINES = 10_000
_MAX_COUNT = 10**12  # a larger counter is an error of the provider
_MAX_TOKENS = 10**9  # of one call, for Strands' limits
_MAX_AMOUNT = 10**6  # USD; the same
_MAX_USAGE_FIELDS = 64
_MAX_USAGE_DEPTH = 4
_MAX_STAGES = 64  # of a request's way at OpenRouter
_RESPONSES_REASONS = {"max_output_tokens": "length"}
# The first pattern found in a finish reason decides. A reason without any, such as "stop", ends the turn normally.
_LENGTH = re.compile(r"max_|maxtokens|length|token_limit|context_window|error_limit|truncat")
_FILTER = re.compile(
    r"filter|safety|recitation|block|prohibited|spii|refus|sensitive|moderation|toxic|guardrail|violation"
)
_ERROR = re.compile(
    r"error|fail|abort|cancel|timeout|timed_out|unavailable|insufficient|malformed_function|unexpected_tool|overload"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerLimits:
    """Bounds of what is retained of one answer.

    Attributes:
        message_bytes: The whole message, in bytes of JSON: it must fit a MongoDB document, which is at most 16 MB.
        text_bytes: Text and reasoning together, in bytes of JSON.
        tool_calls: Number of tool calls.
        tool_input_bytes: Input of one tool call, in bytes of JSON.
        reasoning_details: Number of reasoning details.
        reasoning_details_bytes: Reasoning details together, in bytes of JSON.
        drain_seconds: Seconds for which an answer beyond its bounds is still read, for its usage and cost.
    """

    message_bytes: int = 15 * 1024 * 1024
    text_bytes: int = 12 * 1024 * 1024
    tool_calls: int = 128
    tool_input_bytes: int = 1024 * 1024
    reasoning_details: int = 1000
    reasoning_details_bytes: int = 2 * 1024 * 1024
    drain_seconds: float = 2.0


def parse_chunk(data: bytes) -> Document:
    """Parse a chunk; if it contains usage or a cost, its fractions are Decimal.

    Raises:
        ProviderUnavailable: The data is not a JSON object, or has more than 50,000 values.
    """
    if _has_too_many_values(data):
        raise malformed_error()
    try:
        if b'"usage"' in data or b'"cost"' in data:
            chunk = decimal_json.loads(data)
        else:
            try:
                chunk = from_json(data)
            except ValueError:  # lone surrogates, which the fast parser rejects
                chunk = decimal_json.loads(data)
    except (ValueError, RecursionError) as error:
        raise malformed_error() from error
    if not isinstance(chunk, dict):
        raise malformed_error()
    return chunk


def parse_lines(data: bytes) -> list[Document] | None:
    """Parse one object on each of several lines; skip other lines. Return None if the data has another shape."""
    if data.count(b"\n") + data.count(b"\r") > _MAX_LINES:
        return None
    lines = [line for each in data.splitlines() if (line := each.strip())]
    try:
        return [parse_chunk(line) for line in lines if line.startswith(b"{")] if len(lines) > 1 else None
    except ProviderUnavailable:
        return None


def _has_too_many_values(data: bytes) -> bool:
    """Return whether a chunk has too many values to be parsed; a long text with many commas has not."""
    if data.count(b",") <= _MAX_VALUES:
        return False
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    if unescaped.count(b'"') > 4 * _MAX_VALUES:  # two for each name and each text
        return True
    return sum(part.count(b",") for part in unescaped.split(b'"')[::2]) > _MAX_VALUES


def malformed_error() -> ProviderUnavailable:
    """Return the error of an answer that cannot be decoded."""
    return ProviderUnavailable(
        "The provider sent an answer that cannot be decoded.", metadata={"provider_code": "malformed"}
    )


def incomplete_error() -> ProviderUnavailable:
    """Return the error of an answer that broke off."""
    return ProviderUnavailable("The provider's answer broke off.", metadata={"provider_code": "incomplete"})


def content_of(value: Any) -> tuple[str, bool]:
    """Return the text of a content, which is a string or a list of parts, and whether it is a refusal."""
    if isinstance(value, str):
        return value, False
    if not isinstance(value, list):
        return "", False
    parts = [part for part in value if isinstance(part, dict)]
    refusals = [part["refusal"] for part in parts if isinstance(part.get("refusal"), str)]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    return "".join(texts + refusals), bool(refusals)


def stop_reason(finish_reason: str | None, *, calls: bool, refused: bool) -> StopReason:
    """Map a finish reason to Strands' stop reason.

    Args:
        finish_reason: The provider's reason.
        calls: The answer has tool calls.
        refused: The answer is a refusal.
    """
    reason = _normalize(finish_reason)
    if refused:
        return "content_filtered"
    if _LENGTH.search(reason):
        return "max_tokens"
    if _FILTER.search(reason):
        return "content_filtered"
    return "tool_use" if calls else "end_turn"


def finish_error(finish_reason: str) -> ProviderUnavailable | None:
    """Return the error that a finish reason stands for, or None."""
    reason = _normalize(finish_reason)
    if _LENGTH.search(reason) or _FILTER.search(reason) or not _ERROR.search(reason):
        return None
    return ProviderUnavailable("The provider failed.", metadata={"provider_code": "error"})


def _normalize(reason: str | None) -> str:
    return (reason or "").lower().replace("-", "_").replace(" ", "_")


def merge_usage(known: Document | None, reported: Any) -> Document | None:
    """Merge a usage object into the known usage: known values replace earlier ones, unknown values do not.

    Null, an empty object and a value of another type are unknown; an object without a known value changes nothing.
    """
    if not isinstance(reported, dict):
        return known
    result = _merge(known or {}, reported, _MAX_USAGE_DEPTH)
    return dict.fromkeys(list(reported)[:_MAX_USAGE_FIELDS]) | result if result else known


def without_cost(usage: Document) -> Document:
    """Return the counters of a usage object alone."""
    return {name: value for name, value in usage.items() if name not in ("cost", "cost_details", PIPELINE_COST)}


def with_pipeline_cost(usage: Any, metadata: Any) -> Any:
    """Return a usage object with the fees that its chunk's `openrouter_metadata` has, as `PIPELINE_COST`.

    They are those of plugins: searches and files. A stage without a cost is free; one whose cost is null makes the sum
    unknown.
    """
    stages = metadata.get("pipeline") if isinstance(metadata, dict) else None
    if not isinstance(usage, dict) or not isinstance(stages, list) or len(stages) > _MAX_STAGES:
        return usage
    costs = [stage["cost_usd"] for stage in stages if isinstance(stage, dict) and "cost_usd" in stage]
    if not costs or not all(_is_number(cost) and 0 <= cost <= _MAX_AMOUNT for cost in costs):
        return usage
    try:
        return {**usage, PIPELINE_COST: money.total(map(Decimal, costs))}
    except DecimalException:  # more than 34 digits
        return usage


def _merge(known: Document, reported: Document, depth: int) -> Document:
    result = dict(known)
    for name, value in reported.items():
        if name not in result and len(result) >= _MAX_USAGE_FIELDS:
            break
        before = result.get(name)
        if isinstance(value, dict):
            part = _merge(before if isinstance(before, dict) else {}, value, depth - 1) if depth else {}
            if part:
                result[name] = part
        elif _is_known(name, value) and not (_is_number(before) and not _is_number(value)):
            result[name] = value
    return result


def _is_known(name: str, value: Any) -> bool:
    if _is_number(value):
        if not 0 <= value <= (_MAX_AMOUNT if name == "cost" else _MAX_COUNT):
            return False  # checked before the conversion to int: 1e999999999 has a billion digits
        return bool("cost" in name or value == int(value))  # no counter has fractions
    return isinstance(value, bool) or (isinstance(value, str) and "cost" in name and _is_amount(value))


def _is_amount(text: str) -> bool:
    """Return whether a string is an amount: some gateways quote amounts."""
    try:
        return 0 <= Decimal(text) <= _MAX_AMOUNT
    except DecimalException:
        return False


def _is_number(value: Any) -> bool:
    """Return whether a value is an int or a finite Decimal; a binary fraction is never an exact amount."""
    if isinstance(value, Decimal):
        return value.is_finite()
    return isinstance(value, int) and not isinstance(value, bool)


def chat_completion(body: Document) -> Document:
    """Convert a Responses API document to a chat completion; return any other body unchanged."""
    output = body.get("output")
    if "choices" in body or not isinstance(output, list):
        return body
    items = [item for item in output if isinstance(item, dict)]
    message = {
        "role": "assistant",
        "content": [part for item in _of_type("message", items) for part in _parts(item, "content")],
        "reasoning": "".join(
            part["text"]
            for item in _of_type("reasoning", items)
            for part in _parts(item, "summary")
            if isinstance(part.get("text"), str)
        ),
        "tool_calls": [_tool_call(item) for item in _of_type("function_call", items)],
    }
    return {**body, "choices": [{"index": 0, "message": message, "finish_reason": _finish_reason(body, message)}]}


def _of_type(kind: str, items: list[Document]) -> list[Document]:
    return [item for item in items if item.get("type") == kind]


def _parts(item: Document, name: str) -> list[Document]:
    parts = item.get(name)
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _tool_call(item: Document) -> Document:
    function = {"name": item.get("name"), "arguments": item.get("arguments")}
    return {"id": item.get("call_id"), "type": "function", "function": function}


def _finish_reason(body: Document, message: Document) -> str | None:
    """Return the chat API's finish reason; None: the document has none."""
    details = body.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    if reason is not None:
        return _RESPONSES_REASONS.get(str(reason), str(reason))
    if body.get("status") != "completed":
        return None
    return "tool_calls" if message["tool_calls"] else "stop"


def strands_usage(usage: Document) -> Usage:
    """Return the tokens of a reported usage as Strands counts them, for its limits; their cost is in the ledger."""
    inputs = _whole_count(usage, "prompt_tokens", "input_tokens") or 0
    outputs = _whole_count(usage, "completion_tokens", "output_tokens") or 0
    counted = Usage(inputTokens=inputs, outputTokens=outputs, totalTokens=inputs + outputs)
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    details = details if isinstance(details, dict) else {}
    if (read := _whole_count(details, "cached_tokens")) is not None:
        counted["cacheReadInputTokens"] = read
    if (written := _whole_count(details, "cache_write_tokens")) is not None:
        counted["cacheWriteInputTokens"] = written
    return counted


def _whole_count(usage: Document, *names: str) -> int | None:
    """Return the first known counter; one that is not a whole number, or is absurdly large, is unknown."""
    for name in names:
        value = usage.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
            continue
        if 0 <= value <= _MAX_TOKENS and value == int(value):
            return int(value)
    return None
