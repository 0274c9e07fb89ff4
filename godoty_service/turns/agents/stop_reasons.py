"""Why an agent's loop ends, and the notes that end the history of a turn whose answer a limit or a filter has ended."""

from typing import Final

from strands.types.exceptions import EventLoopException, MaxTokensReachedException

from godoty_service.openrouter.call_limits import ModelCallsSpent
from godoty_service.turns.agents.output_model import OutputInvalid
from godoty_service.turns.event_log.events import StopReason

STOP_REASONS: Final = {
    "max_tokens": StopReason.MAX_OUTPUT_TOKENS,
    "limit_output_tokens": StopReason.MAX_OUTPUT_TOKENS,
    "limit_turns": StopReason.MAX_MODEL_CALLS,
    "content_filtered": StopReason.CONTENT_FILTERED,
    "guardrail_intervened": StopReason.CONTENT_FILTERED,
    "interrupt": StopReason.ACTION_REQUIRED,
}
NOTES: Final = {
    StopReason.MAX_OUTPUT_TOKENS: "[The answer ended here: the bound on output tokens was reached.]",
    StopReason.MAX_MODEL_CALLS: "[The turn ended here: the bound on model calls was reached.]",
    StopReason.BUDGET: "[The turn ended here: the budget or the turn's max_cost_usd does not cover more.]",
    StopReason.CONTENT_FILTERED: "[The answer was stopped by the provider's filter.]",
    StopReason.OUTPUT_INVALID: "[The turn ended here: no answer was valid by the output schema.]",
}


def stop_of(failure: Exception) -> StopReason:
    """Return the reason of a loop that a limit has ended, perhaps through what the turn's sub-agents have used.

    Raises:
        Exception: It has ended otherwise.
    """
    inner = failure.original_exception if isinstance(failure, EventLoopException) else failure
    match inner:
        case MaxTokensReachedException():
            return StopReason.MAX_OUTPUT_TOKENS
        case ModelCallsSpent():
            return StopReason.MAX_MODEL_CALLS
        case OutputInvalid():
            return StopReason.OUTPUT_INVALID
    raise failure
