"""Decodes errors from gRPC statuses and their `google.rpc` details."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped,unused-ignore]  # has no stubs

from godoty.errors import ConnectionFailed, FieldViolation, GodotyError
from godoty.reasons import BY_REASON, DeadlineExceeded

DOMAIN = "godoty.app"

_DETAILS = "grpc-status-details-bin"
_LOST = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN,  # "Stream removed"
    grpc.StatusCode.INTERNAL,  # RST_STREAM
    grpc.StatusCode.CANCELLED,  # by the server's side: a proxy that stops
}
"""Statuses that gRPC gives a call whose connection broke."""

_Detail = TypeVar("_Detail", bound=Message)


def decode(error: grpc.RpcError) -> GodotyError:
    """Return the error of a call of grpc or grpc.aio."""
    call = cast("grpc.Call", error)  # errors of both have its methods
    code, details = call.code(), _details(call)
    info = _unpack(details, error_details_pb2.ErrorInfo())
    if info is not None and info.domain != DOMAIN:  # set by a proxy
        info = None
    retry = _unpack(details, error_details_pb2.RetryInfo())
    fields = _unpack(details, error_details_pb2.BadRequest())
    request = _unpack(details, error_details_pb2.RequestInfo())
    reason = info.reason if info is not None else ""
    return _kind(code, reason)(
        code,
        call.details() or "",
        reason=reason,
        metadata=info.metadata if info is not None else None,
        retry_delay=retry.retry_delay.ToTimedelta() if retry is not None else None,
        field_violations=tuple(
            FieldViolation(violation.field, violation.description)
            for violation in (fields.field_violations if fields is not None else ())
        ),
        request_id=request.request_id if request is not None else "",
    )


@contextmanager
def decoded_errors() -> Iterator[None]:
    """Raise errors of gRPC in the block as `GodotyError`."""
    try:
        yield
    except grpc.RpcError as error:
        raise decode(error) from error


def _kind(code: grpc.StatusCode, reason: str) -> type[GodotyError]:
    if reason:
        return BY_REASON.get(reason, GodotyError)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded
    return ConnectionFailed if code in _LOST else GodotyError


def _details(call: grpc.Call) -> Iterable[AnyMessage]:
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:  # a proxy has replaced it
                return ()
            return cast("Iterable[AnyMessage]", status.details) if status.code == call.code().value[0] else ()
    return ()


def _unpack(details: Iterable[AnyMessage], into: _Detail) -> _Detail | None:
    try:
        return into if any(detail.Unpack(into) for detail in details) else None
    except DecodeError:
        return None
