"""What every call goes through: key, decoding, errors, log context, span and count. One interceptor does it all.

Handlers get a `Call` instead of gRPC's context: who calls, and the context, should they need it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import structlog

from godoty_service.errors import GodotyError, InvalidApiKey, ScopeMissing
from godoty_service.ids import new_id
from godoty_service.rpc.refusals import Refusals
from godoty_service.rpc.status import abort, code_of
from godoty_service.rpc.tenant_calls import TenantCalls
from godoty_service.storage_monitor import StorageMonitor
from godoty_service.telemetry.metrics import Metrics
from godoty_service.telemetry.traces import ServerSpan, Tracing
from godoty_service.tenancy.keys import ApiKeys
from godoty_service.tenancy.principal import Principal, Scope

log = structlog.get_logger(__name__)

Context = Any  # grpc.aio.ServicerContext, whose type parameters nobody knows here
_SCHEME = "bearer"


class MalformedRequest(GodotyError):
    """The bytes are not the message that the method takes."""

    reason = "MALFORMED_REQUEST"


@dataclass(frozen=True, slots=True)
class Call:
    """A call whose key is good and has the scope that the method needs."""

    principal: Principal
    context: Context

    @property
    def tenant_id(self) -> str:
        """Whose data this call may touch."""
        return self.principal.tenant_id


class _Undecodable:
    """Stands in for a request that could not be decoded: gRPC would answer UNKNOWN with Python's words."""


class Edge(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # generic in the stubs only
    """Wraps the methods of our services; health and reflection pass as they are."""

    def __init__(
        self,
        *,
        scopes: Mapping[str, Sequence[Scope]],
        keys: ApiKeys,
        refusals: Refusals,
        calls: TenantCalls,
        storage: StorageMonitor,
        metrics: Metrics,
        tracing: Tracing,
    ) -> None:
        """Build the edge.

        Args:
            scopes: By full method name, the scopes of which its callers need one.
            keys: Tells who calls.
            refusals: Slows down whoever tries keys.
            calls: Bounds how many calls of a tenant are open.
            storage: Ends calls that wait for a database which does not answer.
            metrics: Counts calls.
            tracing: Opens a span for each.
        """
        self._scopes = dict(scopes)
        self._keys = keys
        self._refusals = refusals
        self._calls = calls
        self._storage = storage
        self._metrics = metrics
        self._tracing = tracing

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap a method's handler."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method not in self._scopes:
            return handler
        streams = handler.response_streaming
        make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        wrap = self._stream if streams else self._unary
        return make(
            wrap(method, handler.unary_stream or handler.unary_unary),
            request_deserializer=_tolerant(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _unary(self, method: str, handler: Callable[[Any, Call], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def wrapped(request: Any, context: Context) -> Any:
            with self._observed(method, context) as span:
                try:
                    with self._storage.guard():
                        call = await self._admit(method, request, context)
                        with self._calls.open(call.tenant_id, method):
                            return await handler(request, call)
                except Exception as error:  # noqa: BLE001 - no fault may leave in Python's words
                    await abort(context, _ours(error, span))

        return wrapped

    def _stream(self, method: str, handler: Callable[[Any, Call], AsyncIterator[Any]]) -> Callable[..., Any]:
        async def wrapped(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._observed(method, context) as span:
                try:
                    with self._storage.guard() as guard:  # until its first answer: then it has what it needs
                        call = await self._admit(method, request, context)
                        with self._calls.open(call.tenant_id, method):
                            async for response in handler(request, call):
                                guard.release()
                                yield response
                except Exception as error:  # noqa: BLE001 - no fault may leave in Python's words
                    await abort(context, _ours(error, span))

        return wrapped

    async def _admit(self, method: str, request: Any, context: Context) -> Call:
        """Check the key and its scope, then whether the request could be read.

        Raises:
            InvalidApiKey: There is no good key.
            ScopeMissing: It lacks the scope.
            MalformedRequest: The request could not be read.
        """
        principal = await self._verify(context)
        scopes = self._scopes[method]
        if principal.scopes.isdisjoint(scopes):
            wanted = " or ".join(scope.value for scope in scopes)
            raise ScopeMissing(f"The API key lacks the scope {wanted}.", metadata={"scope": scopes[0].value})
        structlog.contextvars.bind_contextvars(tenant_id=principal.tenant_id, key_id=principal.key_id)
        if isinstance(request, _Undecodable):
            raise MalformedRequest("The request could not be decoded.")
        return Call(principal, context)

    async def _verify(self, context: Context) -> Principal:
        try:
            return await self._keys.verify(_key(context))
        except InvalidApiKey:
            self._metrics.key_refused()
            await self._refusals.wait(context.peer())
            raise

    @contextmanager
    def _observed(self, method: str, context: Context) -> Iterator[ServerSpan]:
        """Give a call its log context, its span and its count, however it ends."""
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(method=method, request_id=new_id("req"))
        begun = time.monotonic()
        metadata = [(key, value) for key, value in context.invocation_metadata() or () if key != "authorization"]
        with self._tracing.server_span(method, metadata) as span:
            try:
                yield span
            except (asyncio.CancelledError, GeneratorExit):
                remaining = context.time_remaining()
                late = remaining is not None and remaining <= 0
                span.set_code((grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED).value[0])
                raise
            finally:
                code = _NAMES.get(span.code or 0, "UNKNOWN")
                self._metrics.request_finished(method, code, time.monotonic() - begun)


_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def _ours(error: Exception, span: ServerSpan) -> GodotyError:
    """Take an error for what the caller is told: ours as it is, any other as a fault of the server's own."""
    if not isinstance(error, GodotyError):
        log.error("call_fault", exc_info=error)
        request_id = structlog.contextvars.get_contextvars().get("request_id", "")
        error = GodotyError("The server failed.", metadata={"request_id": request_id})
    elif error.reason == GodotyError.reason:
        log.error("call_fault", exc_info=error)
    span.set_code(code_of(error).value[0])
    return error


def _key(context: Context) -> str:
    """Read the key from the metadata.

    Raises:
        InvalidApiKey: There is none, or more than one.
    """
    values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    scheme, _, key = values[0].partition(" ") if len(values) == 1 and isinstance(values[0], str) else ("", "", "")
    if scheme.lower() != _SCHEME:  # RFC 9110: schemes are case-insensitive
        raise InvalidApiKey("The call needs the metadata `authorization: Bearer gdt_...`.")
    return key.strip()


def _tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def tolerant(body: bytes) -> Any:
        try:
            return deserialize(body)
        except Exception:  # noqa: BLE001 - whatever it is, the caller sent it
            return _Undecodable()

    return tolerant
