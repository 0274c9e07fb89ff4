"""The errors of administration and of tenants' limits, beside those of `godoty_service/errors.py`.

GodotyError
├── ApiKeyCreated             the same request created the key before
├── EtagMismatch              the resource was changed since it was read
├── OperatorOnly              a key that administers one tenant asked for more
└── OutputNotAllowed          the tenant's policy allows no output tokens
"""

from godoty_service.errors import GodotyError


class ApiKeyCreated(GodotyError):
    """The same request created the key before; its text is not stored."""

    reason = "API_KEY_CREATED"


class EtagMismatch(GodotyError):
    """The resource was changed since the caller read it, or is changed again and again."""

    reason = "ETAG_MISMATCH"


class OperatorOnly(GodotyError):
    """The key administers its own tenant alone, and the call needs a key of the operator."""

    reason = "OPERATOR_ONLY"


class OutputNotAllowed(GodotyError):
    """The tenant's policy allows no output tokens."""

    reason = "OUTPUT_NOT_ALLOWED"
