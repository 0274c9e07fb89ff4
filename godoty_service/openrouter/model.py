"""The Strands model that speaks to OpenRouter and lets nothing leave that is not in the ledger."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Any, NoReturn, cast

import httpx2 as httpx
import openai
from pydantic_core import to_json
from strands.models.openai import OpenAIModel
from strands.types.content import Message, Messages, SystemContentBlock
from strands.types.event_loop import Metrics, Usage
from strands.types.exceptions import ContextWindowOverflowException, MaxTokensReachedException
from strands.types.streaming import StreamEvent
from strands.types.tools import ToolChoice, ToolSpec

from godoty_service.errors import ContextWindowExceeded, GodotyError, ModelUnavailable, ProviderError, TurnTooLarge
from godoty_service.openrouter import failures
from godoty_service.openrouter.answer import Answer, Listener
from godoty_service.openrouter.client import OpenRouterClient
from godoty_service.openrouter.limits import AnswerLimits
from godoty_service.openrouter.metered import Meter, OpenCall
from godoty_service.openrouter.portable import MAKER, Portable
from godoty_service.openrouter.reading import Reading
from godoty_service.openrouter.reasoning import details_of, maker_of
from godoty_service.openrouter.transport import SENDING

LISTENER = "listener"  # in the invocation state: who hears the answer of the agent's own calls, not of a summary's
MAX_ATTEMPTS = 3
_CUT: StreamEvent = {"messageStop": {"stopReason": "max_tokens"}}
_NO_ANSWER = "[blank text]"  # what Strands says in place of an empty answer
_MOST_TOKENS = 10**9  # of one call
_LONGEST_WAIT = 20.0  # seconds; a provider that asks for more is not waited for


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTerms:
    """The limits of one call, as budgets are when it is made.

    Attributes:
        max_output_tokens: The tokens that it may answer; None: no bound.
        provider: The routing preferences of a call whose price is bounded, `max_price` among them; None: it is not.
    """

    max_output_tokens: int | None = None
    provider: dict[str, Any] | None = None


class OpenRouterModel(OpenAIModel):
    """A model for one turn: it retries before the first token only, and counts the tokens it has left.

    Its stream holds, beside Strands' own events, one `{"modelCall": …}` for each request it made: the ledger's
    entry, as the meter returned it.

    Attributes:
        cut_by_budget: Whether an answer to the agent ended at a limit that a budget or `max_cost_usd` had lowered.
    """

    def __init__(
        self,
        *,
        client: OpenRouterClient,
        meter: Meter,
        model: str,
        fallback_models: tuple[str, ...] = (),
        max_output_tokens: int | None = None,
        side_output_tokens: int | None = None,
        call_terms: Callable[[int], Awaitable[CallTerms]] | None = None,
        user: str | None = None,
        session_key: str | None = None,
        context_window: int | None = None,
        maker: Callable[[str | None], str] | None = None,
        provider: dict[str, Any] | None = None,
        limits: AnswerLimits | None = None,
    ) -> None:
        """Build the model.

        Args:
            client: The shared client.
            meter: Writes each request ahead.
            model: The model to ask.
            fallback_models: Models to try when it cannot answer, in order.
            max_output_tokens: Tokens that all of the agent's own calls together may answer.
            side_output_tokens: Tokens that one other call (a summary) may answer.
            call_terms: Returns the limits that one call carries, by the bytes of its request; None: it carries none.
            user: The end user, as the provider may know him: pseudonymous.
            session_key: Pins the provider, which keeps prompt caches warm: pseudonymous, too.
            context_window: Tokens that the model takes in all.
            maker: Returns which of the models served, by the name that the answer gives; None: the first.
            provider: Routing preferences, as OpenRouter takes them.
            limits: Bounds of what is kept of an answer.
        """
        super().__init__(client=cast("Any", client), model_id=model, context_window_limit=context_window)
        self._client = client
        self._secrets = (client.api_key,)
        self._meter = meter
        self._model = model
        self._fallback_models = fallback_models
        self._output_left = max_output_tokens
        self._side_output = side_output_tokens
        self._call_terms = call_terms
        self._provider = provider
        self._limits = limits or AnswerLimits()
        self._extra = {
            **({"models": [model, *fallback_models]} if fallback_models else {}),
            **({"user": user} if user else {}),
            **({"session_id": session_key} if session_key else {}),
        }
        self._portable = Portable((model, *fallback_models))
        self._maker = maker or (lambda _: model)
        self._readings: set[Reading] = set()
        self.cut_by_budget = False

    async def stream(
        self,
        messages: Messages,
        tool_specs: list[ToolSpec] | None = None,
        system_prompt: str | None = None,
        *,
        tool_choice: ToolChoice | None = None,
        system_prompt_content: list[SystemContentBlock] | None = None,
        invocation_state: dict[str, Any] | None = None,
        **_: Any,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Ask the model and stream its answer; the listener in the invocation state hears it piece by piece.

        Raises:
            ProviderError: The provider failed, and a retry did not help or could not be made.
            StorageUnavailable: The ledger entry could not be written; nothing was sent.
        """
        request = self._request(messages, tool_specs, system_prompt, tool_choice, system_prompt_content)
        listener: Listener | None = (invocation_state or {}).get(LISTENER)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            call = await self._open(request, attempt, side=listener is None)
            if listener is not None:
                listener.asking()
            answer = Answer(
                listener, limits=self._limits, taken_ids=lambda: _tool_call_ids(messages), secrets=self._secrets
            )
            try:
                async with aclosing(self._attempt(call, request, answer, side=listener is None)) as events:
                    async for event in events:
                        yield event
            except ContextWindowExceeded as error:
                # Strands makes the history smaller on its own error, and asks again: one more entry.
                raise ContextWindowOverflowException(error.text) from error
            except ProviderError as error:
                wait = _wait(error, attempt)
                if answer.has_output or not error.retryable or wait is None:
                    raise
                await asyncio.sleep(wait)
            else:
                return

    async def structured_output(self, *_: Any, **__: Any) -> NoReturn:  # type: ignore[override] # it never yields
        """Refuse: this way goes past `stream`, and so past the ledger. `structured_output_model=` does not.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("Use Agent(structured_output_model=...), which is metered.")

    async def aclose(self) -> None:
        """Close the connections that a turn which ended early left open."""
        while self._readings:
            await self._readings.pop().aclose()

    async def _open(self, request: dict[str, Any], attempt: int, *, side: bool) -> OpenCall:
        """Write a call ahead; its request says how many tokens it may answer.

        Raises:
            MaxTokensReachedException: The turn has no output tokens left.
        """
        size = len(to_json(request))
        left = self._side_output if side else self._output_left
        if left is not None and left < 1:
            raise MaxTokensReachedException("The turn has no output tokens left.")
        terms = await self._call_terms(size) if self._call_terms is not None else CallTerms()
        limit = min((each for each in (left, terms.max_output_tokens) if each is not None), default=None)
        call = await self._meter.open(
            model=self._model,
            fallback_models=self._fallback_models,
            request_bytes=size,
            max_output_tokens=limit,
            max_price=(terms.provider or {}).get("max_price"),
            attempt=attempt,
        )
        carried = {"max_tokens": call.output_limit, "provider": terms.provider or self._provider}
        request.update({name: value for name, value in carried.items() if value})
        return call

    async def _attempt(
        self, call: OpenCall, request: dict[str, Any], answer: Answer, *, side: bool
    ) -> AsyncGenerator[StreamEvent, None]:
        """Send one request and stream its answer; the call is closed before the last event or the error."""
        error: GodotyError | None = None
        closing: list[StreamEvent] = []
        metrics = Metrics(latencyMs=0)
        start_time = time.monotonic()
        try:
            response = await self._send(call, request)
        except (openai.APIError, httpx.HTTPError) as failure:
            error = failures.from_exception(failure, secrets=self._secrets)
            entry = await _close_unanswered(call, failure, error)
        else:
            reading = Reading(call, response, answer, drain_seconds=self._limits.drain_seconds)
            self._readings.add(reading)
            try:
                async with aclosing(reading.events()) as events:
                    async for event in events:
                        yield event
            except asyncio.CancelledError:
                if answer.usage is not None:  # what it cost has come, whatever was still to come
                    await _close_answered(call, answer)
                raise
            self._readings.discard(reading)
            metrics = _metrics(start_time, first_time=reading.first_output_time, end_time=time.monotonic())
            closing = _closing(answer, self._maker(answer.served_model))
            error = answer.error
            entry = await _close_answered(call, answer)
        yield cast("StreamEvent", {"modelCall": entry})
        if error is not None:
            if isinstance(error, ModelUnavailable):
                error.metadata.setdefault("model", self._model)
            raise error
        usage = _strands_usage(answer)
        self.cut_by_budget |= call.clamped and not side and _CUT in closing
        if self._output_left is not None and not side:
            self._output_left = max(0, self._output_left - usage["outputTokens"])
        for event in closing:
            yield event
        yield {"metadata": {"usage": usage, "metrics": metrics}}

    async def _send(self, call: OpenCall, request: dict[str, Any]) -> httpx.Response:
        """Send a request; the call hears when it leaves. Returns the response as soon as its headers are here."""
        leaving = SENDING.set(call.sending)
        try:
            return await self._client.complete({**request, **self._extra})
        finally:
            SENDING.reset(leaving)

    def _request(
        self,
        messages: Messages,
        tool_specs: list[ToolSpec] | None,
        system_prompt: str | None,
        tool_choice: ToolChoice | None,
        system_prompt_content: list[SystemContentBlock] | None,
    ) -> dict[str, Any]:
        request = self.format_request(
            messages, tool_specs, system_prompt, tool_choice, system_prompt_content=system_prompt_content
        )
        if not request["tools"]:
            del request["tools"]  # some providers refuse an empty list
        request["messages"] = self._portable.messages(request["messages"])
        return request

    @classmethod
    def _format_regular_messages(cls, messages: Messages, **kwargs: Any) -> list[dict[str, Any]]:
        """Format messages as Strands does, and give each answer its `reasoning_details` back."""
        formatted: list[dict[str, Any]] = []
        for message in messages:
            details = details_of(message)
            content = [block for block in message["content"] if "reasoningContent" not in block]
            if not content:
                content = [{"text": _NO_ANSWER}]  # it only reasoned; without its turn, the user had two in a row
            plain = super()._format_regular_messages([Message(role=message["role"], content=content)], **kwargs)
            if details and plain[-1]["role"] == "assistant":
                plain[-1] |= {"reasoning_details": details, MAKER: maker_of(message)}
            formatted.extend(plain)
        return formatted


def _closing(answer: Answer, maker: str) -> list[StreamEvent]:
    """Return the last events of an answer; one that is too large becomes an error."""
    try:
        return answer.end(maker=maker) if answer.error is None else []
    except TurnTooLarge as error:
        answer.fail(error)
        return []


def _tool_call_ids(messages: Messages) -> set[str]:
    return {block["toolUse"]["toolUseId"] for message in messages for block in message["content"] if "toolUse" in block}


async def _close_answered(call: OpenCall, answer: Answer) -> Any:
    """Close a call with what came of its answer; an error and nothing else is a refusal, whatever its status."""
    if isinstance(answer.error, ProviderError) and answer.refused:
        return await call.refused(answer.error)
    return await call.answered(
        usage=answer.final_usage,
        served_model=answer.served_model,
        provider=answer.provider,
        finish_reason=answer.finish_reason,
        error=answer.error,
    )


async def _close_unanswered(call: OpenCall, failure: Exception, error: ProviderError) -> Any:
    """Close a call whose request failed: never sent, refused by the provider, or nobody knows."""
    if not call.sent:
        return await call.void(error)
    if failures.refused_cleanly(failure):
        return await call.refused(error)
    if isinstance(failure, openai.APIStatusError) and (found := failures.generation_id(failure.response.headers)):
        call.heard(found)
    usage = failures.usage_of(failure)
    return await call.answered(usage=usage, served_model=None, provider=None, finish_reason=None, error=error)


def _wait(error: ProviderError, attempt: int) -> float | None:
    """Tell how many seconds to wait before the next attempt; None: make none."""
    if attempt == MAX_ATTEMPTS or (error.retry_after or 0.0) > _LONGEST_WAIT:
        return None
    backoff: float = 0.25 * 2.0**attempt * (0.5 + random.random())  # noqa: S311 - it spreads load, it keeps no secret
    return max(backoff, error.retry_after or 0.0)


def _metrics(start_time: float, *, first_time: float | None, end_time: float) -> Metrics:
    """Return how long a request took, in whole milliseconds, begun ones included: 0 would stand for "not measured"."""
    metrics = Metrics(latencyMs=ceil((end_time - start_time) * 1000))
    if first_time is not None:
        metrics["timeToFirstByteMs"] = ceil((first_time - start_time) * 1000)
    return metrics


def _strands_usage(answer: Answer) -> Usage:
    """Return the tokens as Strands counts them, for its limits; what they cost stands in the ledger."""
    usage = answer.usage or {}
    inputs = _count(usage, "prompt_tokens", "input_tokens") or 0
    outputs = _count(usage, "completion_tokens", "output_tokens") or 0
    counted = Usage(inputTokens=inputs, outputTokens=outputs, totalTokens=inputs + outputs)
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    details = details if isinstance(details, dict) else {}
    if (read := _count(details, "cached_tokens")) is not None:
        counted["cacheReadInputTokens"] = read
    if (written := _count(details, "cache_write_tokens")) is not None:
        counted["cacheWriteInputTokens"] = written
    return counted


def _count(usage: dict[str, Any], *names: str) -> int | None:
    """Read the first known counter; one that is no whole number, or absurd, is not known."""
    for name in names:
        value = usage.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
            continue
        if 0 <= value <= _MOST_TOKENS and value == int(value):
            return int(value)
    return None
