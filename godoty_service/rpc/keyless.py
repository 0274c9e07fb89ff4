"""Bounds the calls that need no API key, health checks and reflection: each source, and all of them together."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from godoty_service.errors import GodotyError, QuotaExceeded
from godoty_service.rpc.sources import Sources
from godoty_service.rpc.status import abort
from godoty_service.rpc.wire import Context, encoded, read_request, read_requests

_RETRY_AFTER = 5.0  # seconds


class TooManyKeylessCalls(QuotaExceeded):
    """The source has as many open calls without a key as it may."""

    reason = "RATE_LIMITED"


class ResponseNotTaken(GodotyError):
    """The client does not read what it asked for."""

    reason = "DEADLINE_EXCEEDED"


class KeylessCalls:
    """Wraps the handlers of methods that need no key, and counts their open calls."""

    def __init__(self, *, sources: Sources, per_source: int, most: int, request_timeout: float) -> None:
        """Build it.

        Args:
            sources: Names the source of a call.
            per_source: Open calls that a source may have.
            most: Open calls that all sources may have together.
            request_timeout: Seconds in which each message of a call must arrive.
        """
        self._sources = sources
        self._per_source = per_source
        self._most = most
        self._timeout = request_timeout
        self._open: Counter[str] = Counter()
        self._total = 0

    def wrap(self, handler: Any) -> Any:
        """Return a handler that serves as another one does, within the bounds."""
        if not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(self._unary(handler))
        wrapped = self._streams(handler) if handler.request_streaming else self._watch(handler)
        return grpc.stream_stream_rpc_method_handler(wrapped)

    def _unary(self, handler: Any) -> Callable[..., Any]:
        async def wrapped(_: object, context: Context) -> bytes:
            try:
                with self._counted(context):
                    request = await read_request(context, handler.request_deserializer, seconds=self._timeout)
                    return encoded(handler.response_serializer, await handler.unary_unary(request, context))
            except GodotyError as error:
                await abort(context, error)
            raise AssertionError("abort raises")

        return wrapped

    def _watch(self, handler: Any) -> Callable[..., Any]:
        """Wrap a handler that writes its responses to the context."""

        async def wrapped(_: object, context: Context) -> None:
            try:
                with self._counted(context):
                    request = await read_request(context, handler.request_deserializer, seconds=self._timeout)
                    writer = _Writer(context, handler.response_serializer, seconds=self._timeout)
                    await handler.unary_stream(request, writer)
            except GodotyError as error:
                await abort(context, error)

        return wrapped

    def _streams(self, handler: Any) -> Callable[..., Any]:
        async def wrapped(_: object, context: Context) -> AsyncIterator[bytes]:
            try:
                with self._counted(context):
                    requests = read_requests(context, handler.request_deserializer, seconds=self._timeout)
                    async for response in handler.stream_stream(requests, context):
                        yield encoded(handler.response_serializer, response)
            except GodotyError as error:
                await abort(context, error)

        return wrapped

    @contextmanager
    def _counted(self, context: Context) -> Iterator[None]:
        """Count a call as open for as long as the block runs.

        Raises:
            TooManyKeylessCalls: It is one too many.
        """
        source = self._sources.of(context.peer(), context.invocation_metadata() or ())
        if self._open[source] >= self._per_source or self._total >= self._most:
            raise TooManyKeylessCalls(
                f"Too many open calls without an API key: {self._per_source} from one address and {self._most} in all"
                " are the most.",
                quota="keyless_calls/concurrent",
                retry_after=_RETRY_AFTER,
            )
        self._open[source] += 1
        self._total += 1
        try:
            yield
        finally:
            self._total -= 1
            self._open[source] -= 1
            if not self._open[source]:
                del self._open[source]


class _Writer:
    """A call's context whose responses are encoded as they are written, and must be taken in time."""

    def __init__(self, context: Context, encode: Callable[[Any], bytes], *, seconds: float) -> None:
        self._context = context
        self._encode = encode
        self._seconds = seconds

    async def write(self, response: Any) -> None:
        """Write a response.

        Raises:
            ResponseNotTaken: The client did not read it in time.
        """
        try:
            async with asyncio.timeout(self._seconds):
                await self._context.write(encoded(self._encode, response))
        except grpc.aio.InternalError as error:  # the connection broke, and gRPC has not cancelled the call yet
            raise asyncio.CancelledError from error
        except TimeoutError:
            raise ResponseNotTaken(f"The response was not read within {self._seconds:g} s.") from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)
