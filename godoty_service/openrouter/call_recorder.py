"""The seam between the model and its accounting: protocols that the `metering` package implements, and how calls end.

`openrouter` and `metering` do not import each other: `turns` passes a `TurnMeter` to the model.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import openai

from godoty_service.errors import GodotyError, ProviderError
from godoty_service.ledger.entries import CallPurpose, ModelCall
from godoty_service.openrouter import errors
from godoty_service.openrouter.decoding.stream_decoder import StreamDecoder
from godoty_service.pricing.attached import NOTHING_ATTACHED, AttachedInput
from godoty_service.pricing.server_tools import ServerToolUse


class OpenCall(Protocol):
    """A request with a ledger entry that is not closed yet; see `metering/open_call.py`."""

    @property
    def sent(self) -> bool:
        """Whether sending the request has begun."""

    @property
    def output_limit(self) -> int | None:
        """The `max_tokens` that the request must carry; None: none."""

    @property
    def clamped(self) -> bool:
        """Whether a budget lowered that limit."""

    def sending(self) -> None:
        """Mark the request as being sent: from here on it may cost."""

    def set_generation_id(self, generation_id: str) -> None:
        """Store the provider's id at once, without waiting for the write."""

    def first_token(self) -> None:
        """Record the time of the first token."""

    async def void(self, error: GodotyError) -> ModelCall:
        """Close a call that was provably never sent."""

    async def refused(self, error: GodotyError) -> ModelCall:
        """Close a call that the provider rejected without a generation: it cost nothing."""

    async def answered(
        self,
        *,
        usage: Mapping[str, object] | None,
        served_model: str | None,
        provider: str | None,
        finish_reason: str | None,
        error: GodotyError | None,
        interrupted: bool = False,
    ) -> ModelCall:
        """Settle a call by its stream; without a cost in it, defer it to reconciliation.

        Args:
            usage: The reported usage; None: there was none.
            served_model: The served model, as the provider named it.
            provider: The provider's name.
            finish_reason: Why the answer ended; None: it did not, or no reason came.
            error: Why the call failed.
            interrupted: Whether the turn left the answer before its end: its usage until then is less than what it
                costs.
        """


class Meter(Protocol):
    """Inserts a ledger entry before each request of a turn; see `metering/meter.py`."""

    async def open(
        self,
        *,
        model: str,
        fallback_models: tuple[str, ...],
        request_bytes: int,
        max_output_tokens: int | None,
        max_price: Mapping[str, str] | None,
        attempt: int,
        purpose: CallPurpose,
        server_tools: Sequence[ServerToolUse] = (),
        attached: AttachedInput = NOTHING_ATTACHED,
    ) -> OpenCall:
        """Insert an entry durably; only then may its request be sent.

        Raises:
            StorageUnavailable: The entry could not be inserted: the request must not be sent.
        """


async def close_answered(call: OpenCall, decoder: StreamDecoder, *, interrupted: bool = False) -> Any:
    """Close a call with its answer; an answer that is an error alone is a rejection, with any HTTP status."""
    if isinstance(decoder.error, ProviderError) and decoder.refused:
        return await call.refused(decoder.error)
    return await call.answered(
        usage=decoder.final_usage,
        served_model=decoder.served_model,
        provider=decoder.provider,
        finish_reason=decoder.finish_reason,
        error=decoder.error,
        interrupted=interrupted,
    )


async def close_unanswered(call: OpenCall, failure: Exception, error: GodotyError) -> Any:
    """Close a call whose request failed: it was never sent, was rejected by the provider, or its outcome is unknown.

    A provider that has got no whole request, because an attachment could not be read, has made no answer.
    """
    if not call.sent:
        return await call.void(error)
    if errors.is_free_rejection(failure) or not isinstance(error, ProviderError):
        return await call.refused(error)
    if isinstance(failure, openai.APIStatusError) and (found := errors.generation_id(failure.response.headers)):
        call.set_generation_id(found)
    usage = errors.usage_of(failure)
    return await call.answered(usage=usage, served_model=None, provider=None, finish_reason=None, error=error)
