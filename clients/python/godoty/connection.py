"""Connections: they make the calls that operations describe, blocking or on an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import suppress
from functools import cached_property, wraps
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

import grpc
import grpc.aio

from godoty.calls import Call, Pages, Stream
from godoty.channel import authorization, open_blocking_channel, open_channel
from godoty.environment import Endpoint
from godoty.errors import ConnectionFailed, GodotyError
from godoty.retries import UNAVAILABLE, Retries
from godoty.rpc_errors import decode, decoded_errors
from godoty.v1 import (
    admin_service_pb2_grpc,
    agent_definition_service_pb2_grpc,
    agent_service_pb2_grpc,
    billing_service_pb2_grpc,
)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_SEND_TIMEOUT = 5.0  # seconds: closing a connection waits for such calls
_STREAM_PATIENCE = 30.0  # seconds without a connection after which a stream is given up
_REPEAT_PATIENCE = 10.0  # seconds in which a call is repeated
_STUBS: dict[str, Any] = {
    "AdminService": admin_service_pb2_grpc.AdminServiceStub,
    "AgentDefinitionService": agent_definition_service_pb2_grpc.AgentDefinitionServiceStub,
    "AgentService": agent_service_pb2_grpc.AgentServiceStub,
    "BillingService": billing_service_pb2_grpc.BillingServiceStub,
}


class _Methods:
    """The methods of a channel by the names that calls have."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        self._channel = channel
        self._stubs: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        service, _, method = name.partition(".")
        if service not in self._stubs:
            self._stubs[service] = _STUBS[service](self._channel)
        return getattr(self._stubs[service], method)


class Connection:
    """A connection whose calls block.

    Args:
        endpoint: The server and the key.
        timeout: Deadline of a unary call and of a page, in seconds.

    Attributes:
        turns: The turns on it, which are cancelled before it is closed.
    """

    def __init__(self, endpoint: Endpoint, *, timeout: float) -> None:
        self.target = endpoint.target
        self.metadata = authorization(endpoint.api_key)
        self._timeout = timeout
        self._sending: set[Any] = set()
        self.turns: WeakSet[Any] = WeakSet()
        self._channel = open_blocking_channel(endpoint.target, tls=endpoint.tls)
        self.methods = _Methods(self._channel)

    def close(self) -> None:
        """Close the connection and end its calls, once those that `send` has made have ended."""
        for future in list(self._sending):
            with suppress(grpc.RpcError, grpc.FutureCancelledError):
                future.result()
        self._channel.close()

    def call(self, call: Call[_T], *, timeout: float | None = None) -> _T:
        """Make a call and return its result; one that is repeatable is made again while no server takes it."""
        retries = Retries()
        deadline = timeout or call.timeout or self._timeout
        while True:
            try:
                with decoded_errors():
                    response = self.methods[call.method](call.request, metadata=self.metadata, timeout=deadline)
            except GodotyError as error:
                time.sleep(_repetition(call, retries, error))
            else:
                return call.read(response)

    def send(self, call: Call[Any]) -> None:
        """Send a call without waiting for its response; errors are ignored."""
        with suppress(ValueError, grpc.RpcError):  # ValueError: the channel is closed
            future = self.methods[call.method].future(call.request, metadata=self.metadata, timeout=_SEND_TIMEOUT)
            self._sending.add(future)  # gRPC cancels a call to which there is no reference
            future.add_done_callback(self._sending.discard)

    def unary(self, operation: Callable[_P, Call[_T]]) -> Callable[_P, _T]:
        """Return the method that makes the call of an operation."""

        @wraps(operation)
        def method(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            return self.call(operation(*args, **kwargs))

        return method

    def paged(self, operation: Callable[_P, Pages[_T]]) -> Callable[_P, Iterator[_T]]:
        """Return the method that iterates over the pages of an operation."""

        @wraps(operation)
        def method(*args: _P.args, **kwargs: _P.kwargs) -> Iterator[_T]:
            return self._pages(operation(*args, **kwargs))

        return method

    def streamed(self, operation: Callable[_P, Stream[_T]]) -> Callable[_P, Iterator[_T]]:
        """Return the method that iterates over the stream of an operation."""

        @wraps(operation)
        def method(*args: _P.args, **kwargs: _P.kwargs) -> Iterator[_T]:
            return self._stream(operation(*args, **kwargs))

        return method

    def _pages(self, pages: Pages[_T]) -> Iterator[_T]:
        follows = True
        while follows:
            page = self.call(Call(pages.method, pages.request, lambda response: response))
            yield from pages.items(page)
            follows = pages.follow(page)

    def _stream(self, stream: Stream[_T]) -> Iterator[_T]:
        retries = Retries()
        while True:
            call = self.methods[stream.method](stream.request, metadata=self.metadata)
            try:
                for response in call:
                    retries.reset()
                    yield from stream.items(response)
                    if stream.resume is not None:
                        stream.resume(stream.request, response)
            except grpc.RpcError as error:
                time.sleep(_delay(stream, retries, decode(error), error))
            else:
                return
            finally:
                call.cancel()


class AsyncConnection:
    """A connection on the event loop in which it is first used.

    Args:
        endpoint: The server and the key.
        timeout: Deadline of a unary call and of a page, in seconds.

    Attributes:
        turns: The turns on it, which are cancelled before it is closed.
    """

    def __init__(self, endpoint: Endpoint, *, timeout: float) -> None:
        self.target = endpoint.target
        self.metadata = authorization(endpoint.api_key)
        self._endpoint = endpoint
        self._timeout = timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self.turns: WeakSet[Any] = WeakSet()

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        self._loop = asyncio.get_running_loop()  # to which gRPC binds it
        return open_channel(self._endpoint.target, tls=self._endpoint.tls)

    @cached_property
    def methods(self) -> _Methods:
        """The methods by the names that calls have."""
        return _Methods(self._channel)

    async def close(self) -> None:
        """Close the connection and end its calls, once those that `send` has made have ended."""
        await asyncio.sleep(0)  # those that are only scheduled begin
        await asyncio.gather(*self._sending)
        if "_channel" in vars(self):  # it was opened
            await self._channel.close(grace=None)

    async def call(self, call: Call[_T], *, timeout: float | None = None) -> _T:  # noqa: ASYNC109 - gRPC's
        """Make a call and return its result; one that is repeatable is made again while no server takes it."""
        retries = Retries()
        deadline = timeout or call.timeout or self._timeout
        while True:
            try:
                with decoded_errors():
                    response = await self.methods[call.method](call.request, metadata=self.metadata, timeout=deadline)
            except GodotyError as error:
                await asyncio.sleep(_repetition(call, retries, error))
            else:
                return call.read(response)

    def send(self, call: Call[Any]) -> None:
        """Send a call without waiting for its response; errors are ignored."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._send, call)

    def _send(self, call: Call[Any]) -> None:
        async def send() -> None:
            with suppress(GodotyError, grpc.aio.UsageError):
                await self.call(call, timeout=_SEND_TIMEOUT)

        task = asyncio.get_running_loop().create_task(send())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def unary(self, operation: Callable[_P, Call[_T]]) -> Callable[_P, Coroutine[Any, Any, _T]]:
        """Return the method that makes the call of an operation."""

        @wraps(operation)
        async def method(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            return await self.call(operation(*args, **kwargs))

        return method

    def paged(self, operation: Callable[_P, Pages[_T]]) -> Callable[_P, AsyncIterator[_T]]:
        """Return the method that iterates over the pages of an operation."""

        @wraps(operation)
        def method(*args: _P.args, **kwargs: _P.kwargs) -> AsyncIterator[_T]:
            return self._pages(operation(*args, **kwargs))

        return method

    def streamed(self, operation: Callable[_P, Stream[_T]]) -> Callable[_P, AsyncIterator[_T]]:
        """Return the method that iterates over the stream of an operation."""

        @wraps(operation)
        def method(*args: _P.args, **kwargs: _P.kwargs) -> AsyncIterator[_T]:
            return self._stream(operation(*args, **kwargs))

        return method

    async def _pages(self, pages: Pages[_T]) -> AsyncIterator[_T]:
        follows = True
        while follows:
            page = await self.call(Call(pages.method, pages.request, lambda response: response))
            for item in pages.items(page):
                yield item
            follows = pages.follow(page)

    async def _stream(self, stream: Stream[_T]) -> AsyncIterator[_T]:
        retries = Retries()
        while True:
            call = self.methods[stream.method](stream.request, metadata=self.metadata)
            try:
                async for response in call:
                    retries.reset()
                    for item in stream.items(response):
                        yield item
                    if stream.resume is not None:
                        stream.resume(stream.request, response)
            except grpc.RpcError as error:
                await asyncio.sleep(_delay(stream, retries, decode(error), error))
            else:
                return
            finally:
                call.cancel()


def _delay(stream: Stream[Any], retries: Retries, failure: GodotyError, cause: grpc.RpcError) -> float:
    """Return the seconds after which a broken stream is continued.

    Raises:
        GodotyError: It cannot be continued.
    """
    lost = isinstance(failure, ConnectionFailed)
    delay = retries.delay(failure, within=_STREAM_PATIENCE) if lost and stream.resume is not None else None
    if delay is None:
        raise failure from cause
    return delay


def _repetition(call: Call[Any], retries: Retries, failure: GodotyError) -> float:
    """Return the seconds after which a call that has failed is made again.

    Raises:
        GodotyError: It is not.
    """
    again = call.repeatable and (isinstance(failure, ConnectionFailed) or failure.reason in UNAVAILABLE)
    delay = retries.delay(failure, within=_REPEAT_PATIENCE) if again else None
    if delay is None:
        raise failure
    return delay
