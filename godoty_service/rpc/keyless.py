"""Calls that need no API key: health checks, and the limits on these and on reflection, per source and in all.

A server is SERVING once its listener is open, while the system clock is right and the database responds.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from godoty_service.errors import GodotyError, QuotaExceeded
from godoty_service.ids import new_id
from godoty_service.rpc.auth_throttle import Sources
from godoty_service.rpc.status import REQUEST_ID, abort
from godoty_service.rpc.validation import Context, encode_response, read_request, read_requests

_RETRY_AFTER = 5.0  # seconds
_STATUS = health_pb2.HealthCheckResponse


class TooManyKeylessCalls(QuotaExceeded):
    """The source, or all sources together, have the maximum number of open calls without a key."""

    reason = "RATE_LIMITED"


class ResponseNotRead(GodotyError):
    """The client does not read the response."""

    reason = "DEADLINE_EXCEEDED"


class KeylessCalls:
    """Wraps the handlers of methods that need no key, and limits their open calls."""

    def __init__(self, *, sources: Sources, per_source: int, most: int, request_timeout: float) -> None:
        """Create the limits.

        Args:
            sources: Identifies the source of a call.
            per_source: Maximum open calls of a source.
            most: Maximum open calls of all sources together.
            request_timeout: Seconds in which each message of a call must arrive.
        """
        self._sources = sources
        self._per_source = per_source
        self._max_total = most
        self._timeout = request_timeout
        self._open: Counter[str] = Counter()
        self._total = 0

    def wrap(self, handler: Any) -> Any:
        """Return a handler that calls another within the limits."""
        if not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(self._unary(handler))
        wrapped = self._bidirectional(handler) if handler.request_streaming else self._watch(handler)
        return grpc.stream_stream_rpc_method_handler(wrapped)

    def _unary(self, handler: Any) -> Callable[..., Any]:
        async def wrapped(_: object, context: Context) -> bytes:
            try:
                with self._counted(context):
                    request = await read_request(context, handler.request_deserializer, seconds=self._timeout)
                    return encode_response(handler.response_serializer, await handler.unary_unary(request, context))
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

    def _bidirectional(self, handler: Any) -> Callable[..., Any]:
        async def wrapped(_: object, context: Context) -> AsyncIterator[bytes]:
            try:
                with self._counted(context):
                    requests = read_requests(context, handler.request_deserializer, seconds=self._timeout)
                    async for response in handler.stream_stream(requests, context):
                        yield encode_response(handler.response_serializer, response)
            except GodotyError as error:
                await abort(context, error)

        return wrapped

    @contextmanager
    def _counted(self, context: Context) -> Iterator[None]:
        """Give a call a request id, and count it as open while the block runs.

        Raises:
            TooManyKeylessCalls: A limit is reached.
        """
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(**{REQUEST_ID: new_id("req")})
        source = self._sources.of(context.peer(), context.invocation_metadata() or ())
        if self._open[source] >= self._per_source or self._total >= self._max_total:
            raise TooManyKeylessCalls(
                f"Too many open calls without an API key: at most {self._per_source:,} from one address and"
                f" {self._max_total:,} in all; retry in {_RETRY_AFTER:g} s.",
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
    """A call's context that encodes each response as it is written, and limits the time to write it."""

    def __init__(self, context: Context, encode: Callable[[Any], bytes], *, seconds: float) -> None:
        self._context = context
        self._encode = encode
        self._seconds = seconds

    async def write(self, response: Any) -> None:
        """Write a response.

        Raises:
            ResponseNotRead: The client did not read it in time.
        """
        try:
            async with asyncio.timeout(self._seconds):
                await self._context.write(encode_response(self._encode, response))
        except grpc.aio.InternalError as error:  # the connection broke, and gRPC has not cancelled the call yet
            raise asyncio.CancelledError from error
        except TimeoutError:
            raise ResponseNotRead(f"The client did not read the response within {self._seconds:g} s.") from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class ServingStatus(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # has no types
    """Serves gRPC's health protocol; all services have the same status.

    gRPC's own servicer holds a lock while it writes to a watcher: one that does not read would block every update.

    Attributes:
        stopped: Set when calls that last as long as the server must end.
    """

    def __init__(self, services: Sequence[str]) -> None:
        """Create it; no service is SERVING before `open`.

        Args:
            services: Their names; the empty one is the whole server's.
        """
        self._services = frozenset(services)
        self._open = False
        self._clock_right = True
        self._storage_available = True
        self._stopping = False
        self._changed = asyncio.Event()
        self.stopped = asyncio.Event()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the health service with a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self, server)

    def open(self) -> None:
        """Report that the listener is open."""
        self._open = True
        self._notify()

    def clock_measured(self, *, within_tolerance: bool) -> None:
        """Report whether the system clock is right: a load balancer avoids a server whose clock is wrong."""
        self._clock_right = within_tolerance
        self._notify()

    def storage_probed(self, *, available: bool) -> None:
        """Report whether the database responds."""
        self._storage_available = available
        self._notify()

    def shut_down(self) -> None:
        """Report NOT_SERVING from now on."""
        self._stopping = True
        self._notify()

    def end_watches(self) -> None:
        """End the calls that last as long as the server."""
        self.stopped.set()
        self._notify()

    async def Check(  # noqa: N802 - the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: "grpc.aio.ServicerContext[object, object]"
    ) -> health_pb2.HealthCheckResponse:
        """Return the status of a service."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is no such service.")
        return health_pb2.HealthCheckResponse(status=self._status)

    async def List(  # noqa: N802 - the same
        self, _request: health_pb2.HealthListRequest, _context: object
    ) -> health_pb2.HealthListResponse:
        """Return the status of all services."""
        response = health_pb2.HealthCheckResponse(status=self._status)
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(self._services, response))

    async def Watch(  # noqa: N802 - the same
        self, request: health_pb2.HealthCheckRequest, context: "grpc.aio.ServicerContext[object, object]"
    ) -> None:
        """Send the status of a service now and after each change, until the server stops."""
        known, sent = request.service in self._services, None
        while True:
            changed = self._changed
            status = self._status if known else _STATUS.SERVICE_UNKNOWN
            if status != sent:
                sent = status
                await context.write(health_pb2.HealthCheckResponse(status=status))
            elif self.stopped.is_set():
                return
            else:
                await changed.wait()

    @property
    def _status(self) -> "health_pb2.HealthCheckResponse.ServingStatus.ValueType":
        serving = self._open and self._clock_right and self._storage_available and not self._stopping
        return _STATUS.SERVING if serving else _STATUS.NOT_SERVING

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
