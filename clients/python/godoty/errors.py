"""Errors of calls to Godoty, decoded from gRPC statuses and their details."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2  # type: ignore[import-untyped,unused-ignore]  # has no stubs
from grpc_status import rpc_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta

    import grpc
    from google.protobuf.any_pb2 import Any as AnyMessage

DOMAIN = "godoty.app"

_Detail = TypeVar("_Detail", bound=Message)


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """An invalid field of the request."""

    field: str
    description: str


class GodotyError(Exception):
    """A call failed.

    Attributes:
        code: The gRPC status.
        message: The error's text, from the server or from gRPC.
        reason: A `godoty.v1.ErrorReason` without its prefix, such as "SESSION_BUSY". Empty: the error is
            gRPC's own, for example an unreachable server.
        metadata: The reason's metadata, as documented in errors.proto.
        retry_delay: Time to wait before a retry. None: the server gave none.
        field_violations: The invalid fields.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_delay: timedelta | None = None,
        field_violations: tuple[FieldViolation, ...] = (),
    ) -> None:
        super().__init__(f"{reason or code.name}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_delay = retry_delay
        self.field_violations = field_violations

    @classmethod
    def from_rpc(cls, error: grpc.aio.AioRpcError) -> GodotyError:
        """Translate gRPC's error and its `google.rpc` details."""
        details = _details(error)
        info = _unpack(details, error_details_pb2.ErrorInfo())
        if info is not None and info.domain != DOMAIN:  # set by a proxy
            info = None
        retry = _unpack(details, error_details_pb2.RetryInfo())
        fields = _unpack(details, error_details_pb2.BadRequest())
        return cls(
            error.code(),
            error.details() or "",
            reason=info.reason if info is not None else "",
            metadata=info.metadata if info is not None else None,
            retry_delay=retry.retry_delay.ToTimedelta() if retry is not None else None,
            field_violations=tuple(
                FieldViolation(violation.field, violation.description)
                for violation in (fields.field_violations if fields is not None else ())
            ),
        )


def _details(error: grpc.aio.AioRpcError) -> Iterable[AnyMessage]:
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))  # it has the attributes that from_call reads
    except (DecodeError, ValueError):  # a proxy may have replaced the status but not its details
        return ()
    return () if status is None else status.details


def _unpack(details: Iterable[AnyMessage], into: _Detail) -> _Detail | None:
    try:
        return into if any(detail.Unpack(into) for detail in details) else None
    except DecodeError:
        return None
