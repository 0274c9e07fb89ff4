"""The seam between the model and its accounting, as protocols that the `metering` package implements.

`openrouter` and `metering` do not import each other: `turns` passes a `TurnMeter` to the model.
"""

from collections.abc import Mapping
from typing import Protocol

from godoty_service.errors import GodotyError
from godoty_service.ledger.entries import CallPurpose, ModelCall


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
    ) -> OpenCall:
        """Insert an entry durably; only then may its request be sent.

        Raises:
            StorageUnavailable: The entry could not be inserted: the request must not be sent.
        """
