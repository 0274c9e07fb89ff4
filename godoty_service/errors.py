"""The errors that cross rooms. Imports nothing of ours; `rpc/status.py` turns them into statuses, once.

GodotyError
├── InvalidRequest            the caller's fields
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
├── KeyNotFound
├── CallNotFound              the tenant has no such model call
├── CallNotAdjustable         the call's cost is not known yet
├── AmountRefused             an amount that a call cannot cost
├── ProviderKeysOff           no encryption key for tenants' own provider keys
├── ModelNotAllowed           the tenant's policy
├── QuotaExceeded
│   ├── BudgetSpent
│   ├── BudgetReserved        open calls hold what is left
│   ├── MaxCostTooLow         the turn's own bound
│   ├── RateLimited
│   └── TooManyTurns
├── CostUnbounded             a price is unknown under a hard bound
├── ShuttingDown
├── StorageError
│   ├── StorageUnavailable    no primary, no connection, timeout
│   │   └── SnapshotLost      the moment cannot be read any more; a later one can
│   └── DuplicateKey          a unique index said no; always caught by the room that wrote
└── ProviderError
    ├── ProviderAccountRefused   401, 402, 403: our account, not the caller's fault
    ├── ProviderThrottled        429
    ├── ProviderUnavailable      5xx, 408, 409, broken or unreadable streams
    ├── ProviderRejectedRequest  400, 422
    │   └── InputModerated       what the request says was flagged
    ├── ContextWindowExceeded    also 413
    └── ModelUnavailable         404: no endpoint serves it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """A refused field: its path in the request, and what it may hold."""

    field: str
    description: str


class GodotyError(Exception):
    """Base of all. The text is written for the caller: it holds no secret, no prompt and no inner detail."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        text: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        """Keep what the caller is told.

        Args:
            text: One sentence for the caller.
            metadata: Facts for programs, by the names that errors.proto documents.
            retry_after: Seconds after which a retry may help.
            violations: The refused fields.
        """
        super().__init__(text)
        self.text = text
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        self.violations = tuple(violations)


class InvalidRequest(GodotyError):
    """One or more fields are refused."""

    reason = "INVALID_FIELD"

    @classmethod
    def of(cls, field: str, description: str) -> "InvalidRequest":
        """Refuse one field."""
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
    """The turn was cancelled before it had an answer."""

    reason = "TURN_CANCELLED"


class TurnNotFound(GodotyError):
    """The tenant has no such turn, or its log is no longer kept."""

    reason = "TURN_NOT_FOUND"


class TurnTimedOut(GodotyError):
    """The turn took longer than any may."""

    reason = "DEADLINE_EXCEEDED"


class TurnTooLarge(GodotyError):
    """The turn wrote more than its log may hold."""

    reason = "TURN_TOO_LARGE"


class RequestIdReused(GodotyError):
    """The request id was used for another request."""

    reason = "REQUEST_ID_REUSED"


class TenantNotFound(GodotyError):
    """There is no such tenant, or the caller may not know of it."""

    reason = "TENANT_NOT_FOUND"


class KeyNotFound(GodotyError):
    """The tenant has no such API key."""

    reason = "KEY_NOT_FOUND"


class CallNotFound(GodotyError):
    """The tenant's ledger has no such model call."""

    reason = "CALL_NOT_FOUND"


class CallNotAdjustable(GodotyError):
    """The call is pending or unresolved: there is no cost to adjust."""

    reason = "CALL_NOT_ADJUSTABLE"


class AmountRefused(GodotyError):
    """An amount is finer or larger than any may be, above the call's bound, or brings its total below zero."""

    reason = "AMOUNT_REFUSED"


class ProviderKeysOff(GodotyError):
    """The server has no encryption key with which a tenant's own provider key could be kept or read."""

    reason = "PROVIDER_KEYS_OFF"


class ModelNotAllowed(GodotyError):
    """The tenant's policy does not allow the model."""

    reason = "MODEL_NOT_ALLOWED"


class QuotaExceeded(GodotyError):
    """A budget or a limit is reached. `quota` names it."""

    def __init__(
        self,
        text: str,
        *,
        quota: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        """Say what is reached.

        Args:
            text: One sentence for the caller.
            quota: What is reached, such as "budget/day".
            metadata: Facts for programs.
            retry_after: Seconds after which a retry may help.
            violations: The refused fields.
        """
        super().__init__(text, metadata=metadata, retry_after=retry_after, violations=violations)
        self.quota = quota


class BudgetSpent(QuotaExceeded):
    """A hard budget is spent."""

    reason = "BUDGET_SPENT"


class BudgetReserved(QuotaExceeded):
    """What is left of a hard budget is reserved by open calls."""

    reason = "BUDGET_RESERVED"


class MaxCostTooLow(QuotaExceeded):
    """The turn's own bound on its cost does not cover its first model call."""

    reason = "MAX_COST_TOO_LOW"


class RateLimited(QuotaExceeded):
    """As many turns have started as may in a minute."""

    reason = "RATE_LIMITED"


class TooManyTurns(QuotaExceeded):
    """As many turns are running as may at the same time."""

    reason = "TOO_MANY_TURNS"


class CostUnbounded(GodotyError):
    """A call under a hard bound whose own cost has none."""

    reason = "COST_UNBOUNDED"


class ShuttingDown(GodotyError):
    """The server takes no new turns."""

    reason = "SHUTTING_DOWN"


class StorageError(GodotyError):
    """The database did not do what was asked."""


class StorageUnavailable(StorageError):
    """The database cannot be reached, has no primary, or took too long."""

    reason = "STORAGE_UNAVAILABLE"


class SnapshotLost(StorageUnavailable):
    """The moment that was read is gone: it is too old, or an index was made since."""


class DuplicateKey(StorageError):
    """A unique index refused a write."""


class ProviderError(GodotyError):
    """The provider answered with an error, or not at all."""

    reason = "PROVIDER_UNAVAILABLE"
    retryable: ClassVar[bool] = False
    moderated: ClassVar[bool] = False
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
        """Keep what is known of the failure.

        Args:
            text: One sentence for the caller.
            metadata: Facts for programs.
            retry_after: Seconds after which a retry may help.
            violations: The refused fields.
            message: The provider's own message, cleaned by `openrouter/error_message.py`; None: there is none.
        """
        super().__init__(text, metadata=metadata, retry_after=retry_after, violations=violations)
        self.message = message

    def message_for_tenant(self, *, own_key: bool) -> str | None:
        """Return the provider's message, if the tenant may read it: one about the service's account is the operator's.

        Args:
            own_key: The request was sent with the tenant's own provider key.
        """
        return self.message if own_key or not self.about_account else None


def provider_message(error: GodotyError) -> str | None:
    """Return the provider's own message behind an error, for the log; None: there is none."""
    return error.message if isinstance(error, ProviderError) else None


class ProviderAccountRefused(ProviderError):
    """The provider refused this service's account."""

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
    """The provider refused the request itself."""

    reason = "PROVIDER_REJECTED_REQUEST"


class InputModerated(ProviderRejectedRequest):
    """A moderation flagged what the request says: it is not sent again with the turns that follow."""

    moderated = True


class ContextWindowExceeded(ProviderError):
    """The conversation does not fit the model."""

    reason = "CONTEXT_WINDOW_EXCEEDED"


class ModelUnavailable(ProviderError):
    """No provider serves the model just now."""

    reason = "MODEL_UNAVAILABLE"
