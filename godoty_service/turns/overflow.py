"""Makes a history fit the model after it was refused for its length: in two steps, by the listing's context length.

The first step keeps what fits if a token is two bytes, which it is at least in most texts; the second keeps what fits
if each byte is a token, which always fits. Where the context length is not known, the steps halve and quarter.
"""

import json
from typing import Any

from strands.agent import Agent
from strands.agent.conversation_manager import SlidingWindowConversationManager
from strands.experimental.context_manager import ContextState
from strands.types.content import Message, Messages
from strands.types.exceptions import ContextWindowOverflowException

_BYTES_PER_TOKEN = (2, 1)  # by step
_FOR_ANSWER = 4  # the share of the context that is left for the answer: one in so many
_EXCERPT = 200  # characters of a tool's result that stay at either end
_LEAST = 512  # bytes of a history below which no step goes


class OverflowTrimmer:
    """Trims one turn's history.

    Attributes:
        trimmed: Whether it had to.
    """

    def __init__(self, *, context_tokens: int | None, fixed_bytes: int) -> None:
        """Build it.

        Args:
            context_tokens: What the model takes in all; None: not known.
            fixed_bytes: What each request holds beside the history: the system prompt and the tools.
        """
        self._context_tokens = context_tokens
        self._fixed_bytes = fixed_bytes
        self._steps = 0
        self.trimmed = False

    def trim(self, messages: Messages) -> bool:
        """Trim a history in place; return False if there is nothing left to take away."""
        sizes = [_size(message) for message in messages]
        limit = self._limit(sum(sizes))
        self._steps += 1
        cut = _first_that_fits(messages, sizes, limit)
        changed = cut > 0
        del messages[:cut]
        if sum(sizes[cut:]) > limit:
            changed |= _shorten_results(messages, limit)
        self.trimmed |= changed
        return changed

    def _limit(self, size: int) -> int:
        """Return the bytes that the history may have at this step."""
        step = min(self._steps, len(_BYTES_PER_TOKEN) - 1)
        limit = size // (2 * (step + 1))  # a listing may be wrong: each step makes it smaller
        if self._context_tokens is not None:
            tokens = self._context_tokens - self._context_tokens // _FOR_ANSWER
            limit = min(limit, tokens * _BYTES_PER_TOKEN[step] - self._fixed_bytes)
        return max(limit, _LEAST)


class TrimmedWindow(SlidingWindowConversationManager):
    """Strands' sliding window; an overflow is answered by the trimmer."""

    def __init__(self, window_size: int, trimmer: OverflowTrimmer) -> None:
        super().__init__(window_size=window_size)
        self._trimmer = trimmer

    def reduce_context(self, agent: Agent, e: Exception | None = None, **kwargs: Any) -> None:
        """Trim the agent's history.

        Raises:
            ContextWindowOverflowException: It does not fit, and nothing is left to take away.
        """
        if e is None:
            super().reduce_context(agent, **kwargs)
        elif not self._trimmer.trim(agent.messages):
            raise ContextWindowOverflowException(str(e)) from e


class TrimOnOverflow:
    """The same as a strategy of Strands' context manager, beside one that sums up."""

    name = "godoty:trim-on-overflow"

    def __init__(self, trimmer: OverflowTrimmer) -> None:
        self._trimmer = trimmer

    async def apply(self, context: ContextState) -> bool:
        """Trim the history, if it did not fit."""
        return context.overflow and self._trimmer.trim(context.messages)


def _first_that_fits(messages: Messages, sizes: list[int], limit: int) -> int:
    """Return the place of the oldest words of the user from which on the history fits, or else of the newest."""
    places = [place for place, message in enumerate(messages) if _is_words_of_user(message)]
    fitting = (place for place in places if sum(sizes[place:]) <= limit)
    return next(fitting, places[-1] if places else 0)


def _is_words_of_user(message: Message) -> bool:
    return message["role"] == "user" and not any("toolResult" in block for block in message["content"])


def _shorten_results(messages: Messages, limit: int) -> bool:
    """Shorten tools' results, the oldest first, until the history fits; return whether any was."""
    size, changed = sum(map(_size, messages)), False
    for place, message in enumerate(messages):
        if size <= limit:
            break
        shorter = Message(role=message["role"], content=[_shorter(block) for block in message["content"]])
        if (less := _size(message) - _size(shorter)) > 0:
            messages[place] = shorter
            size, changed = size - less, True
    return changed


def _shorter(block: Any) -> Any:
    if "toolResult" not in block:
        return block
    result = block["toolResult"]
    return {"toolResult": {**result, "content": [_excerpt(each) for each in result["content"]]}}


def _excerpt(content: Any) -> Any:
    """Shorten a text, or a value as its JSON text, to its beginning and its end."""
    text = content["text"] if "text" in content else json.dumps(content.get("json"), ensure_ascii=False, default=str)
    if len(text) <= 3 * _EXCERPT:
        return content
    left_out = len(text) - 2 * _EXCERPT
    return {"text": f"{text[:_EXCERPT]}\n[{left_out} characters are left out here.]\n{text[-_EXCERPT:]}"}


def _size(message: Message) -> int:
    """Return a message's bytes as JSON, which is about what a request needs for it."""
    return len(json.dumps(message["content"], ensure_ascii=False, default=str).encode("utf-8", "replace"))
