"""The Strands model for OpenRouter; it sends no request that is not in the ledger."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from math import ceil
from typing import Any, NoReturn, TypedDict, cast

import httpx2 as httpx
import openai
from pydantic_core import to_json
from strands.models.openai import OpenAIModel
from strands.types.content import ContentBlock, Message, Messages, SystemContentBlock
from strands.types.event_loop import Metrics
from strands.types.exceptions import ContextWindowOverflowException
from strands.types.streaming import StreamEvent
from strands.types.tools import ToolChoice, ToolSpec

from godoty_service.attachments.embedding import Embedding, EmbeddingRules, message_part, replace_attachments
from godoty_service.errors import ContextWindowExceeded, GodotyError, ModelUnavailable, ProviderError, TurnTooLarge
from godoty_service.ledger.entries import CallPurpose
from godoty_service.openrouter import errors
from godoty_service.openrouter.call_limits import CallLimits, CallTerms, Reservation, fit_reasoning
from godoty_service.openrouter.call_recorder import Meter, OpenCall, close_answered, close_unanswered
from godoty_service.openrouter.client import OpenRouterClient, RequestBody
from godoty_service.openrouter.decoding.chunk import AnswerLimits, strands_usage
from godoty_service.openrouter.decoding.reasoning_details import details_of, maker_of
from godoty_service.openrouter.decoding.stream_decoder import Listener, StreamDecoder
from godoty_service.openrouter.message_normalizer import BLANK_TEXT, MAKER, MessageNormalizer
from godoty_service.openrouter.response_reader import ResponseReader
from godoty_service.openrouter.tool_calls_as_text import tool_calls_as_text
from godoty_service.pricing.attached import NOTHING_ATTACHED
from godoty_service.pricing.parameter_support import ParameterSupport
from godoty_service.pricing.server_tools import NO_OFFER, ServerToolOffer

LISTENER = "listener"  # in the invocation state: receives the answers to the agent's own calls, not to a summary's
MAX_ATTEMPTS = 3
_CUT: StreamEvent = {"messageStop": {"stopReason": "max_tokens"}}
_MAX_WAIT = 20.0  # seconds; no retry follows a longer `Retry-After`


class OpenRouterModel(OpenAIModel):
    """A model for one turn: it retries only before the first token, and counts the remaining output tokens.

    Beside Strands' own events, its stream has one `{"modelCall": …}` for each request: the ledger's entry, as the meter
    returned it.

    Attributes:
        cut_by_budget: Whether an answer to the agent ended at a limit that a budget or `max_cost_usd` had lowered.
        purpose: What the agent's own calls are for.
        output: The value that the agent has answered with by its output schema, as JSON; None: there is none.
    """

    class OpenAIConfig(TypedDict, total=False):
        """What is configured in Strands, which reads these hints for each model: fewer take less time."""

        model_id: str
        context_window_limit: int | None

    def __init__(
        self,
        *,
        client: OpenRouterClient,
        meter: Meter,
        model: str,
        fallback_models: tuple[str, ...] = (),
        max_output_tokens: int | None = None,
        call_limits: CallLimits | None = None,
        call_output_tokens: int | None = None,
        side_output_tokens: int | None = None,
        parameters: Mapping[str, Any] | None = None,
        server_tools: ServerToolOffer = NO_OFFER,
        call_terms: Callable[[int], Awaitable[CallTerms]] | None = None,
        user: str | None = None,
        session_key: str | None = None,
        context_window: int | None = None,
        maker: Callable[[str | None], str] | None = None,
        provider: dict[str, Any] | None = None,
        supported_parameters: frozenset[str] = frozenset(),
        limits: AnswerLimits | None = None,
        embedding: Callable[[], EmbeddingRules] | None = None,
    ) -> None:
        """Build the model.

        Args:
            client: Sends the requests.
            meter: Inserts each request into the ledger before it is sent.
            model: The requested model.
            fallback_models: Models to try if it cannot answer, in order.
            max_output_tokens: Output tokens of all of the agent's own calls together, unless `call_limits` are given.
            call_limits: What the agent's own calls may still use; other agents of the turn share it. None: its own.
            call_output_tokens: Output tokens of one of the agent's own calls.
            side_output_tokens: Output tokens of one other call (a summary).
            parameters: Further fields of the agent's own requests, such as `temperature`. Their `provider` holds where
                the routing preferences say nothing.
            server_tools: Tools that the provider runs, for the agent's own requests.
            call_terms: Returns the limits of one call, by the bytes of its request; None: calls have no limits.
            user: A pseudonym of the end user, for the provider.
            session_key: A pseudonym of the session; it pins the provider, which keeps prompt caches warm.
            context_window: Largest number of input and output tokens of the model.
            maker: Returns which of the models served, by the model name in the answer; None: the first.
            provider: Routing preferences, in OpenRouter's form.
            supported_parameters: The parameters that providers may be required to support (`ParameterSupport`).
            limits: Bounds of what is retained of an answer.
            embedding: Returns what requests may carry beside text; None: notes take the place of attachments.
        """
        super().__init__(client=client.openai, model_id=model, context_window_limit=context_window)
        self._client = client
        self._secrets = (client.api_key,)
        self._meter = meter
        self._model = model
        self._fallback_models = fallback_models
        self._call_limits = call_limits or CallLimits(output_tokens=max_output_tokens)
        self._call_output = call_output_tokens
        self._side_output = side_output_tokens
        self._parameters = dict(parameters or {})
        self._server_tools = server_tools
        self._call_terms = call_terms
        self._provider = provider
        self._support = ParameterSupport(supported_parameters)
        self._limits = limits or AnswerLimits()
        self._embedding = embedding
        self._extra = {
            **({"models": [model, *fallback_models]} if fallback_models else {}),
            **({"user": user} if user else {}),
            **({"session_id": session_key} if session_key else {}),
        }
        self._normalizer = MessageNormalizer((model, *fallback_models))
        self._maker = maker or (lambda _: model)
        self._readers: set[ResponseReader] = set()
        self.cut_by_budget = False
        self.purpose = CallPurpose.AGENT
        self.output: str | None = None

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
        """Request an answer and stream it; the listener in the invocation state receives it piece by piece.

        Raises:
            ProviderError: The provider failed, and a retry failed or was not possible.
            StorageUnavailable: The ledger entry could not be inserted, or an attachment not read; nothing was sent.
            ModelCallsSpent: No model call is left.
            MaxTokensReachedException: No output tokens are left.
        """
        listener: Listener | None = (invocation_state or {}).get(LISTENER)
        shown, embedding = await replace_attachments(messages, None if listener is None else self._embedding)
        request = self._request(shown, tool_specs, system_prompt, tool_choice, system_prompt_content)
        request |= embedding.fields if embedding is not None else {}
        if listener is not None:
            self._add_own_fields(request)
            self._call_limits.take_call()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            decoder = StreamDecoder(
                listener, limits=self._limits, taken_ids=lambda: _tool_call_ids(messages), secrets=self._secrets
            )
            try:
                async with aclosing(self._attempt(request, attempt, decoder, listener, embedding)) as events:
                    async for event in events:
                        yield event
            except ContextWindowExceeded as error:
                # On its own error Strands shortens the history and requests again, which is one more entry.
                if listener is not None:
                    self._call_limits.return_call()
                raise ContextWindowOverflowException(error.text) from error
            except ProviderError as error:
                if attempt < MAX_ATTEMPTS and self._support.give_up(request, error):
                    continue
                wait = _wait(error, attempt)
                if decoder.has_output or not error.retryable or wait is None:
                    raise
                await asyncio.sleep(wait)
            else:
                return

    async def count_tokens(
        self,
        messages: Messages,
        tool_specs: list[ToolSpec] | None = None,  # noqa: ARG002 - Strands' signature
        system_prompt: str | None = None,
        system_prompt_content: list[SystemContentBlock] | None = None,
    ) -> int:
        """Estimate the tokens of a prompt as Strands does before each call, without its tools: nothing here reads them.

        Strands encodes each tool as JSON for it, which takes 2 ms for 100 tools.
        """
        return await super().count_tokens(messages, None, system_prompt, system_prompt_content)

    async def structured_output(self, *_: Any, **__: Any) -> NoReturn:  # type: ignore[override] # it never yields
        """Refuse: this method bypasses `stream`, and so the ledger. `structured_output_model=` does not.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("Use Agent(structured_output_model=...), which is metered.")

    async def aclose(self) -> None:
        """Close the connections of responses that were not read to their end."""
        while self._readers:
            await self._readers.pop().aclose()

    async def _open(
        self, request: dict[str, Any], attempt: int, reserved: Reservation | None, embedding: Embedding | None
    ) -> OpenCall:
        """Insert a call into the ledger, and set its limits in the request.

        Args:
            request: The request.
            attempt: Its number among those for one answer, from 1.
            reserved: Its output tokens; None: it is a side call, such as a summary.
            embedding: Its attachments, for which it has placeholders.
        """
        side, size = reserved is None, len(to_json(request))
        attached = embedding.bound if embedding is not None else NOTHING_ATTACHED
        remaining = self._side_output if reserved is None else reserved.tokens
        terms = await self._call_terms(size + attached.tokens) if self._call_terms is not None else CallTerms()
        bounds = (remaining, None if side else self._call_output, terms.max_output_tokens)
        limit = min((each for each in bounds if each is not None), default=None)
        call = await self._meter.open(
            model=self._model,
            fallback_models=self._fallback_models,
            request_bytes=size,
            max_output_tokens=limit,
            max_price=(terms.provider or {}).get("max_price"),
            attempt=attempt,
            purpose=CallPurpose.SUMMARY if side else self.purpose,
            server_tools=() if side else self._server_tools.uses,
            attached=attached,
        )
        if reserved is not None:
            reserved.lower(call.output_limit)
        request |= {"max_tokens": call.output_limit} if call.output_limit else {}
        fit_reasoning(request)
        request.pop("provider", None)  # of the attempt before
        own = {} if side else self._parameters.get("provider", {})
        if routing := self._support.routing(request, {**own, **(terms.provider or self._provider or {})}):
            request["provider"] = routing
        return call

    async def _attempt(
        self,
        request: dict[str, Any],
        attempt: int,
        decoder: StreamDecoder,
        listener: Listener | None,
        embedding: Embedding | None,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Open a call, send its request and stream its answer."""
        reserved = await self._call_limits.reserve() if listener is not None else None
        try:
            call = await self._open(request, attempt, reserved, embedding)
            if listener is not None:
                # The request is written in the event loop's next round: what readers get now must not delay it.
                loop = asyncio.get_running_loop()
                loop.call_soon(loop.call_soon, listener.on_request)
            async with aclosing(self._send(call, request, decoder, reserved, embedding)) as events:
                async for event in events:
                    yield event
        finally:
            if reserved is not None:
                reserved.release()

    async def _send(
        self,
        call: OpenCall,
        request: dict[str, Any],
        decoder: StreamDecoder,
        reserved: Reservation | None,
        embedding: Embedding | None,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Send one request and stream its answer; the call is closed before the last event or the error."""
        error: GodotyError | None = None
        closing: list[StreamEvent] = []
        metrics = Metrics(latencyMs=0)
        start_time = time.monotonic()
        body = RequestBody({**request, **self._extra}, embedding)
        try:
            response = await self._client.complete(body, on_sending=call.sending)
        except (openai.APIError, httpx.HTTPError) as failure:
            error = body.failure or errors.from_exception(failure, secrets=self._secrets)
            entry = await close_unanswered(call, failure, error)
        else:
            reader = ResponseReader(call, response, decoder, drain_seconds=self._limits.drain_seconds)
            self._readers.add(reader)
            try:
                async with aclosing(reader.events()) as events:
                    async for event in events:
                        yield event
            except asyncio.CancelledError:
                if decoder.usage is not None:  # its cost is known, even though the answer is not complete
                    await close_answered(call, decoder, interrupted=decoder.finish_reason is None)
                raise
            self._readers.discard(reader)
            metrics = _metrics(start_time, first_time=reader.first_output_time, end_time=time.monotonic())
            closing = _closing(decoder, self._maker(decoder.served_model))
            error = decoder.error
            entry = await close_answered(call, decoder)
        yield cast("StreamEvent", {"modelCall": entry})
        if error is not None:
            if isinstance(error, ModelUnavailable):
                error.metadata.setdefault("model", self._model)
            try:
                raise error
            finally:
                error = None  # else the error and this frame, which its traceback has, wait for a garbage collection
        usage = strands_usage(decoder.usage or {})
        if reserved is not None:
            self.cut_by_budget |= call.clamped and _CUT in closing
            reserved.release(used=usage["outputTokens"])
        for event in closing:
            yield event
        yield {"metadata": {"usage": usage, "metrics": metrics}}

    def _request(
        self,
        messages: Messages,
        tool_specs: list[ToolSpec] | None,
        system_prompt: str | None,
        tool_choice: ToolChoice | None,
        system_prompt_content: list[SystemContentBlock] | None,
    ) -> dict[str, Any]:
        """Format a request as Strands does, with messages that the models' providers accept."""
        request = self.format_request(
            messages, tool_specs, system_prompt, tool_choice, system_prompt_content=system_prompt_content
        )
        if not request["tools"]:
            del request["tools"]  # some providers reject an empty list
            request["messages"] = tool_calls_as_text(request["messages"])
        request["messages"] = self._normalizer.normalize(request["messages"])
        return request

    def _add_own_fields(self, request: dict[str, Any]) -> None:
        """Add what the agent's own requests alone have: its parameters, and the tools that the provider runs."""
        request |= self._parameters
        if tools := self._server_tools.entries:
            request["tools"] = [*request.get("tools", ()), *tools]

    @classmethod
    def format_request_message_content(cls, content: ContentBlock, **kwargs: Any) -> dict[str, Any]:
        """Format a content block as Strands does, and one with an attachment's placeholder."""
        return message_part(content) or super().format_request_message_content(content, **kwargs)

    @classmethod
    def _format_regular_messages(cls, messages: Messages, **kwargs: Any) -> list[dict[str, Any]]:
        """Format messages as Strands does, and restore the `reasoning_details` of each answer."""
        formatted: list[dict[str, Any]] = []
        for message in messages:
            details = details_of(message)
            content = [block for block in message["content"] if "reasoningContent" not in block]
            if not content:
                content = [{"text": BLANK_TEXT}]  # it only reasoned; without it, two user messages would be adjacent
            plain = super()._format_regular_messages([Message(role=message["role"], content=content)], **kwargs)
            if details and plain[-1]["role"] == "assistant":
                plain[-1] |= {"reasoning_details": details, MAKER: maker_of(message)}
            formatted.extend(plain)
        return formatted


def _closing(decoder: StreamDecoder, maker: str) -> list[StreamEvent]:
    """Return the last events of an answer; fail an answer that is too large."""
    try:
        return decoder.end(maker=maker) if decoder.error is None else []
    except TurnTooLarge as error:
        decoder.fail(error)
        return []


def _tool_call_ids(messages: Messages) -> set[str]:
    return {block["toolUse"]["toolUseId"] for message in messages for block in message["content"] if "toolUse" in block}


def _wait(error: ProviderError, attempt: int) -> float | None:
    """Return the seconds to wait before the next attempt; None: make none."""
    if attempt == MAX_ATTEMPTS or (error.retry_after or 0.0) > _MAX_WAIT:
        return None
    backoff: float = 0.25 * 2.0**attempt * (0.5 + random.random())  # noqa: S311 - it spreads load, it is no secret
    return max(backoff, error.retry_after or 0.0)


def _metrics(start_time: float, *, first_time: float | None, end_time: float) -> Metrics:
    """Return how long a request took, in milliseconds rounded up: 0 would mean "not measured"."""
    metrics = Metrics(latencyMs=ceil((end_time - start_time) * 1000))
    if first_time is not None:
        metrics["timeToFirstByteMs"] = ceil((first_time - start_time) * 1000)
    return metrics
