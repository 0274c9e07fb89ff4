"""The errors of administration and of tenants' limits, beside those of `godoty_service/errors.py`.

GodotyError
├── ApiKeyCreated             the same request created the key before
├── ErasureUnfinished         the erasure of a user goes on
├── EtagMismatch              the resource was changed since it was read
├── OperatorOnly              a key that administers one tenant asked for more
├── OutputNotAllowed          the tenant's policy allows no output tokens
└── UserNotFound              the tenant has no such end user
"""

from godoty_service.errors import GodotyError


class ApiKeyCreated(GodotyError):
    """The same request created the key before; its text is not stored."""

    reason = "API_KEY_CREATED"


class ErasureUnfinished(GodotyError):
    """The erasure of a user takes longer than the caller waits; it goes on."""

    reason = "ERASURE_UNFINISHED"


class EtagMismatch(GodotyError):
    """The resource was changed since the caller read it, or is changed again and again."""

    reason = "ETAG_MISMATCH"


class OperatorOnly(GodotyError):
    """The key administers its own tenant alone, and the call needs a key of the operator."""

    reason = "OPERATOR_ONLY"


class OutputNotAllowed(GodotyError):
    """The tenant's policy allows no output tokens."""

    reason = "OUTPUT_NOT_ALLOWED"


class UserNotFound(GodotyError):
    """The tenant has no such end user."""

    reason = "USER_NOT_FOUND"
