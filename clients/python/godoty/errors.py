"""Errors of calls to Godoty.

GodotyError
├── ConnectionFailed    gRPC's own: no server, or the connection broke for too long
└── SessionBusy, BudgetSpent, InvalidApiKey, …    one class a reason (reasons.py)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import grpc


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
        request_id: The id by which the server's log names the call. Empty: the server gave none.
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
        request_id: str = "",
    ) -> None:
        super().__init__(f"{reason or code.name}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.retry_delay = retry_delay
        self.field_violations = field_violations
        self.request_id = request_id


class ConnectionFailed(GodotyError):
    """The server could not be reached, or the connection broke and did not come back in time."""
