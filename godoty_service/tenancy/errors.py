"""The errors of administration and of tenants' limits, beside those of `godoty_service/errors.py`.

GodotyError
├── AgentNotAllowed           by the tenant's policy
├── ApiKeyCreated             the same request created the key before
├── ErasureUnfinished         the erasure of a user goes on
├── EtagMismatch              the resource was changed since it was read
├── OperatorOnly              a key that administers one tenant asked for more
├── OutputNotAllowed          the tenant's policy allows no output tokens
├── TenantDeleted             nothing of the tenant can be changed
├── TenantExists              the id is, or was, that of a tenant
├── TenantSuspended           the operator suspended the tenant
├── ToolNotAllowed            of an agent, by the tenant's policy
└── UserNotFound              the tenant has no such end user
"""

from godoty_service.errors import GodotyError


class AgentNotAllowed(GodotyError):
    """The tenant's policy does not allow the agent."""

    reason = "AGENT_NOT_ALLOWED"


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


class TenantDeleted(GodotyError):
    """The tenant is deleted: nothing of it can be changed."""

    reason = "TENANT_DELETED"

    @classmethod
    def of(cls, tenant_id: str) -> "TenantDeleted":
        """Return the error for a tenant."""
        text = f"The tenant {tenant_id} is deleted: only its ledger can be read."
        return cls(text, metadata={"tenant_id": tenant_id})


class TenantExists(GodotyError):
    """The id is that of a tenant, or of a deleted one."""

    reason = "TENANT_EXISTS"

    @classmethod
    def of(cls, tenant_id: str) -> "TenantExists":
        """Return the error for a tenant."""
        text = f"The id {tenant_id} is, or was, that of a tenant: choose another one."
        return cls(text, metadata={"tenant_id": tenant_id})


class TenantSuspended(GodotyError):
    """The operator suspended the tenant."""

    reason = "TENANT_SUSPENDED"

    @classmethod
    def of(cls, tenant_id: str) -> "TenantSuspended":
        """Return the error for a tenant."""
        text = f"The tenant {tenant_id} is suspended, until the operator resumes it."
        return cls(text, metadata={"tenant_id": tenant_id})


class ToolNotAllowed(GodotyError):
    """The tenant's policy does not allow a tool of the agent."""

    reason = "TOOL_NOT_ALLOWED"


class UserNotFound(GodotyError):
    """The tenant has no such end user."""

    reason = "USER_NOT_FOUND"
