"""A turn of an asynchronous client: the same as `Turn`, in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio

from godoty.actions.answers import Question
from godoty.actions.calling import call_async
from godoty.connection import AsyncConnection
from godoty.errors import ConnectionFailed, GodotyError
from godoty.operations.attachments import upload
from godoty.rpc_errors import decode
from godoty.turns.options import TurnOptions
from godoty.turns.progress import TurnProgress, cancellation
from godoty.turns.view import LEAVE_TIMEOUT, TurnView, abandon
from godoty.types import TextDelta, TurnEvent

_O = TypeVar("_O")

_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined,unused-ignore]  # grpc-stubs lack it


class AsyncTurn(TurnView[_O]):
    """A turn of an asynchronous client.

    Iterating sends the request and returns the events, `TurnStarted` first, `TurnFinished` last. A connection that is
    lost is resumed without a doubled or lost event. Client tools run, and approvals are asked for, in between, and the
    turn goes on with the answers: its next events are another `TurnStarted` to `TurnFinished`. Leaving the `async with`
    block, or the last reference to the turn, before its end cancels it.
    """

    def __init__(self, connection: AsyncConnection, progress: TurnProgress[_O]) -> None:
        super().__init__(progress)
        self._connection = connection
        self._call: Any = None
        self._finished_call: Any = None
        connection.turns.add(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[TurnEvent]:
        return self

    async def __anext__(self) -> TurnEvent:
        progress = self._progress
        while not progress.ended:
            if progress.answering:
                await self._ask()
            event = await self._read()
            if event is not None:
                return event
        await self._read_status()
        raise StopAsyncIteration

    def __del__(self) -> None:
        abandon(self._progress, self._call, self._connection)

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

    def answer(self, answers: Mapping[str, object], **options: Unpack[TurnOptions]) -> AsyncTurn[_O]:
        """Return the turn that goes on with answers to `actions`: iterate over it, or await `wait()` for its end.

        Args:
            answers: By the id of an action: of an approval, a `Decision`; of a client tool, what a tool may return, an
                exception for an error, or `Deny`. Those that are left out, and approvals that are None, stay open.
            options: See `TurnOptions`; tools and approvals are those of this turn unless they are given.

        Raises:
            ValueError: There is no such action, or no answer.
            TypeError: An answer to an approval is no decision.
        """
        return AsyncTurn(self._connection, self._progress.continuation(answers, options))

    async def cancel(self) -> None:
        """Cancel the turn on the server, which then ends with `TurnCancelled`; what it has cost is charged."""
        if self.turn_id:
            await self._connection.call(cancellation(self.turn_id))

    async def close(self) -> None:
        """Cancel the turn unless it has ended, and end its stream."""
        for each in (self._call, self._finished_call):
            if each is not None:
                each.cancel()
        self._call = self._finished_call = None
        calls = self._progress.leave()
        # A StopIteration cannot pass a coroutine's `suppress` unchanged: it is caught here.
        try:
            following = next(calls)
            while True:
                following = calls.send(await self._connection.call(following, timeout=LEAVE_TIMEOUT))
        except (StopIteration, GodotyError):
            return

    async def _read(self) -> TurnEvent | None:
        """Read one event; None: it is not one to be shown, or the connection broke and is to be made again."""
        try:
            if self._call is None and not await self._open():
                return None
            response = await self._call.read()
        except (grpc.RpcError, ConnectionFailed) as error:
            failure = error if isinstance(error, ConnectionFailed) else decode(error)
            await self._wait(lambda: self._progress.fail(failure))
            return None
        except asyncio.CancelledError:
            self._call = None  # gRPC has cancelled the call; a later read resumes the turn
            raise
        if response is _EOF:
            await self._wait(self._progress.end)
            return None
        event = self._progress.receive(response.event)
        if self._progress.answering:
            self._finished_call, self._call = self._call, None
        return event

    async def _open(self) -> bool:
        """Make the next call; return whether there is one."""
        for each in self._progress.pending_uploads():
            try:
                each.complete(await self._connection.call(upload(each.source)))
            except GodotyError as error:
                each.fail(error)
        following = self._progress.next_call()
        if following is not None:
            self._call = self._connection.methods[following.method](
                following.request, metadata=self._connection.metadata, timeout=following.timeout
            )
        return following is not None

    async def _ask(self) -> None:
        """Call the caller's approvals, one after another, and then its tools, all at once."""
        await self._read_status()
        while (questions := self._progress.questions()) and not questions[0].is_tool:
            await self._ask_one(questions[0])
        await asyncio.gather(*(self._ask_one(each) for each in questions))

    async def _ask_one(self, question: Question) -> None:
        try:
            value = await call_async(question.function, question.timeout, asynchronous=question.asynchronous)
        except Exception as error:  # noqa: BLE001 - of a tool, it is for the model
            self._progress.unanswered(question, error)
        else:
            self._progress.answered(question, value)

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
        finished, self._finished_call = self._finished_call or self._call, None
        self._call = None
        if finished is not None:
            with suppress(grpc.RpcError):
                await finished.read()
