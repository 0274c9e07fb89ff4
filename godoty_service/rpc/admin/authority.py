"""What an API key that administers its own tenant may not do; a key of the operator may do all."""

from typing import Protocol

from godoty_service.errors import TenantNotFound
from godoty_service.tenancy.auth import KeyLimits, Principal, Scope
from godoty_service.tenancy.errors import OperatorOnly


class Grant(Protocol):
    """What a key may do: one that exists, or a new one's terms."""

    @property
    def scopes(self) -> frozenset[Scope]:
        """The scopes."""

    @property
    def limits(self) -> KeyLimits:
        """The key's own limits."""


def check_tenant(principal: Principal, tenant_id: str) -> None:
    """Check that the caller may access a tenant.

    Raises:
        TenantNotFound: It may not; the error is that of a tenant that does not exist.
    """
    if not principal.is_operator and tenant_id != principal.tenant_id:
        raise TenantNotFound(f"There is no tenant {tenant_id}.", metadata={"tenant_id": tenant_id})


def check_grant(principal: Principal, grant: Grant, *, method: str) -> None:
    """Check that the caller may create a key like this one.

    It may create keys of all scopes within its tenant, but none of the operator's, and none whose limits are wider than
    its own.

    Raises:
        OperatorOnly: It may not.
    """
    if principal.is_operator:
        return
    if Scope.ADMIN in grant.scopes:
        raise _operator_only("Only a key of the operator creates a key of the operator.", method)
    if not principal.limits.covers(grant.limits):
        raise _operator_only("The key would have wider limits of models or turns than the caller's own.", method)


def check_revocation(principal: Principal, key: Grant) -> None:
    """Check that the caller may revoke a key.

    Raises:
        OperatorOnly: The key is the operator's, and the caller's is not.
    """
    if Scope.ADMIN in key.scopes and not principal.is_operator:
        raise _operator_only("Only a key of the operator revokes a key of the operator.", "RevokeApiKey")


def _operator_only(text: str, method: str) -> OperatorOnly:
    return OperatorOnly(text, metadata={"method": method})
