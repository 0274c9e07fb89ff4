"""A turn of a conversation, as its readers see it: a task that writes an event log."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from godoty_service.errors import GodotyError
from godoty_service.openrouter.accounts import Access
from godoty_service.tenancy.policy import NO_POLICY
from godoty_service.turns.events import StreamEvent
from godoty_service.turns.log import EventLog


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """What a caller says. None and empty: not said.

    Attributes:
        session_id: The caller's id of the session, or ours where he named none.
        text: What the user says.
        model: The model to ask.
        fallback_models: Models to try when it cannot answer.
        max_model_calls: How often the agent may call the model.
        max_output_tokens: How many tokens all calls together may answer.
        max_cost: What all calls together may cost, in US dollars.
        user: The tenant's end user.
        request_id: Makes a retry safe.
        fingerprint: Tells this request from another with the same id.
        wait: Wait while another turn of the session is running.
        go_on: Go on when nobody reads any more.
        new_session: The caller named none.
    """

    session_id: str
    text: str
    model: str | None = None
    fallback_models: tuple[str, ...] = ()
    max_model_calls: int | None = None
    max_output_tokens: int | None = None
    max_cost: Decimal | None = None
    user: str | None = None
    request_id: str | None = None
    fingerprint: str = ""
    wait: bool = False
    go_on: bool = False
    new_session: bool = False


class Turn:
    """A turn that runs in this server, or has just ended."""

    def __init__(
        self, *, tenant_id: str, turn_id: str, request: TurnRequest, epoch: int, key_id: str | None = None
    ) -> None:
        """Make a turn.

        Args:
            tenant_id: Whose it is.
            key_id: The API key that started it; None: none did, and none can be revoked.
            turn_id: Our id of it.
            request: What was said.
            epoch: The server's epoch in which it claims its session.
        """
        self.tenant_id = tenant_id
        self.key_id = key_id
        self.key_ended = False  # revoked or expired since: the turn makes no further model call
        self.turn_id = turn_id
        self.request = request
        self.epoch = epoch
        self.policy = NO_POLICY
        self.account: Access | None = None  # who pays, once it is known
        self.log = EventLog()
        self.task: asyncio.Task[None] | None = None
        self.cancelled_by: GodotyError | None = None
        self.begun = False  # it may have been written down
        self.started = False  # it holds its session
        self._closing = False

    @property
    def paid_by(self) -> Access:
        """The account that pays for its calls.

        Raises:
            RuntimeError: It was not admitted yet.
        """
        if self.account is None:
            raise RuntimeError("a turn calls no model before it is admitted")
        return self.account

    def events(
        self, *, after: int = 0, heartbeat: timedelta = timedelta()
    ) -> AsyncGenerator[tuple[int, StreamEvent], None]:
        """Read the turn, as `EventLog.read` does.

        Raises:
            GodotyError: The turn failed.
        """
        return self.log.read(after=after, heartbeat=heartbeat)

    @property
    def unread(self) -> bool:
        """Whether it has lost its last reader here and is to end with him; that in line goes on for nobody."""
        goes_on = self.request.go_on and (self.log.sequence > 0 or not self.request.wait)
        return self.log.readers == 0 and not (goes_on or self._closing or self.log.ended)

    def close(self) -> None:
        """Say that the turn is on its way out, however it ended: from here on no cancel interrupts it."""
        self._closing = True

    def cancel(self, why: GodotyError | None = None) -> None:
        """End the turn now, unless it is on its way out already.

        Args:
            why: What its readers are told; None: that it was cancelled.
        """
        if self.task is not None and not self._closing and not self.log.ended:
            self.close()
            self.cancelled_by = why
            self.task.cancel()
