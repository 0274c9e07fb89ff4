"""What administrators do, by gRPC or by the command line: each change is recorded before it is made.

So none goes unrecorded, whatever dies in between; one whose write then failed is recorded, too.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import asdict
from datetime import datetime, timedelta

from godoty_service.tenancy.audit import AdminChanges
from godoty_service.tenancy.keys import ApiKey, ApiKeys
from godoty_service.tenancy.policies import Policies
from godoty_service.tenancy.policy import Policy
from godoty_service.tenancy.principal import Scope
from godoty_service.tenancy.provider_keys import ProviderKeys
from godoty_service.tenancy.tenants import Tenant, Tenants

Counting = Callable[[str], AbstractAsyncContextManager[None]]


class Administration:
    """The changes. `by` is the id of an API key, or the user of the command line."""

    def __init__(
        self,
        *,
        tenants: Tenants,
        keys: ApiKeys,
        policies: Policies,
        provider_keys: ProviderKeys,
        changes: AdminChanges,
        counting: Counting,
    ) -> None:
        """Build it.

        Args:
            tenants: Where tenants are kept.
            keys: Where API keys are kept.
            policies: Where policies are kept.
            provider_keys: Where tenants' own provider keys are kept.
            changes: Where changes are recorded.
            counting: Counts a tenant's spending, as a context in which a policy with budgets is put in force.
        """
        self.tenants = tenants
        self.keys = keys
        self.policies = policies
        self.provider_keys = provider_keys
        self.changes = changes
        self._counting = counting

    async def create_tenant(self, by: str, *, name: str) -> Tenant:
        """Make a tenant."""
        tenant = self.tenants.draft(name)
        await self._record(by, "CreateTenant", tenant.tenant_id, name=name)
        return await self.tenants.keep(tenant)

    async def issue_key(
        self, by: str, tenant_id: str, *, scopes: frozenset[Scope], expire_time: datetime | None
    ) -> tuple[ApiKey, str]:
        """Make an API key; returns it with its text, which is shown this once.

        Raises:
            TenantNotFound: There is no such tenant.
        """
        await self.tenants.need(tenant_id)
        key = self.keys.draft(tenant_id, scopes=scopes, expire_time=expire_time)
        await self._record(by, "IssueKey", tenant_id, **_told(key))
        return key, await self.keys.keep(key)

    async def revoke_key(self, by: str, tenant_id: str, key_id: str) -> None:
        """Put a key out of force, on every server within 5 seconds. One that is already stays so.

        Raises:
            TenantNotFound: There is no such tenant.
            KeyNotFound: It has no such key.
        """
        await self.tenants.need(tenant_id)
        await self.keys.need(tenant_id, key_id)
        await self._record(by, "RevokeKey", tenant_id, key_id=key_id)
        await self.keys.revoke(tenant_id, key_id)

    async def rotate_key(self, by: str, tenant_id: str, key_id: str, *, overlap: timedelta) -> tuple[ApiKey, str]:
        """Make a key like another, which then expires after the overlap.

        Raises:
            TenantNotFound: There is no such tenant.
            KeyNotFound: It has no such key in force.
        """
        await self.tenants.need(tenant_id)
        old = await self.keys.need(tenant_id, key_id, in_force=True)
        key = self.keys.successor(old)
        seconds = int(overlap.total_seconds())
        await self._record(by, "RotateKey", tenant_id, old_key_id=key_id, overlap_seconds=seconds, **_told(key))
        text = await self.keys.keep(key)
        await self.keys.expire(tenant_id, key_id, after=overlap)
        return key, text

    async def set_policy(self, by: str, tenant_id: str, policy: Policy) -> None:
        """Say what a tenant may do; it holds on every server within 5 seconds.

        Where the spending that its budgets bound cannot be counted, the policy is not put in force.

        Raises:
            TenantNotFound: There is no such tenant.
        """
        await self.tenants.need(tenant_id)
        await self._record(by, "SetPolicy", tenant_id, **asdict(policy))
        async with self._counting(tenant_id) if policy.budgets else nullcontext():
            await self.policies.set(tenant_id, policy)

    async def set_provider_key(self, by: str, tenant_id: str, secret: str | None) -> None:
        """Have a tenant use an OpenRouter key of its own, or none.

        Raises:
            TenantNotFound: There is no such tenant.
            ProviderKeysOff: The server has no encryption key.
        """
        await self.tenants.need(tenant_id)
        if secret is None:
            await self._record(by, "SetProviderKey", tenant_id, removed=True)
            await self.provider_keys.remove(tenant_id)
            return
        sealed = self.provider_keys.seal(tenant_id, secret)
        await self._record(by, "SetProviderKey", tenant_id, provider_key_id=sealed["key_id"])
        await self.provider_keys.keep(sealed)

    async def reseal_provider_keys(self, by: str) -> int:
        """Encrypt anew, with the first encryption key, what others encrypted; tells how many keys there were.

        Raises:
            ProviderKeysOff: One cannot be decrypted.
        """
        await self._record(by, "ResealProviderKeys", "")
        return await self.provider_keys.reseal()

    async def resolving_call(self, by: str, tenant_id: str, details: Mapping[str, object]) -> None:
        """Record that somebody is about to say what an unresolved call has cost: the ledger keeps that itself."""
        await self.changes.record(by=by, action="ResolveCall", tenant_id=tenant_id, details=details)

    async def adjusting_call(self, by: str, tenant_id: str, details: Mapping[str, object]) -> None:
        """Record that a call's cost is about to be adjusted; the ledger keeps the adjustment itself."""
        await self.changes.record(by=by, action="AdjustCall", tenant_id=tenant_id, details=details)

    async def repairing_times(self, by: str, tenant_id: str, details: Mapping[str, object]) -> None:
        """Record that entries' times are about to be replaced, with those that they had."""
        await self.changes.record(by=by, action="RepairTimes", tenant_id=tenant_id, details=details)

    async def _record(self, by: str, action: str, tenant_id: str, **details: object) -> None:
        await self.changes.record(by=by, action=action, tenant_id=tenant_id, details=details)


def _told(key: ApiKey) -> dict[str, object]:
    """Tell of a key what may be told."""
    return {"key_id": key.key_id, "scopes": sorted(key.scopes), "expire_time": key.expire_time}
