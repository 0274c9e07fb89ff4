"""What the model calls of a turn may still use: one count for all of its agents, which may call models side by side."""

import asyncio
from dataclasses import dataclass
from typing import Any

from strands.types.exceptions import MaxTokensReachedException


class ModelCallsSpent(Exception):
    """The turn, or the sub-agent, may make no further model call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTerms:
    """The limits of one call, from the budgets at the time of the call.

    Attributes:
        max_output_tokens: Largest number of output tokens; None: unbounded.
        provider: Routing preferences that bound the price, with `max_price`; None: the price is unbounded.
    """

    max_output_tokens: int | None = None
    provider: dict[str, Any] | None = None


@dataclass(slots=True)
class Limit:
    """What one agent, with those that it calls, may still use. None: unlimited.

    Attributes:
        model_calls: The number of calls.
        tokens: The number of output tokens.
        reserved: The number of these that open requests have reserved.
    """

    model_calls: int | None
    tokens: int | None
    reserved: int = 0

    @property
    def free(self) -> int:
        """The number of output tokens that no request has reserved; 0 if they are unlimited."""
        return (self.tokens or 0) - self.reserved


class CallLimits:
    """The model calls and output tokens of an agent: within its own limit, and within those of its callers.

    Attributes:
        limits: The agent's limit and those of its callers.
        released: Set when reserved tokens are released.
    """

    def __init__(
        self,
        *,
        model_calls: int | None = None,
        output_tokens: int | None = None,
        caller: "CallLimits | None" = None,
    ) -> None:
        """Create it.

        Args:
            model_calls: Maximum number of model calls, without summaries and retries; None: unlimited.
            output_tokens: Maximum number of output tokens of these calls; None: unlimited.
            caller: The limits of the agent that calls this one; None: it is the turn's own agent.
        """
        own = Limit(model_calls, output_tokens)
        self.limits: tuple[Limit, ...] = (own, *caller.limits) if caller is not None else (own,)
        self.released: asyncio.Event = caller.released if caller is not None else asyncio.Event()

    def take_call(self) -> None:
        """Count a model call.

        Raises:
            ModelCallsSpent: There are none left.
        """
        if any(each.model_calls is not None and each.model_calls < 1 for each in self.limits):
            raise ModelCallsSpent("The turn has no model calls left.")
        self._add_calls(-1)

    def return_call(self) -> None:
        """Count a call as not made: its request is repeated."""
        self._add_calls(1)

    async def reserve(self) -> "Reservation":
        """Reserve the output tokens that are left, for one request; wait while other requests have reserved them all.

        Raises:
            MaxTokensReachedException: There are none left.
        """
        limits = [each for each in self.limits if each.tokens is not None]
        while True:
            tokens = min((each.free for each in limits), default=None)
            if tokens is None or tokens > 0:
                for each in limits:
                    each.reserved += tokens or 0
                return Reservation(self, limits, tokens)
            if not all(each.reserved for each in limits if each.free < 1):
                raise MaxTokensReachedException("The turn has no output tokens left.")
            self.released.clear()
            await self.released.wait()

    def _add_calls(self, number: int) -> None:
        for each in self.limits:
            if each.model_calls is not None:
                each.model_calls += number


class Reservation:
    """Output tokens that are reserved for one request.

    Attributes:
        tokens: Their number; None: they are unlimited, or released.
    """

    def __init__(self, call_limits: CallLimits, limits: list[Limit], tokens: int | None) -> None:
        self.tokens = tokens
        self._call_limits = call_limits
        self._limits = limits

    def lower(self, tokens: int | None) -> None:
        """Release what exceeds the limit that the request has; None: it has none."""
        if self.tokens is not None and tokens is not None and tokens < self.tokens:
            for each in self._limits:
                each.reserved -= self.tokens - tokens
            self.tokens = tokens
            self._call_limits.released.set()

    def release(self, used: int = 0) -> None:
        """Release the tokens, and subtract those that were used. A second call changes nothing."""
        if self.tokens is None:
            return
        for each in self._limits:
            each.reserved -= self.tokens
            each.tokens = max(0, (each.tokens or 0) - used)
        self.tokens = None
        self._call_limits.released.set()


def fit_reasoning(request: dict[str, Any]) -> None:
    """Lower the tokens of reasoning in a request to half of its output tokens, if they leave none for the answer."""
    wanted, limit = request.get("reasoning", {}).get("max_tokens"), request.get("max_tokens")
    if wanted is not None and limit is not None and wanted >= limit:
        request["reasoning"] = {"max_tokens": max(1, limit // 2)}
