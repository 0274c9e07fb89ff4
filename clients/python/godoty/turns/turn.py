"""A turn of a blocking client: an iterator of events, and a context manager that cancels it when it is left early."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc

from godoty.actions.calling import call
from godoty.connection import Connection
from godoty.errors import ConnectionFailed, GodotyError
from godoty.operations.attachments import upload
from godoty.rpc_errors import decode
from godoty.turns.options import TurnOptions
from godoty.turns.progress import TurnProgress, cancellation
from godoty.turns.view import LEAVE_TIMEOUT, TurnView, abandon
from godoty.types import TextDelta, TurnEvent

_O = TypeVar("_O")


class Turn(TurnView[_O]):
    """A turn of a blocking client.

    Iterating sends the request and returns the events, `TurnStarted` first, `TurnFinished` last. A connection that is
    lost is resumed without a doubled or lost event. Client tools run, and approvals are asked for, in between, and the
    turn goes on with the answers: its next events are another `TurnStarted` to `TurnFinished`. Leaving the `with`
    block, or the last reference to the turn, before its end cancels it.
    """

    def __init__(self, connection: Connection, progress: TurnProgress[_O]) -> None:
        super().__init__(progress)
        self._connection = connection
        self._call: Any = None
        self._finished_call: Any = None
        connection.turns.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[TurnEvent]:
        return self

    def __next__(self) -> TurnEvent:
        progress = self._progress
        while not progress.ended:
            if progress.answering:
                self._ask()
            event = self._read()
            if event is not None:
                return event
        self._read_status()
        raise StopIteration

    def __del__(self) -> None:
        abandon(self._progress, self._call, self._connection)

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

    def answer(self, answers: Mapping[str, object], **options: Unpack[TurnOptions]) -> Turn[_O]:
        """Return the turn that goes on with answers to `actions`: iterate over it, or `wait()` for its end.

        Args:
            answers: By the id of an action: of an approval, a `Decision`; of a client tool, what a tool may return, an
                exception for an error, or `Deny`. Those that are left out, and approvals that are None, stay open.
            options: See `TurnOptions`; tools and approvals are those of this turn unless they are given.

        Raises:
            ValueError: There is no such action, or no answer.
            TypeError: An answer to an approval is no decision.
        """
        return Turn(self._connection, self._progress.continuation(answers, options))

    def cancel(self) -> None:
        """Cancel the turn on the server, which then ends with `TurnCancelled`; what it has cost is charged."""
        if self.turn_id:
            self._connection.call(cancellation(self.turn_id))

    def close(self) -> None:
        """Cancel the turn unless it has ended, and end its stream."""
        for each in (self._call, self._finished_call):
            if each is not None:
                each.cancel()
        self._call = self._finished_call = None
        calls = self._progress.leave()
        with suppress(StopIteration, GodotyError):
            following = next(calls)
            while True:
                following = calls.send(self._connection.call(following, timeout=LEAVE_TIMEOUT))

    def _read(self) -> TurnEvent | None:
        """Read one event; None: it is not one to be shown, or the connection broke and is to be made again."""
        try:
            if self._call is None and not self._open():
                return None
            response = next(self._call, None)
        except (grpc.RpcError, ConnectionFailed) as error:
            failure = error if isinstance(error, ConnectionFailed) else decode(error)
            self._wait(lambda: self._progress.fail(failure))
            return None
        if response is None:
            self._wait(self._progress.end)
            return None
        event = self._progress.receive(response.event)
        if self._progress.answering:
            self._finished_call, self._call = self._call, None
        return event

    def _open(self) -> bool:
        """Make the next call; return whether there is one."""
        for each in self._progress.pending_uploads():
            try:
                each.complete(self._connection.call(upload(each.source)))
            except GodotyError as error:
                each.fail(error)
        following = self._progress.next_call()
        if following is not None:
            self._call = self._connection.methods[following.method](
                following.request, metadata=self._connection.metadata, timeout=following.timeout
            )
        return following is not None

    def _ask(self) -> None:
        """Call the caller's tools and approvals, one after another."""
        self._read_status()
        while questions := self._progress.questions():
            question = questions[0]
            try:
                value = call(question.function, question.timeout)
            except Exception as error:  # noqa: BLE001 - of a tool, it is for the model
                self._progress.unanswered(question, error)
            else:
                self._progress.answered(question, value)

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
        finished, self._finished_call = self._finished_call or self._call, None
        self._call = None
        if finished is not None:
            with suppress(grpc.RpcError):
                next(finished, None)
