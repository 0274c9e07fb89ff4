"""A turn as its caller sees it: an iterator of events, and a context manager that cancels it when it is left early."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpc
import grpc.aio

from godoty.connection import AsyncConnection, Connection
from godoty.errors import GodotyError
from godoty.operations.attachments import upload
from godoty.rpc_errors import decode
from godoty.turn_progress import TurnProgress, cancellation
from godoty.types import Citation, StopReason, TextDelta, Totals, TurnEvent, TurnFinished, TurnStarted

_O = TypeVar("_O")

_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined,unused-ignore]  # grpc-stubs lack it
_LEAVE_TIMEOUT = 5.0  # seconds: without an answer the turn is cancelled by the server, after its grace


class TurnView(Generic[_O]):
    """What is known of a turn, whether it still runs or has ended."""

    def __init__(self, progress: TurnProgress[_O]) -> None:
        self._progress = progress

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.turn_id or 'not begun'} of session {self.session_id or 'not known yet'}>"

    @property
    def turn_id(self) -> str:
        """The turn's id; empty until its first event has come."""
        return self._progress.turn_id

    @property
    def session_id(self) -> str:
        """The session's id; empty until `TurnStarted` has come, unless `converse` was given one."""
        return self._progress.session_id

    @property
    def request_id(self) -> str:
        """The request id, by which a repeated request is not charged again."""
        return self._progress.request_id

    @property
    def sequence(self) -> int:
        """The sequence of the last event, after which `resume` continues."""
        return self._progress.cursor

    @property
    def text(self) -> str:
        """The text of the answer so far; of `wait()`, the whole one."""
        return self._progress.text

    @property
    def reasoning(self) -> str:
        """The text of the model's reasoning so far."""
        return self._progress.reasoning

    @property
    def citations(self) -> tuple[Citation, ...]:
        """The web pages that the answer cites so far."""
        return tuple(self._progress.citations)

    @property
    def output(self) -> _O | None:
        """The turn's value by its output schema; of a pydantic class, its instance. None: there is none (yet)."""
        return self._progress.output

    @property
    def cost(self) -> Decimal | None:
        """The cost of the turn in US dollars. None: the turn has not ended, or the cost of a call is not known yet."""
        return self._progress.cost

    @property
    def totals(self) -> Totals | None:
        """Cost and usage of the turn. None: it has not ended."""
        return self.finished.turn_totals if self.finished is not None else None

    @property
    def session_totals(self) -> Totals | None:
        """Cost and usage of the session with this turn. None: the turn has not ended."""
        return self.finished.session_totals if self.finished is not None else None

    @property
    def stop_reason(self) -> StopReason | None:
        """The reason why the turn ended. None: it has not ended, or ended with an error."""
        return self.finished.stop_reason if self.finished is not None else None

    @property
    def started(self) -> TurnStarted | None:
        """The event of its start. None: it has not come."""
        return self._progress.started

    @property
    def finished(self) -> TurnFinished | None:
        """The event of its end. None: it has not come."""
        return self._progress.finished

    @property
    def connected(self) -> bool:
        """False while a lost connection is made again."""
        return self._progress.connected

    @property
    def lost_connections(self) -> int:
        """How often the connection was lost, and made again or not, since the turn began."""
        return self._progress.lost_connections


class Turn(TurnView[_O]):
    """A turn of a blocking client.

    Iterating sends the request and returns the events, `TurnStarted` first, `TurnFinished` last. A connection that is
    lost is resumed without a doubled or lost event. Leaving the `with` block, or the last reference to the turn, before
    its end cancels it.
    """

    def __init__(self, connection: Connection, progress: TurnProgress[_O]) -> None:
        super().__init__(progress)
        self._connection = connection
        self._call: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[TurnEvent]:
        return self

    def __next__(self) -> TurnEvent:
        while not self._progress.ended:
            event = self._read()
            if event is not None:
                return event
        self._read_status()
        raise StopIteration

    def __del__(self) -> None:
        _abandon(self._progress, self._call, self._connection)

    @property
    def text_stream(self) -> Iterator[str]:
        """The pieces of the answer's text as they arrive."""
        return (event.text for event in self if isinstance(event, TextDelta))

    def wait(self) -> Self:
        """Read the turn to its end, and return it.

        Raises:
            GodotyError: The turn failed.
        """
        try:
            for _ in self:
                pass
        except BaseException:
            self.close()
            raise
        return self

    def cancel(self) -> None:
        """Cancel the turn on the server, which then ends with `TurnCancelled`; what it has cost is charged."""
        if self.turn_id:
            self._connection.call(cancellation(self.turn_id))

    def close(self) -> None:
        """Cancel the turn unless it has ended, and end its stream."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        calls = self._progress.leave()
        with suppress(StopIteration, GodotyError):
            following = next(calls)
            while True:
                following = calls.send(self._connection.call(following, timeout=_LEAVE_TIMEOUT))

    def _read(self) -> TurnEvent | None:
        """Read one event; None: it is not one to be shown, or the connection broke and is to be made again."""
        try:
            if self._call is None:
                self._call = self._open()
            response = next(self._call, None)
        except grpc.RpcError as error:
            failure = decode(error)
            self._wait(lambda: self._progress.fail(failure))
            return None
        if response is None:
            self._wait(self._progress.end)
            return None
        return self._progress.receive(response.event)

    def _open(self) -> Any:
        for each in self._progress.pending_uploads():
            self._progress.uploaded(each, self._connection.call(upload(each.source)).attachment_id)
        call = self._progress.next_call()
        return self._connection.methods[call.method](
            call.request, metadata=self._connection.metadata, timeout=call.timeout
        )

    def _wait(self, failed: Callable[[], float]) -> None:
        self._call = None
        try:
            delay = failed()
        except GodotyError:
            self.close()
            raise
        time.sleep(delay)

    def _read_status(self) -> None:
        """Read the stream's end, so that the server does not see a cancelled call."""
        call, self._call = self._call, None
        if call is not None:
            with suppress(grpc.RpcError):
                next(call, None)


class AsyncTurn(TurnView[_O]):
    """A turn of an asynchronous client.

    Iterating sends the request and returns the events, `TurnStarted` first, `TurnFinished` last. A connection that is
    lost is resumed without a doubled or lost event. Leaving the `async with` block, or the last reference to the turn,
    before its end cancels it.
    """

    def __init__(self, connection: AsyncConnection, progress: TurnProgress[_O]) -> None:
        super().__init__(progress)
        self._connection = connection
        self._call: Any = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[TurnEvent]:
        return self

    async def __anext__(self) -> TurnEvent:
        while not self._progress.ended:
            event = await self._read()
            if event is not None:
                return event
        await self._read_status()
        raise StopAsyncIteration

    def __del__(self) -> None:
        _abandon(self._progress, self._call, self._connection)

    @property
    def text_stream(self) -> AsyncIterator[str]:
        """The pieces of the answer's text as they arrive."""
        return (event.text async for event in self if isinstance(event, TextDelta))

    async def wait(self) -> Self:
        """Read the turn to its end, and return it.

        Raises:
            GodotyError: The turn failed.
        """
        try:
            async for _ in self:
                pass
        except BaseException:
            await self.close()
            raise
        return self

    async def cancel(self) -> None:
        """Cancel the turn on the server, which then ends with `TurnCancelled`; what it has cost is charged."""
        if self.turn_id:
            await self._connection.call(cancellation(self.turn_id))

    async def close(self) -> None:
        """Cancel the turn unless it has ended, and end its stream."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        calls = self._progress.leave()
        # A StopIteration cannot pass a coroutine's `suppress` unchanged: it is caught here.
        try:
            following = next(calls)
            while True:
                following = calls.send(await self._connection.call(following, timeout=_LEAVE_TIMEOUT))
        except (StopIteration, GodotyError):
            return

    async def _read(self) -> TurnEvent | None:
        """Read one event; None: it is not one to be shown, or the connection broke and is to be made again."""
        try:
            if self._call is None:
                self._call = await self._open()
            response = await self._call.read()
        except grpc.RpcError as error:
            failure = decode(error)
            await self._wait(lambda: self._progress.fail(failure))
            return None
        except asyncio.CancelledError:
            self._call = None  # gRPC has cancelled the call; a later read resumes the turn
            raise
        if response is _EOF:
            await self._wait(self._progress.end)
            return None
        return self._progress.receive(response.event)

    async def _open(self) -> Any:
        for each in self._progress.pending_uploads():
            self._progress.uploaded(each, (await self._connection.call(upload(each.source))).attachment_id)
        call = self._progress.next_call()
        return self._connection.methods[call.method](
            call.request, metadata=self._connection.metadata, timeout=call.timeout
        )

    async def _wait(self, failed: Callable[[], float]) -> None:
        self._call = None
        try:
            delay = failed()
        except GodotyError:
            await self.close()
            raise
        await asyncio.sleep(delay)

    async def _read_status(self) -> None:
        """Read the stream's end, so that the server does not see a cancelled call."""
        call, self._call = self._call, None
        if call is not None:
            with suppress(grpc.RpcError):
                await call.read()


def _abandon(progress: TurnProgress[Any], call: Any, connection: Connection | AsyncConnection) -> None:
    """End a turn to which there is no reference any more, without waiting for it."""
    if call is not None:
        call.cancel()
    if progress.turn_id:
        for each in progress.leave():
            connection.send(each)
