"""The clients: `Godoty`, whose calls block, and `AsyncGodoty`, for an event loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import grpc

from godoty.actions.answers import Responder
from godoty.actions.tools import Tool, ToolRegistry
from godoty.connection import AsyncConnection, Connection
from godoty.environment import endpoint
from godoty.subjects import Subjects
from godoty.turns.async_turn import AsyncTurn
from godoty.turns.options import ConverseOptions
from godoty.turns.progress import TurnProgress, responder_of
from godoty.turns.request import SchemaModel, output_of, prepare
from godoty.turns.turn import Turn

TIMEOUT = 30.0
DISCONNECT_GRACE = 30.0
CONNECT_TIMEOUT = 10.0

_M = TypeVar("_M", bound=SchemaModel)


@dataclass(frozen=True)
class RetryPolicy:
    """How long a client waits for a connection, in seconds.

    Attributes:
        disconnect_grace: For one that was lost during a turn; as long the server lets the turn run on.
        connect_timeout: For one at the beginning of a turn.
    """

    disconnect_grace: float
    connect_timeout: float

    def progress(
        self,
        text: str,
        options: ConverseOptions,
        schema: type[Any] | Mapping[str, Any] | str | None,
        tools: Mapping[str, Tool],
    ) -> TurnProgress[Any]:
        """Return the progress of a new turn."""
        output = output_of(schema) if schema is not None else None
        responder = responder_of(options, Responder(dict(tools)))
        prepared = prepare(text, options, output=output, disconnect_grace=self.disconnect_grace, responder=responder)
        return TurnProgress(
            prepared,
            output=output,
            responder=responder,
            disconnect_grace=self.disconnect_grace,
            connect_timeout=self.connect_timeout,
        )

    def progress_of(self, turn_id: str, after: int, tools: Mapping[str, Tool]) -> TurnProgress[None]:
        """Return the progress of a turn that runs already, or has ended."""
        return TurnProgress(
            None,
            turn_id=turn_id,
            after=after,
            responder=Responder(dict(tools)),
            disconnect_grace=self.disconnect_grace,
            connect_timeout=self.connect_timeout,
        )


class Godoty(ToolRegistry, Subjects[Connection]):
    """A connection to Godoty whose calls block; a context manager that closes it. Threads may share it.

    Every method raises a `GodotyError` if its call fails.

    Args:
        target: The server, as "host:port". None: GODOTY_LISTEN, else 127.0.0.1:50051.
        api_key: The API key. It is sent with each call and never shown in a text. None: GODOTY_API_KEY.
        tls: True: always TLS, False: always plain text; credentials: TLS with these credentials. None: by GODOTY_TLS,
            GODOTY_TLS_CA, GODOTY_TLS_CLIENT_CERT and GODOTY_TLS_CLIENT_KEY; without them, plain text to this
            machine and TLS to any other.
        timeout: Deadline of a call other than a turn, in seconds.
        disconnect_grace: How long a turn whose connection was lost is resumed, and runs on without a reader, in
            seconds, at most 600. 0: a lost connection ends the turn.
        connect_timeout: How long a turn that has not begun waits for a server, in seconds.

    Raises:
        ValueError: The key is missing or cannot be sent.
    """

    def __init__(
        self,
        target: str | None = None,
        api_key: str | None = None,
        *,
        tls: bool | grpc.ChannelCredentials | None = None,
        timeout: float = TIMEOUT,
        disconnect_grace: float = DISCONNECT_GRACE,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        at = endpoint(target, api_key, tls)
        ToolRegistry.__init__(self)
        Subjects.__init__(self, Connection(at, timeout=timeout))
        self._retry_policy = RetryPolicy(disconnect_grace, connect_timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the turns that have not ended, and close the connection."""
        for turn in list(self._connection.turns):
            turn.close()
        self._connection.close()

    @overload
    def converse(self, text: str = "", *, output_schema: type[_M], **options: Unpack[ConverseOptions]) -> Turn[_M]: ...
    @overload
    def converse(
        self, text: str = "", *, output_schema: Mapping[str, Any] | str, **options: Unpack[ConverseOptions]
    ) -> Turn[Any]: ...
    @overload
    def converse(
        self, text: str = "", *, output_schema: None = None, **options: Unpack[ConverseOptions]
    ) -> Turn[None]: ...
    def converse(
        self,
        text: str = "",
        *,
        output_schema: type[Any] | Mapping[str, Any] | str | None = None,
        **options: Unpack[ConverseOptions],
    ) -> Turn[Any]:
        """Return a turn: iterate over it for its events, or `wait()` for its end. Nothing is sent before.

        Args:
            text: The user's message; empty with `action_results`.
            output_schema: What the turn's `output` is: a pydantic class, or a JSON schema as dict or JSON text.
            options: See `ConverseOptions`.
        """
        return Turn(self._connection, self._retry_policy.progress(text, options, output_schema, self.tools))

    def resume(self, turn_id: str, *, after_sequence: int = 0) -> Turn[None]:
        """Return a turn that was started before, with its events after a sequence; leaving it does not cancel it."""
        return Turn(self._connection, self._retry_policy.progress_of(turn_id, after_sequence, self.tools))


class AsyncGodoty(ToolRegistry, Subjects[AsyncConnection]):
    """A connection to Godoty for the event loop in which it is first used; an asynchronous context manager.

    The arguments and the methods are those of `Godoty`; calls are awaited.
    """

    def __init__(
        self,
        target: str | None = None,
        api_key: str | None = None,
        *,
        tls: bool | grpc.ChannelCredentials | None = None,
        timeout: float = TIMEOUT,
        disconnect_grace: float = DISCONNECT_GRACE,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        at = endpoint(target, api_key, tls)
        ToolRegistry.__init__(self)
        Subjects.__init__(self, AsyncConnection(at, timeout=timeout))
        self._retry_policy = RetryPolicy(disconnect_grace, connect_timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel the turns that have not ended, and close the connection."""
        for turn in list(self._connection.turns):
            await turn.close()
        await self._connection.close()

    @overload
    def converse(
        self, text: str = "", *, output_schema: type[_M], **options: Unpack[ConverseOptions]
    ) -> AsyncTurn[_M]: ...
    @overload
    def converse(
        self, text: str = "", *, output_schema: Mapping[str, Any] | str, **options: Unpack[ConverseOptions]
    ) -> AsyncTurn[Any]: ...
    @overload
    def converse(
        self, text: str = "", *, output_schema: None = None, **options: Unpack[ConverseOptions]
    ) -> AsyncTurn[None]: ...
    def converse(
        self,
        text: str = "",
        *,
        output_schema: type[Any] | Mapping[str, Any] | str | None = None,
        **options: Unpack[ConverseOptions],
    ) -> AsyncTurn[Any]:
        """Return a turn: iterate over it for its events, or await `wait()` for its end. Nothing is sent before.

        Args:
            text: The user's message; empty with `action_results`.
            output_schema: What the turn's `output` is: a pydantic class, or a JSON schema as dict or JSON text.
            options: See `ConverseOptions`.
        """
        return AsyncTurn(self._connection, self._retry_policy.progress(text, options, output_schema, self.tools))

    def resume(self, turn_id: str, *, after_sequence: int = 0) -> AsyncTurn[None]:
        """Return a turn that was started before, with its events after a sequence; leaving it does not cancel it."""
        return AsyncTurn(self._connection, self._retry_policy.progress_of(turn_id, after_sequence, self.tools))
