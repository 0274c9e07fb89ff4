"""How a turn's history stays within its window: Strands' sliding window, or a summary of what falls out of it."""

from dataclasses import replace
from typing import Any

from strands.experimental.context_manager import ContextManager, ContextState, Offload
from strands.types.content import Messages

from godoty_service.agents.profile import AgentProfile
from godoty_service.sessions.manager import MongoSessionManager
from godoty_service.sessions.session import Context
from godoty_service.turns.overflow import OverflowTrimmer, TrimmedWindow, TrimOnOverflow


class SummaryOfOldest:
    """Sums up the older half of a history that has outgrown its window, by Strands' own means.

    The call that it takes goes through the turn's model, and so through the ledger.
    """

    name = "godoty:summary-of-oldest"

    def __init__(self, window_size: int) -> None:
        self._window_size = window_size
        # With a utilisation it sums up whole messages in one call; without, each block in a call of its own.
        self._summarize = Offload.summarize("*").when(utilization=1.0, preserve_recent=window_size // 2)

    async def apply(self, context: ContextState) -> bool:
        """Sum up, if there are too many messages; tells whether it did. A text too long for the model is trimmed."""
        if len(context.messages) <= self._window_size or context.overflow:
            return False
        # Told of an overflow, it fires whatever the utilisation is.
        return await self._summarize.apply(replace(context, overflow=True))


def management(profile: AgentProfile, trimmer: OverflowTrimmer) -> dict[str, Any]:
    """Tell an agent how to keep its history within the window, and what makes it fit the model."""
    if profile.summarize:
        summary, trim = SummaryOfOldest(profile.window_size), TrimOnOverflow(trimmer)
        return {"context_manager": ContextManager(strategies=[summary, trim], stash=False)}
    return {"conversation_manager": TrimmedWindow(profile.window_size, trimmer)}


def kept_context(manager: MongoSessionManager, messages: Messages, *, trimmed: bool) -> Context | None:
    """Tell what stands for the oldest messages after a turn: None where the newest are all there is.

    Args:
        manager: Knows the number of each message that is kept.
        messages: The history, as the model would see it next.
        trimmed: Whether what is left out did not fit the model, in this turn or before: it stays left out.
    """
    place, expected = len(messages), manager.last_number
    while place and manager.number_of(messages[place - 1]) == expected:
        place -= 1
        expected -= 1
    if place == 0 and not (trimmed and expected > 0):
        return None
    return Context(
        head=[{"role": each["role"], "content": each["content"]} for each in messages[:place]], after=expected
    )
