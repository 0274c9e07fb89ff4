"""Bounds of one answer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerLimits:
    """Bounds of what is kept of one answer.

    Attributes:
        message_bytes: The whole message, in bytes of JSON: it must fit a document of MongoDB, which takes 16 MB.
        text_bytes: Text and reasoning together, in bytes of JSON.
        tool_calls: Number of tool calls.
        tool_input_bytes: Input of one tool call, in bytes of JSON.
        reasoning_details: Number of reasoning details.
        reasoning_details_bytes: Reasoning details together, in bytes of JSON.
        drain_seconds: Seconds that an answer which outgrew its bounds is still read, for its usage and cost.
    """

    message_bytes: int = 15 * 1024 * 1024
    text_bytes: int = 12 * 1024 * 1024
    tool_calls: int = 128
    tool_input_bytes: int = 1024 * 1024
    reasoning_details: int = 1000
    reasoning_details_bytes: int = 2 * 1024 * 1024
    drain_seconds: float = 2.0
