"""Agent profiles: what one kind of agent is told, may use and may spend."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from strands.types.tools import AgentTool

from godoty_service.agents.calculator import calculator
from godoty_service.agents.current_time import current_time

ASSISTANT_PROMPT = (
    "You are a helpful assistant. Answer briefly and directly, in the language of the question. "
    "Use the calculator for arithmetic and current_time for dates and times instead of guessing. "
    "Say so when you do not know something."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProfile:
    """One kind of agent.

    Attributes:
        name: Its name in requests, ledger entries and traces.
        system_prompt: What it is told before every conversation.
        tools: What it may use, loaded once and shared by all turns.
        max_model_calls: Model calls that one turn may make, when the caller names no lower bound.
        window_size: Newest messages of a session that the model sees.
        summarize: What falls out of the window is summed up first, by a model call of its own.
    """

    name: str
    system_prompt: str
    tools: tuple[AgentTool, ...]
    max_model_calls: int = 25
    window_size: int = 40
    summarize: bool = False


def assistant(*, clock: Callable[[], datetime], window_size: int = 40, summarize: bool = False) -> AgentProfile:
    """The default profile.

    Args:
        clock: The present instant, with its zone.
        window_size: Newest messages of a session that the model sees.
        summarize: Whether what falls out of the window is summed up.
    """
    return AgentProfile(
        name="assistant",
        system_prompt=ASSISTANT_PROMPT,
        tools=(calculator, current_time(clock=clock)),
        window_size=window_size,
        summarize=summarize,
    )
