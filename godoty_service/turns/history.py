"""Loads the history that a model sees, keeps it within its window, and makes it fit after a context overflow.

The window is Strands' sliding window, or a summary of the messages that fall out of it. An overflow is answered in two
steps, by the catalogue's context length: the first keeps what fits if a token is two bytes, as it is at least in most
texts; the second keeps what fits if each byte is a token, which always fits. If the context length is unknown, the
steps halve and quarter the history.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from strands.agent import Agent
from strands.agent.conversation_manager import SlidingWindowConversationManager
from strands.experimental.context_manager import ContextManager, ContextState, Offload
from strands.types.content import Message, Messages
from strands.types.exceptions import ContextWindowOverflowException

from godoty_service.agents.profile import AgentProfile
from godoty_service.attachments.blocks import attachments_in
from godoty_service.sessions import history_repair
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.session import Claim, HistorySummary
from godoty_service.sessions.strands_session_manager import MongoSessionManager
from godoty_service.turns.recovery import LoggedTurn, complete_dead_turns

_BYTES_PER_TOKEN = (2, 1)  # by step
_ANSWER_SHARE = 4  # one part in this many of the context is reserved for the answer
_EXCERPT = 200  # characters that remain at either end of a shortened tool result
_MIN_BYTES = 512  # of a history; no step goes below
_ATTACHMENT_BYTES = 8 * 1024  # that an attachment counts: models take about one to four thousand tokens for an image


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The part of a session that the model sees.

    Attributes:
        head: The messages in place of the oldest ones: a summary or a note; may be empty.
        messages: The newest messages; the last of them has the number `last_number`.
        last_number: The number of the session's last message; 0 if it has none.
    """

    head: Messages
    messages: Messages
    last_number: int


EMPTY_HISTORY = History(head=[], messages=[], last_number=0)


async def load_history(
    store: MessageStore,
    claim: Claim,
    *,
    size: int,
    logged: Mapping[str, LoggedTurn] = MappingProxyType({}),
    last_number: int | None = None,
) -> History:
    """Read the window that the model sees, after completing the messages of dead turns.

    Args:
        store: The messages.
        claim: The acquired session.
        size: The number of messages that the model sees.
        logged: What the event logs of dead turns show, by turn id.
        last_number: The number of the session's last message, if its messages need no completion.

    Raises:
        SessionLost: A turn that was considered dead is still writing.
    """
    session, summary = claim.session, claim.session.summary
    if last_number is None and claim.taken_from is not None:
        dead = (*claim.taken_from.predecessors, claim.taken_from)
        last_number = await complete_dead_turns(store, session, dead, logged)
    if last_number is None:
        last_number = session.message_count
    messages = await store.window(
        session.tenant_id,
        session.uid,
        # More messages than a window follow a summary only after a turn with very many tool calls.
        size=size if summary is None else 4 * size,
        after=summary.after if summary is not None else 0,
    )
    if summary is not None and last_number - summary.after == len(messages):  # they follow the summary without a gap
        head = [Message(role=each["role"], content=each["content"]) for each in summary.head]
        return History(head=head, messages=messages, last_number=last_number)
    if found := history_repair.window(messages):
        return History(head=[], messages=found, last_number=last_number)
    found = history_repair.assistant_suffix(messages)
    head = [Message(role="user", content=[{"text": history_repair.LEFT_OUT}])] if found else []
    return History(head=head, messages=found, last_number=last_number)


class OverflowTrimmer:
    """Trims one turn's history to the model's context.

    Attributes:
        trimmed: Whether the history was trimmed.
    """

    def __init__(self, *, context_tokens: int | None, fixed_bytes: Callable[[], int]) -> None:
        """Initialize the trimmer.

        Args:
            context_tokens: The model's context length; None: unknown.
            fixed_bytes: Returns the bytes of each request beside the history: the system prompt and the tool specs.
                It is called if the history overflows: most turns need no count.
        """
        self._context_tokens = context_tokens
        self._fixed_bytes = fixed_bytes
        self._steps = 0
        self.trimmed = False

    def trim(self, messages: Messages) -> bool:
        """Trim a history in place; return False if nothing is left to remove."""
        sizes = [_size(message) for message in messages]
        limit = self._limit(sum(sizes))
        self._steps += 1
        cut = _first_fitting(messages, sizes, limit)
        changed = cut > 0
        del messages[:cut]
        if sum(sizes[cut:]) > limit:
            changed |= _shorten_results(messages, limit)
        self.trimmed |= changed
        return changed

    def _limit(self, size: int) -> int:
        """Return the maximum bytes of the history at this step."""
        step = min(self._steps, len(_BYTES_PER_TOKEN) - 1)
        limit = size // (2 * (step + 1))  # the catalogue may be wrong: each step makes the history smaller
        if self._context_tokens is not None:
            tokens = self._context_tokens - self._context_tokens // _ANSWER_SHARE
            limit = min(limit, tokens * _BYTES_PER_TOKEN[step] - self._fixed_bytes())
        return max(limit, _MIN_BYTES)


class TrimmedWindow(SlidingWindowConversationManager):
    """Strands' sliding window, with overflows answered by the trimmer.

    A turn's own agent has its window when the turn begins. A sub-agent begins with nothing, and what it adds may be
    more than the window: so its window slides before each model call, and its task, the first message, remains.
    """

    def __init__(self, window_size: int, trimmer: OverflowTrimmer, *, sub_agent: bool = False) -> None:
        super().__init__(window_size=window_size, per_turn=sub_agent, pin_first=1 if sub_agent else None)
        self._trimmer = trimmer

    def reduce_context(self, agent: Agent, e: Exception | None = None, **kwargs: Any) -> None:
        """Trim the agent's history.

        Raises:
            ContextWindowOverflowException: The history does not fit, and nothing is left to remove.
        """
        if e is None:
            super().reduce_context(agent, **kwargs)
        elif not self._trimmer.trim(agent.messages):
            raise ContextWindowOverflowException(str(e)) from e


class TrimOnOverflow:
    """The trimmer as a strategy of Strands' context manager, for use beside a summary."""

    name = "godoty:trim-on-overflow"

    def __init__(self, trimmer: OverflowTrimmer) -> None:
        self._trimmer = trimmer

    async def apply(self, context: ContextState) -> bool:
        """Trim the history after an overflow; return whether it changed."""
        return context.overflow and self._trimmer.trim(context.messages)


class SummaryOfOldest:
    """Summarizes the older half of a history that has outgrown its window, with Strands' own strategy.

    The summary's model call goes through the turn's model, and so through the ledger.
    """

    name = "godoty:summary-of-oldest"

    def __init__(self, window_size: int) -> None:
        self._window_size = window_size
        # With a utilization threshold it summarizes whole messages in one call; without, each block in its own call.
        self._summarize = Offload.summarize("*").when(utilization=1.0, preserve_recent=window_size // 2)

    async def apply(self, context: ContextState) -> bool:
        """Summarize if there are too many messages; return whether it did.

        A history that does not fit the model is trimmed instead.
        """
        if len(context.messages) <= self._window_size or context.overflow:
            return False
        # With `overflow` set it runs regardless of the utilization.
        return await self._summarize.apply(replace(context, overflow=True))


def history_management(profile: AgentProfile, trimmer: OverflowTrimmer, *, sub_agent: bool) -> dict[str, Any]:
    """Return the arguments of `Agent` that keep its history within the window and the model's context."""
    if profile.summarize:
        summary, trim = SummaryOfOldest(profile.window_size), TrimOnOverflow(trimmer)
        return {"context_manager": ContextManager(strategies=[summary, trim], stash=False)}
    return {"conversation_manager": TrimmedWindow(profile.window_size, trimmer, sub_agent=sub_agent)}


def summary_after_turn(manager: MongoSessionManager, messages: Messages, *, trimmed: bool) -> HistorySummary | None:
    """Return the replacement of a session's oldest messages after a turn; None if no message is replaced.

    Args:
        manager: The session manager, with the number of each stored message.
        messages: The history as the model would see it next.
        trimmed: Whether messages were dropped because they did not fit the model, in this turn or an earlier one;
            they stay dropped.
    """
    head_length, expected = len(messages), manager.last_number
    while head_length and manager.number_of(messages[head_length - 1]) == expected:
        head_length -= 1
        expected -= 1
    if head_length == 0 and not (trimmed and expected > 0):
        return None
    return HistorySummary(
        head=[{"role": each["role"], "content": each["content"]} for each in messages[:head_length]], after=expected
    )


def _first_fitting(messages: Messages, sizes: list[int], limit: int) -> int:
    """Return the index of the oldest user text from which the history fits, else of the newest user text."""
    starts = [index for index, message in enumerate(messages) if _is_user_text(message)]
    fitting = (index for index in starts if sum(sizes[index:]) <= limit)
    return next(fitting, starts[-1] if starts else 0)


def _is_user_text(message: Message) -> bool:
    return message["role"] == "user" and not any("toolResult" in block for block in message["content"])


def _shorten_results(messages: Messages, limit: int) -> bool:
    """Shorten tool results, the oldest first, until the history fits; return whether any was shortened."""
    size, changed = sum(map(_size, messages)), False
    for index, message in enumerate(messages):
        if size <= limit:
            break
        shorter = Message(role=message["role"], content=[_shortened(block) for block in message["content"]])
        if (less := _size(message) - _size(shorter)) > 0:
            messages[index] = shorter
            size, changed = size - less, True
    return changed


def _shortened(block: Any) -> Any:
    if "toolResult" not in block:
        return block
    result = block["toolResult"]
    return {"toolResult": {**result, "content": [_excerpt(each) for each in result["content"]]}}


def _excerpt(content: Any) -> Any:
    """Shorten a text, or a value as its JSON text, to its start and its end."""
    text = content["text"] if "text" in content else json.dumps(content.get("json"), ensure_ascii=False, default=str)
    if len(text) <= 3 * _EXCERPT:
        return content
    omitted = len(text) - 2 * _EXCERPT
    return {"text": f"{text[:_EXCERPT]}\n[{omitted} characters are left out here.]\n{text[-_EXCERPT:]}"}


def _size(message: Message) -> int:
    """Return a message's bytes as JSON, which is about what it takes in a request; its attachments count beside."""
    text = json.dumps(message["content"], ensure_ascii=False, default=str)
    return len(text.encode("utf-8", "replace")) + _ATTACHMENT_BYTES * sum(1 for _ in attachments_in([message]))
