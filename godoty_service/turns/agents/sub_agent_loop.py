"""Runs the loop of a sub-agent, and returns what the calling model gets of it."""

from contextlib import aclosing
from typing import Any, Final

from strands import Agent
from strands.types.agent import Limits
from strands.types.exceptions import EventLoopException, MaxTokensReachedException

from godoty_service.turns.agents.listeners import CallListener

_NOTES: Final = {
    "max_tokens": "[The answer ended here: the limit of output tokens was reached.]",
    "limit_output_tokens": "[The answer ended here: the limit of output tokens was reached.]",
    "limit_turns": "[The answer ended here: the limit of model calls was reached.]",
    "content_filtered": "[The answer was stopped by the provider's filter.]",
    "guardrail_intervened": "[The answer was stopped by the provider's filter.]",
}


async def run_loop(
    agent: Agent, task: str | None, invocation: dict[str, Any], listener: CallListener, *, limits: Limits
) -> str | None:
    """Run an agent's loop; return its last text, with a note if a limit has cut it, or None: it waits."""
    reason = ""
    try:
        async with aclosing(
            agent.stream_async(task, limits=limits, invocation_state=invocation)  # type: ignore[type-var] # it is an asynchronous generator
        ) as events:
            async for event in events:
                if (result := event.get("result")) is not None:
                    reason = result.stop_reason
                else:
                    listener.on_event(event)
    except (MaxTokensReachedException, EventLoopException) as failure:
        if not isinstance(cause_of(failure), MaxTokensReachedException) or not _last_text(agent):
            raise
        reason = "max_tokens"
    if reason == "interrupt":
        return None
    return "\n".join(filter(None, (_last_text(agent), _NOTES.get(reason)))) or "[The agent gave no text.]"


def cause_of(failure: Exception) -> Exception:
    """Return the error that Strands wrapped, or the error itself."""
    return failure.original_exception if isinstance(failure, EventLoopException) else failure


def _last_text(agent: Agent) -> str:
    """Return the text of the last message, if it is the agent's own."""
    last = agent.messages[-1] if agent.messages else None
    if last is None or last["role"] != "assistant":
        return ""
    return "".join(block["text"] for block in last["content"] if "text" in block)
