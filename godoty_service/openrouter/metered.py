"""What the model tells whoever keeps the money. The metering room implements it; `server.py` brings them together."""

from collections.abc import Mapping
from typing import Any, Protocol

from godoty_service.errors import GodotyError


class OpenCall(Protocol):
    """A request that stands in the ledger and is not settled yet."""

    @property
    def sent(self) -> bool:
        """Whether its request has begun to leave."""

    @property
    def output_limit(self) -> int | None:
        """The `max_tokens` that the request must carry; None: none."""

    @property
    def clamped(self) -> bool:
        """Whether what a budget has left made that fewer than what was asked for."""

    def sending(self) -> None:
        """Say that the request leaves now: from here on it may cost."""

    def heard(self, generation_id: str) -> None:
        """Keep the provider's id at once, without waiting for the write."""

    def first_token(self) -> None:
        """Note the time of the first token."""

    async def void(self, error: GodotyError) -> Any:
        """Close a call that was provably never sent."""

    async def refused(self, error: GodotyError) -> Any:
        """Close a call to which the provider itself said no, with no generation behind it: it cost nothing."""

    async def answered(
        self,
        *,
        usage: dict[str, Any] | None,
        served_model: str | None,
        provider: str | None,
        finish_reason: str | None,
        error: GodotyError | None,
    ) -> Any:
        """Close a call with what the stream told; without a usage object it is left to reconciliation."""


class Meter(Protocol):
    """Writes each request of a turn ahead."""

    async def open(
        self,
        *,
        model: str,
        fallback_models: tuple[str, ...],
        request_bytes: int,
        max_output_tokens: int | None,
        max_price: Mapping[str, str] | None,
        attempt: int,
    ) -> OpenCall:
        """Make the entry durable; only then may the request be sent.

        Raises:
            StorageUnavailable: It could not be written: the request must not be sent.
        """
