"""What a turn tells whoever measures."""

from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Protocol

from godoty_service.errors import ProviderError
from godoty_service.metering.call import ModelCall


class Observer(Protocol):
    """Counts turns and calls; `server.py` hands one over."""

    def running_turn(self) -> AbstractContextManager[None]:
        """Count a turn as running for as long as it does."""

    def call_closed(self, call: ModelCall) -> None:
        """Count a call that closed."""

    def call_ended(self, call: ModelCall) -> None:
        """Measure a call whose request has ended, whether its cost is known or not."""

    def cycle_ended(self, provider: str | None, duration: timedelta) -> None:
        """Measure a cycle of the agent's loop, whose model call this provider served."""

    def provider_failed(self, error: ProviderError, *, provider_key_id: str) -> None:
        """Count a failure of the provider, towards whoever speaks with this key."""
