"""The errors that cross packages; `rpc/status.py` converts them to gRPC statuses.

GodotyError
├── InvalidRequest            invalid fields
│   └── UnknownModel
├── InvalidApiKey
├── ScopeMissing
├── SessionNotFound
├── MessageNotFound
├── SessionBusy               another turn is running
├── SessionLost               the lease was taken over, or the session deleted
├── TurnCancelled
├── TurnNotFound
├── TurnTimedOut
├── TurnTooLarge
├── RequestIdReused
├── TenantNotFound
├── ApiKeyNotFound
├── CallNotFound              the tenant has no such model call
├── CallNotAdjustable         the call's cost is unknown
├── AmountRefused             an impossible amount for a call
├── ProviderKeysOff           no encryption key for tenants' own provider keys
├── ModelNotAllowed           by the tenant's policy
├── QuotaExceeded
│   ├── BudgetSpent
│   ├── BudgetReserved        open calls reserve the rest
│   ├── MaxCostTooLow         the turn's own limit
│   ├── RateLimited
│   └── TooManyTurns
├── CostUnbounded             a price is unknown under a hard limit
├── ShuttingDown
├── StorageError
│   ├── StorageUnavailable    no primary, no connection, timeout
│   │   └── SnapshotLost      the snapshot expired; read a later one
│   ├── SchemaError           the database's schema version is too old or too new for this build
│   └── DuplicateKey          a unique index refused the write; always caught by its writer
└── ProviderError
    ├── ProviderAccountRefused   401, 402, 403: the service's account, not the caller's fault
    ├── ProviderThrottled        429
    ├── ProviderUnavailable      5xx, 408, 409, broken or unreadable streams
    ├── ProviderRejectedRequest  400, 422
    │   └── InputModerated       the request's content was flagged
    ├── ContextWindowExceeded    also 413
    └── ModelUnavailable         404: no endpoint serves it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """An invalid field: its path in the request, and what it must be."""

    field: str
    description: str


class GodotyError(Exception):
    """Base of all errors. The text is for the caller: it contains no secret, no prompt and no internal detail."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        text: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        """Create the error.

        Args:
            text: One sentence for the caller: what happened, the figure, and what to do.
            metadata: Machine-readable details, by the names that errors.proto documents.
            retry_after: Seconds after which a retry may succeed.
            violations: The invalid fields.
        """
        super().__init__(text)
        self.text = text
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        self.violations = tuple(violations)


def internal_error(request_id: str) -> GodotyError:
    """Return what a caller gets in place of a fault; its log line has this id, of the request or the turn."""
    text = f"Internal error. Retry once; if it persists, report request id {request_id}: the log has its cause."
    return GodotyError(text, metadata={"request_id": request_id})


class InvalidRequest(GodotyError):
    """One or more fields are invalid."""

    reason = "INVALID_FIELD"

    @classmethod
    def of(cls, field: str, description: str) -> "InvalidRequest":
        """Return the error for one invalid field."""
        return cls(f"{field}: {description}", violations=[FieldViolation(field=field, description=description)])


class UnknownModel(InvalidRequest):
    """The provider's catalogue has no such model."""

    reason = "UNKNOWN_MODEL"


class InvalidApiKey(GodotyError):
    """No key, or one that is unknown, expired or revoked."""

    reason = "INVALID_API_KEY"


class ScopeMissing(GodotyError):
    """The key lacks the scope that the method needs."""

    reason = "SCOPE_MISSING"


class SessionNotFound(GodotyError):
    """The tenant has no such session."""

    reason = "SESSION_NOT_FOUND"


class MessageNotFound(GodotyError):
    """The session has no such message."""

    reason = "MESSAGE_NOT_FOUND"


class SessionBusy(GodotyError):
    """Another turn of the session is running."""

    reason = "SESSION_BUSY"


class SessionLost(GodotyError):
    """The session was taken over or deleted while this turn ran."""

    reason = "SESSION_LOST"


class TurnCancelled(GodotyError):
    """The turn was cancelled before its answer was complete."""

    reason = "TURN_CANCELLED"


class TurnNotFound(GodotyError):
    """The tenant has no such turn, or its log has expired."""

    reason = "TURN_NOT_FOUND"


class TurnTimedOut(GodotyError):
    """The turn exceeded the time limit of a turn."""

    reason = "DEADLINE_EXCEEDED"


class TurnTooLarge(GodotyError):
    """The turn exceeded the size limit of its log."""

    reason = "TURN_TOO_LARGE"


class RequestIdReused(GodotyError):
    """The request id was used for another request."""

    reason = "REQUEST_ID_REUSED"


class TenantNotFound(GodotyError):
    """There is no such tenant, or the caller may not access it."""

    reason = "TENANT_NOT_FOUND"


class ApiKeyNotFound(GodotyError):
    """The tenant has no such API key."""

    reason = "API_KEY_NOT_FOUND"


class CallNotFound(GodotyError):
    """The tenant's ledger has no such model call."""

    reason = "CALL_NOT_FOUND"


class CallNotAdjustable(GodotyError):
    """The call is pending or unresolved: there is no cost to adjust."""

    reason = "CALL_NOT_ADJUSTABLE"


class AmountRefused(GodotyError):
    """An amount exceeds the precision or the maximum, or puts the call's total above its bound or below zero."""

    reason = "AMOUNT_REFUSED"


class ProviderKeysOff(GodotyError):
    """The server lacks the encryption key to store or read a tenant's own provider key."""

    reason = "PROVIDER_KEYS_OFF"


class ModelNotAllowed(GodotyError):
    """The tenant's policy does not allow the model."""

    reason = "MODEL_NOT_ALLOWED"


class QuotaExceeded(GodotyError):
    """A budget or a limit is reached; `quota` names it."""

    def __init__(
        self,
        text: str,
        *,
        quota: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        """Create the error.

        Args:
            text: As in `GodotyError`.
            quota: The budget or limit, such as "budget/day".
            metadata: As in `GodotyError`.
            retry_after: As in `GodotyError`.
            violations: As in `GodotyError`.
        """
        super().__init__(text, metadata=metadata, retry_after=retry_after, violations=violations)
        self.quota = quota


class BudgetSpent(QuotaExceeded):
    """A hard budget is spent."""

    reason = "BUDGET_SPENT"


class BudgetReserved(QuotaExceeded):
    """Open calls have reserved the rest of a hard budget."""

    reason = "BUDGET_RESERVED"


class MaxCostTooLow(QuotaExceeded):
    """The turn's own cost limit does not cover its first model call."""

    reason = "MAX_COST_TOO_LOW"


class RateLimited(QuotaExceeded):
    """The tenant's turns per minute are used up."""

    reason = "RATE_LIMITED"


class TooManyTurns(QuotaExceeded):
    """The tenant's maximum number of concurrent turns is running."""

    reason = "TOO_MANY_TURNS"


class CostUnbounded(GodotyError):
    """The cost of a call has no upper bound, but a hard limit applies to it."""

    reason = "COST_UNBOUNDED"


class ShuttingDown(GodotyError):
    """The server accepts no new turns."""

    reason = "SHUTTING_DOWN"


class StorageError(GodotyError):
    """A database operation failed."""


class StorageUnavailable(StorageError):
    """The database cannot be reached, has no primary, or took too long."""

    reason = "STORAGE_UNAVAILABLE"


class SnapshotLost(StorageUnavailable):
    """The snapshot that was read has expired: it is too old, or an index was created since."""


class SchemaError(StorageError):
    """The schema version of the database does not fit this build, or it cannot be migrated now."""


class DuplicateKey(StorageError):
    """A unique index refused a write."""


class ProviderError(GodotyError):
    """The provider responded with an error, or not at all."""

    reason = "PROVIDER_UNAVAILABLE"
    retryable: ClassVar[bool] = False
    moderated: ClassVar[bool] = False
    rejected: ClassVar[bool] = False
    about_account: ClassVar[bool] = False

    def __init__(
        self,
        text: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        violations: Sequence[FieldViolation] = (),
        message: str | None = None,
    ) -> None:
        """Create the error.

        Args:
            text: As in `GodotyError`.
            metadata: As in `GodotyError`.
            retry_after: As in `GodotyError`.
            violations: As in `GodotyError`.
            message: The provider's own message, sanitized by `openrouter/error_message.py`; None: there is none.
        """
        super().__init__(text, metadata=metadata, retry_after=retry_after, violations=violations)
        self.message = message

    def message_for_tenant(self, *, own_key: bool) -> str | None:
        """Return the provider's message if the tenant may read it; one about the service's account is for the operator.

        Args:
            own_key: The request was sent with the tenant's own provider key.
        """
        return self.message if own_key or not self.about_account else None


def provider_message(error: GodotyError) -> str | None:
    """Return the provider's own message of an error, for the log, or None if there is none."""
    return error.message if isinstance(error, ProviderError) else None


class ProviderAccountRefused(ProviderError):
    """The provider refused the service's account."""

    reason = "PROVIDER_ACCOUNT_REFUSED"
    about_account = True


class ProviderThrottled(ProviderError):
    """The provider is rate limiting."""

    reason = "PROVIDER_THROTTLED"
    retryable = True


class ProviderUnavailable(ProviderError):
    """The provider failed, timed out, or broke the stream."""

    retryable = True


class ProviderRejectedRequest(ProviderError):
    """The provider refused the request itself; later turns do not send again what it had attached."""

    reason = "PROVIDER_REJECTED_REQUEST"
    rejected = True


class InputModerated(ProviderRejectedRequest):
    """Moderation flagged the request's content; later turns do not send it again."""

    moderated = True


class ContextWindowExceeded(ProviderError):
    """The conversation exceeds the model's context window."""

    reason = "CONTEXT_WINDOW_EXCEEDED"


class ModelUnavailable(ProviderError):
    """No provider serves the model at present."""

    reason = "MODEL_UNAVAILABLE"
