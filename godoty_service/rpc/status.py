"""Converts errors to gRPC statuses. errors.proto documents what each reason means to a caller."""

import asyncio

import grpc
import structlog
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from godoty_service.errors import GodotyError, QuotaExceeded

DOMAIN = "godoty.app"
DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID = "request_id"  # of the call, in the log's context

_CODES = {
    "MALFORMED_REQUEST": grpc.StatusCode.INVALID_ARGUMENT,
    "INVALID_FIELD": grpc.StatusCode.INVALID_ARGUMENT,
    "UNKNOWN_MODEL": grpc.StatusCode.INVALID_ARGUMENT,
    "INVALID_API_KEY": grpc.StatusCode.UNAUTHENTICATED,
    "SCOPE_MISSING": grpc.StatusCode.PERMISSION_DENIED,
    "SESSION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "MESSAGE_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "SESSION_BUSY": grpc.StatusCode.ABORTED,
    "SESSION_LOST": grpc.StatusCode.ABORTED,
    "REQUEST_ID_REUSED": grpc.StatusCode.ALREADY_EXISTS,
    "TURN_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "TURN_TOO_LARGE": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "BUDGET_SPENT": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "BUDGET_RESERVED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "MAX_COST_TOO_LOW": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "TOO_MANY_WRONG_KEYS": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "RESPONSE_TOO_LARGE": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "RATE_LIMITED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "TOO_MANY_TURNS": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "COST_UNBOUNDED": grpc.StatusCode.FAILED_PRECONDITION,
    "API_KEY_CREATED": grpc.StatusCode.ALREADY_EXISTS,
    "OPERATOR_ONLY": grpc.StatusCode.PERMISSION_DENIED,
    "ETAG_MISMATCH": grpc.StatusCode.ABORTED,
    "OUTPUT_NOT_ALLOWED": grpc.StatusCode.PERMISSION_DENIED,
    "MODEL_NOT_ALLOWED": grpc.StatusCode.PERMISSION_DENIED,
    "TENANT_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "TENANT_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "TENANT_SUSPENDED": grpc.StatusCode.PERMISSION_DENIED,
    "TENANT_DELETED": grpc.StatusCode.FAILED_PRECONDITION,
    "API_KEY_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "USER_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "ERASURE_UNFINISHED": grpc.StatusCode.UNAVAILABLE,
    "AGENT_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "AGENT_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
    "AGENT_LIMIT": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "MCP_SERVER_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "MCP_SERVER_LIMIT": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "AGENT_NOT_ALLOWED": grpc.StatusCode.PERMISSION_DENIED,
    "TOOL_NOT_ALLOWED": grpc.StatusCode.PERMISSION_DENIED,
    "CALL_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "CALL_NOT_ADJUSTABLE": grpc.StatusCode.FAILED_PRECONDITION,
    "FORK_POINT_REFUSED": grpc.StatusCode.FAILED_PRECONDITION,
    "SESSION_EXISTS": grpc.StatusCode.ALREADY_EXISTS,
    "SESSION_TOO_LARGE": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "AMOUNT_REFUSED": grpc.StatusCode.FAILED_PRECONDITION,
    "PROVIDER_KEYS_OFF": grpc.StatusCode.FAILED_PRECONDITION,
    "TURN_CANCELLED": grpc.StatusCode.CANCELLED,
    "DEADLINE_EXCEEDED": grpc.StatusCode.DEADLINE_EXCEEDED,
    "SHUTTING_DOWN": grpc.StatusCode.UNAVAILABLE,
    "STORAGE_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "PROVIDER_ACCOUNT_REFUSED": grpc.StatusCode.UNAVAILABLE,
    "PROVIDER_THROTTLED": grpc.StatusCode.UNAVAILABLE,
    "PROVIDER_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
    "PROVIDER_REJECTED_REQUEST": grpc.StatusCode.INVALID_ARGUMENT,
    "CONTEXT_WINDOW_EXCEEDED": grpc.StatusCode.FAILED_PRECONDITION,
    "MODEL_UNAVAILABLE": grpc.StatusCode.FAILED_PRECONDITION,
    "ATTACHMENT_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "ATTACHMENT_REJECTED": grpc.StatusCode.INVALID_ARGUMENT,
    "ATTACHMENT_LIMIT": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "INPUT_NOT_SUPPORTED": grpc.StatusCode.FAILED_PRECONDITION,
    "WEBHOOK_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "WEBHOOK_LIMIT": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DELIVERY_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "WEBHOOK_OFF": grpc.StatusCode.FAILED_PRECONDITION,
    "ACTION_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "ACTION_DECIDED": grpc.StatusCode.FAILED_PRECONDITION,
    "ACTION_CLOSED": grpc.StatusCode.FAILED_PRECONDITION,
    "ACTION_EXPIRED": grpc.StatusCode.FAILED_PRECONDITION,
    "REVIEWER_ONLY": grpc.StatusCode.PERMISSION_DENIED,
}
# Default retry delays in seconds, for errors without one of their own.
_RETRY_AFTER = {"PROVIDER_THROTTLED": 5.0, "STORAGE_UNAVAILABLE": 1.0, "PROVIDER_UNAVAILABLE": 1.0}


def code_of(error: GodotyError) -> grpc.StatusCode:
    """Return the status code of an error."""
    return _CODES.get(error.reason, grpc.StatusCode.INTERNAL)


async def abort(context: "grpc.aio.ServicerContext[object, object]", error: GodotyError) -> None:
    """Abort a call with an error.

    Raises:
        grpc.aio.AbortError: Always, to end the handler.
    """
    request_id = structlog.contextvars.get_contextvars().get(REQUEST_ID, "")
    details = to_status(error, request_id=request_id).SerializeToString()
    try:
        await context.abort(code_of(error), error.text, trailing_metadata=((DETAILS_KEY, details),))
    except grpc.aio.AbortError as aborted:
        asyncio.get_running_loop().call_soon(_drop_frames, aborted)
        raise


def _drop_frames(aborted: BaseException) -> None:
    """Drop the frames of an exception that was raised.

    The call's context references the exception, and the frames reference the context, so only the garbage collector
    would free them. At 200 refused calls a second, it blocked the loop for 40 ms.
    """
    aborted.__traceback__ = aborted.__context__ = None


def to_status(error: GodotyError, *, request_id: str = "") -> status_pb2.Status:
    """Return an error's status and details: ErrorInfo always, each other type at most once.

    Args:
        error: The error.
        request_id: The id by which the log names the call; empty: it has none.
    """
    status = status_pb2.Status(code=code_of(error).value[0], message=error.text)
    _add(status, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    if request_id:
        _add(status, error_details_pb2.RequestInfo(request_id=request_id))
    retry_after = error.retry_after if error.retry_after is not None else _RETRY_AFTER.get(error.reason)
    if retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(retry_after * 1000))
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    if isinstance(error, QuotaExceeded):
        failure = error_details_pb2.QuotaFailure()
        failure.violations.add(subject=error.quota, description=error.text)
        _add(status, failure)
    if error.violations:
        _add(
            status,
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=each.field, description=each.description)
                    for each in error.violations
                ]
            ),
        )
    return status


def _add(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
