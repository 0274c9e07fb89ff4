"""Agent profiles: the prompt, the tools and the window of one kind of agent."""

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
        system_prompt: The prompt before every conversation.
        tools: Its tools, loaded once and shared by all turns.
        window_size: The number of newest messages that the model sees.
        summarize: Messages that fall out of the window are summarized first, by a model call.
    """

    name: str
    system_prompt: str
    tools: tuple[AgentTool, ...]
    window_size: int = 40
    summarize: bool = False


def assistant(*, clock: Callable[[], datetime], window_size: int = 40, summarize: bool = False) -> AgentProfile:
    """Return the default profile.

    Args:
        clock: Returns the current time, with its zone.
        window_size: The number of newest messages that the model sees.
        summarize: Summarize messages that fall out of the window.
    """
    return AgentProfile(
        name="assistant",
        system_prompt=ASSISTANT_PROMPT,
        tools=(calculator, current_time(clock=clock)),
        window_size=window_size,
        summarize=summarize,
    )
