"""One interceptor for every call: authentication, decoding, errors, log context, span and metrics.

Handlers get a `CallContext` instead of gRPC's context: the caller, and gRPC's context. Every method is registered with
gRPC as one that takes a stream of requests: gRPC then calls the handler before the request has arrived, so the key is
checked on the metadata alone.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog

from godoty_service.aio.limits import ConcurrencyLimiter
from godoty_service.errors import GodotyError, InvalidApiKey, ScopeMissing, internal_error
from godoty_service.ids import new_id
from godoty_service.mongo.monitor import StorageMonitor
from godoty_service.rpc import validation
from godoty_service.rpc.auth_throttle import AuthThrottle, Sources, TooManyWrongKeys
from godoty_service.rpc.field_limits import FieldLimits
from godoty_service.rpc.keyless import KeylessCalls
from godoty_service.rpc.status import REQUEST_ID, abort, code_of
from godoty_service.rpc.validation import (
    Context,
    RequestNotReceived,
    encode_response,
    read_request,
    read_requests,
)
from godoty_service.telemetry.metrics import Metrics
from godoty_service.telemetry.traces import ServerSpan, Tracing
from godoty_service.tenancy.api_keys import ApiKeys
from godoty_service.tenancy.auth import Principal, Scope
from godoty_service.tenancy.errors import OperatorOnly, TenantSuspended

log = structlog.get_logger(__name__)

_SCHEME = "bearer"
_ADMITTED_FOR = 0.25  # seconds; a call whose message comes later is admitted anew
LONGEST_STREAM = 120.0  # seconds in which all messages of a call that streams its requests must arrive
_DROP_SECONDS, _DROP_BYTES = 5.0, 64 * 1024 * 1024  # of requests that follow a refused one in its stream
_SMALL = 16 * 1024  # bytes up to which a response that waits for its client does not count as an open call


@dataclass(frozen=True, slots=True)
class CallContext:
    """A call whose key is valid and has a scope that the method needs."""

    principal: Principal
    context: Context
    sources: Sources
    admit: Callable[[], Awaitable[Any]] = field(compare=False)

    async def confirm(self) -> None:
        """Authenticate the caller again, after it has taken long to send its request.

        Raises:
            GodotyError: The key, or its tenant, may not call the method any more.
        """
        await self.admit()

    @property
    def peer(self) -> str:
        """The address of the caller."""
        return self.sources.address(self.context.peer(), self.context.invocation_metadata() or ())

    @property
    def tenant_id(self) -> str:
        """The tenant whose data the call may access."""
        return self.principal.tenant_id


class ServiceInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # generic in the stubs only
    """Wraps the methods of the service; health and reflection need no key."""

    def __init__(
        self,
        *,
        scopes: Mapping[str, Sequence[Scope]],
        while_suspended: Collection[str],
        keys: ApiKeys,
        sources: Sources,
        throttle: AuthThrottle,
        calls: ConcurrencyLimiter,
        limits: FieldLimits,
        storage: StorageMonitor,
        keyless: KeylessCalls,
        metrics: Metrics,
        tracing: Tracing,
        request_timeout: float,
    ) -> None:
        """Create the interceptor.

        Args:
            scopes: By full method name, the scopes of which the key must have one.
            while_suspended: The full names of the methods that the keys of a suspended tenant may call.
            keys: Authenticates callers.
            sources: Identifies the source of a call.
            throttle: Limits the look-ups of wrong keys.
            calls: Limits the open calls of a tenant.
            limits: Limits the size of requests and of their fields.
            storage: Ends calls that wait for a database that does not respond.
            keyless: Limits the calls that need no key.
            metrics: Counts calls.
            tracing: Opens a span for each call.
            request_timeout: Seconds in which the message of a call must arrive.
        """
        self._scopes = dict(scopes)
        self._while_suspended = frozenset(while_suspended)
        self._keys = keys
        self._sources = sources
        self._throttle = throttle
        self._calls = calls
        self._limits = limits
        self._storage = storage
        self._keyless = keyless
        self._metrics = metrics
        self._tracing = tracing
        self._request_timeout = request_timeout
        self._wrapped: dict[str, Any] = {}  # by method name; bounded by the number of methods

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap a method's handler."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:  # gRPC answers UNIMPLEMENTED
                return None
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:
        if method not in self._scopes:
            return self._keyless.wrap(handler)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(self._receiving(method, handler))
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._stream(method, handler))
        return grpc.stream_unary_rpc_method_handler(self._unary(method, handler))

    def _unary(self, method: str, handler: Any) -> Callable[..., Awaitable[bytes]]:
        decode = self._limits.decoder(method, handler.request_deserializer)

        async def wrapped(_: object, context: Context) -> bytes:
            with self._observed(method, context) as span:
                try:
                    with self._storage.guard(), ExitStack() as permit:
                        call = await self._admit(method, context)
                        permit.enter_context(self._calls.acquire(call.tenant_id, method))
                        request, call = await self._request(decode, method, call)
                        body = encode_response(handler.response_serializer, await handler.unary_unary(request, call))
                        if len(body) > _SMALL:
                            _release_when_done(context, permit.pop_all())
                        return body
                except grpc.aio.InternalError as error:  # the connection broke, and gRPC has not cancelled the call yet
                    raise asyncio.CancelledError from error
                except Exception as error:  # noqa: BLE001 - no exception text may reach the client
                    await abort(context, _to_godoty_error(error, span))
            raise AssertionError("abort raises")

        return wrapped

    def _receiving(self, method: str, handler: Any) -> Callable[..., Awaitable[bytes]]:
        """Wrap a method whose requests are a stream: the handler reads it, within the time of a call."""
        decode = self._limits.decoder(method, handler.request_deserializer)

        async def wrapped(_: object, context: Context) -> bytes:
            with self._observed(method, context) as span:
                try:
                    with self._storage.guard():
                        call = await self._admit(method, context)
                        with self._calls.acquire(call.tenant_id, method):
                            async with aclosing(self._requests(decode, context)) as requests:
                                response = await _received(handler.stream_unary(requests, call), context)
                                return encode_response(handler.response_serializer, response)
                except grpc.aio.InternalError as error:  # the connection broke, and gRPC has not cancelled the call yet
                    raise asyncio.CancelledError from error
                except Exception as error:  # noqa: BLE001 - no exception text may reach the client
                    await abort(context, _to_godoty_error(error, span))
            raise AssertionError("abort raises")

        return wrapped

    async def _requests(self, decode: Callable[[bytes], Any], context: Context) -> AsyncGenerator[Any, None]:
        """Yield the messages of a call as they arrive.

        Raises:
            RequestNotReceived: One of them, or all together, did not arrive in time.
        """
        deadline = time.monotonic() + LONGEST_STREAM
        async for request in read_requests(context, decode, seconds=self._request_timeout):
            yield request
            if time.monotonic() > deadline:
                raise RequestNotReceived(f"The requests did not all arrive within {LONGEST_STREAM:g} s.")

    def _stream(self, method: str, handler: Any) -> Callable[..., Awaitable[None]]:
        decode, encode = self._limits.decoder(method, handler.request_deserializer), handler.response_serializer

        async def wrapped(_: object, context: Context) -> None:
            with self._observed(method, context) as span:
                try:
                    with self._storage.guard() as guard:  # until its first response: the database has responded then
                        call = await self._admit(method, context)
                        with self._calls.acquire(call.tenant_id, method):
                            request, call = await self._request(decode, method, call)
                            async with aclosing(handler.unary_stream(request, call)) as responses:
                                async for response in responses:
                                    guard.release()
                                    body = encode(response)
                                    if len(body) > validation.MAX_RESPONSE_BYTES:
                                        raise validation.response_too_large(body)  # noqa: TRY301 - one call less for each token
                                    await context.write(body)
                except grpc.aio.InternalError as error:  # the connection broke, and gRPC has not cancelled the call yet
                    raise asyncio.CancelledError from error
                except Exception as error:  # noqa: BLE001 - no exception text may reach the client
                    await abort(context, _to_godoty_error(error, span))

        return wrapped

    async def _request(self, decode: Callable[[bytes], Any], method: str, call: CallContext) -> tuple[Any, CallContext]:
        """Read the message of a call that was admitted; if it comes late, the key may have been revoked meanwhile."""
        admitted_at = time.monotonic()
        request = await read_request(call.context, decode, seconds=self._request_timeout)
        if time.monotonic() - admitted_at > _ADMITTED_FOR:
            call = await self._admit(method, call.context)
        return request, call

    async def _admit(self, method: str, context: Context) -> CallContext:
        """Authenticate the caller and check the key's scope.

        Raises:
            InvalidApiKey: There is no valid key.
            TooManyWrongKeys: The key is not proven, and its source sent too many wrong ones.
            ScopeMissing: The key lacks the scope.
            OperatorOnly: The key administers its own tenant alone, and the method needs the operator's.
            TenantSuspended: The tenant is suspended, and the key is not the operator's or the method starts turns.
        """
        principal = await self._verify(context)
        scopes = self._scopes[method]
        if principal.scopes.isdisjoint(scopes):
            raise _refusal(principal, method, scopes)
        by_operator = principal.is_operator and Scope.ADMIN in scopes
        if principal.suspended and not by_operator and method not in self._while_suspended:
            raise TenantSuspended.of(principal.tenant_id)
        structlog.contextvars.bind_contextvars(tenant_id=principal.tenant_id, key_id=principal.key_id)
        return CallContext(principal, context, self._sources, lambda: self._admit(method, context))

    async def _verify(self, context: Context) -> Principal:
        check = self._throttle.check(self._sources.of(context.peer(), context.invocation_metadata() or ()))
        try:
            principal = await self._keys.verify(_api_key(context), check)
        except (InvalidApiKey, TooManyWrongKeys):
            self._metrics.key_refused()
            check.refuse()
            raise
        check.accept()
        return principal

    @contextmanager
    def _observed(self, method: str, context: Context) -> Iterator[ServerSpan]:
        """Set a call's log context, open its span, and count it when it ends, for any reason."""
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(**{"method": method, REQUEST_ID: new_id("req")})
        start = time.monotonic()
        metadata = [(key, value) for key, value in context.invocation_metadata() or () if key != "authorization"]
        with self._tracing.server_span(method, metadata) as span:
            try:
                yield span
            except (asyncio.CancelledError, GeneratorExit):
                remaining = context.time_remaining()
                expired = remaining is not None and remaining <= 0
                span.set_code((grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED).value[0])
                raise
            finally:
                code = _NAMES.get(span.code or 0, "UNKNOWN")
                self._metrics.request_finished(method, code, time.monotonic() - start)


async def _received(handling: Awaitable[Any], context: Context) -> Any:
    """Return the response to a stream of requests.

    What a client still sends when it is refused is read and dropped, within bounds: a client whose sending fails may
    report that in place of the error.
    """
    try:
        return await handling
    except RequestNotReceived:
        raise
    except GodotyError:
        size = 0
        with suppress(TimeoutError, grpc.aio.InternalError):
            async with asyncio.timeout(_DROP_SECONDS):
                while size < _DROP_BYTES and (body := await context.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined] # the stubs hide it
                    size += len(body)
        raise


def _release_when_done(context: Context, permit: ExitStack) -> None:
    """Release a call's permit once its response was sent: until then, a client that does not read it uses memory."""
    context.add_done_callback(lambda _: permit.close())


_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def _to_godoty_error(error: Exception, span: ServerSpan) -> GodotyError:
    """Return the error for the caller: a GodotyError as it is, any other as an internal error."""
    if not isinstance(error, GodotyError):
        log.error("call_fault", exc_info=error)
        error = internal_error(structlog.contextvars.get_contextvars().get(REQUEST_ID, ""))
    elif error.reason == GodotyError.reason:
        log.error("call_fault", exc_info=error)
    span.set_code(code_of(error).value[0])
    return error


def _refusal(principal: Principal, method: str, scopes: Sequence[Scope]) -> GodotyError:
    """Return the error for a key without any of the scopes that a method needs."""
    if Scope.TENANT_ADMIN in principal.scopes and scopes[0] is Scope.ADMIN:
        name = method.rpartition("/")[2]
        return OperatorOnly(
            f"The API key administers its own tenant alone; {name} needs a key of the operator.",
            metadata={"method": name},
        )
    needed = " or ".join(scope.value for scope in scopes if scope is not Scope.TENANT_ADMIN)
    return ScopeMissing(
        f"The API key lacks the scope {needed}, which this method needs.", metadata={"scope": scopes[0].value}
    )


def _api_key(context: Context) -> str:
    """Return the API key in the metadata.

    Raises:
        InvalidApiKey: There is none, or more than one.
    """
    values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    scheme, _, key = values[0].partition(" ") if len(values) == 1 and isinstance(values[0], str) else ("", "", "")
    if scheme.lower() != _SCHEME:  # RFC 9110: schemes are case-insensitive
        raise InvalidApiKey("The call needs one metadata entry `authorization: Bearer gdt_...`.")
    return key.strip()
