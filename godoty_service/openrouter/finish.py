"""Maps the finish reasons of OpenRouter and of other gateways to Strands' stop reasons."""

import re

from strands.types.event_loop import StopReason

from godoty_service.errors import ProviderUnavailable

# The first that is found in the reason decides. Reasons that none is found in, such as "stop", end the turn well.
_LENGTH = re.compile(r"max_|maxtokens|length|token_limit|context_window|error_limit|truncat")
_FILTER = re.compile(
    r"filter|safety|recitation|block|prohibited|spii|refus|sensitive|moderation|toxic|guardrail|violation"
)
_ERROR = re.compile(
    r"error|fail|abort|cancel|timeout|timed_out|unavailable|insufficient|malformed_function|unexpected_tool|overload"
)


def stop_reason(finish_reason: str | None, *, calls: bool, refused: bool) -> StopReason:
    """Return Strands' stop reason.

    Args:
        finish_reason: The provider's reason.
        calls: The answer has tool calls.
        refused: The answer is a refusal.
    """
    reason = _normal(finish_reason)
    if refused:
        return "content_filtered"
    if _LENGTH.search(reason):
        return "max_tokens"
    if _FILTER.search(reason):
        return "content_filtered"
    return "tool_use" if calls else "end_turn"


def failure(finish_reason: str) -> ProviderUnavailable | None:
    """Return the error that a finish reason stands for, or None."""
    reason = _normal(finish_reason)
    if _LENGTH.search(reason) or _FILTER.search(reason) or not _ERROR.search(reason):
        return None
    return ProviderUnavailable("The provider failed.", metadata={"provider_code": "error"})


def _normal(reason: str | None) -> str:
    return (reason or "").lower().replace("-", "_").replace(" ", "_")
