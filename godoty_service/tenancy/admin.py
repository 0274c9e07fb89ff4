"""Administrators' changes, by gRPC or by the command line: each is recorded in the audit log before it is made.

So no crash leaves a change unrecorded; a change whose write then failed is recorded, too.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import asdict
from datetime import timedelta

from godoty_service.budgets.budget import Budget
from godoty_service.errors import DuplicateKey
from godoty_service.tenancy.api_keys import ApiKey, ApiKeys, ApiKeyTerms
from godoty_service.tenancy.audit import Actor, AdminChanges, Values
from godoty_service.tenancy.errors import ApiKeyCreated, EtagMismatch
from godoty_service.tenancy.lifecycle import TenantLifecycle
from godoty_service.tenancy.policies import Policies, Policy, PolicyChange, PolicyVersion
from godoty_service.tenancy.provider_keys import ProviderKeys
from godoty_service.tenancy.request_ids import AdminRequest
from godoty_service.tenancy.tenants import Tenants

_UPDATE_ATTEMPTS = 20  # of a change that others' changes overtake

Counting = Callable[[str], AbstractAsyncContextManager[None]]
CheckKey = Callable[[ApiKey], None]


class _Overtaken(Exception):
    """Another change of the policy was made first."""


class Administration:
    """Makes changes."""

    def __init__(
        self,
        *,
        tenants: Tenants,
        lifecycle: TenantLifecycle,
        keys: ApiKeys,
        policies: Policies,
        provider_keys: ProviderKeys,
        changes: AdminChanges,
        counting: Counting,
    ) -> None:
        """Create the service.

        Args:
            tenants: The tenants.
            lifecycle: Makes the changes to tenants themselves.
            keys: The API keys.
            policies: The policies.
            provider_keys: The tenants' own provider keys.
            changes: The audit log.
            counting: Returns a context that counts a tenant's spending; a policy with budgets is set inside it.
        """
        self.tenants = tenants
        self.lifecycle = lifecycle
        self.keys = keys
        self.policies = policies
        self.provider_keys = provider_keys
        self.changes = changes
        self._counting = counting

    async def create_api_key(
        self, actor: Actor, tenant_id: str, terms: ApiKeyTerms, *, request: AdminRequest | None = None
    ) -> tuple[ApiKey, str]:
        """Create an API key; return it with its text, which is shown only this once.

        Raises:
            TenantNotFound: There is no such tenant.
            TenantDeleted: It is deleted.
            ApiKeyCreated: The same request created a key before.
            RequestIdReused: The request's id was used for another request.
        """
        await self.tenants.require_changeable(tenant_id)
        await self._check_first(tenant_id, request)
        key = self.keys.new(tenant_id, terms)
        await self._record(actor, "CreateApiKey", tenant_id, new=_key_values(key))
        return key, await self._insert_key(key, request)

    async def revoke_api_key(
        self, actor: Actor, tenant_id: str, key_id: str, *, check: CheckKey = lambda _: None
    ) -> None:
        """Revoke an API key, on every server within 5 seconds. Revoking it again has no effect.

        Args:
            actor: The author.
            tenant_id: The tenant.
            key_id: The key.
            check: Raises if the author may not revoke the key.

        Raises:
            TenantNotFound: There is no such tenant.
            TenantDeleted: It is deleted.
            ApiKeyNotFound: It has no such key.
        """
        await self.tenants.require_changeable(tenant_id)
        key = await self.keys.require(tenant_id, key_id)
        check(key)
        before = {"api_key_id": key_id, "revoked": key.revoke_time is not None}
        await self._record(actor, "RevokeApiKey", tenant_id, old=before, new=before | {"revoked": True})
        await self.keys.revoke(tenant_id, key_id)

    async def rotate_api_key(
        self,
        actor: Actor,
        tenant_id: str,
        key_id: str,
        *,
        overlap: timedelta,
        check: CheckKey = lambda _: None,
        request: AdminRequest | None = None,
    ) -> tuple[ApiKey, str]:
        """Create a successor of an API key, which then expires after the overlap.

        Args:
            actor: The author.
            tenant_id: The tenant.
            key_id: The key.
            overlap: The duration for which the old key remains valid.
            check: Raises if the author may not create such a key.
            request: The request, if it has an id.

        Raises:
            TenantNotFound: There is no such tenant.
            TenantDeleted: It is deleted.
            ApiKeyNotFound: It has no such key in force.
            ApiKeyCreated: The same request created a successor before.
            RequestIdReused: The request's id was used for another request.
        """
        await self.tenants.require_changeable(tenant_id)
        try:
            await self._check_first(tenant_id, request)
            old = await self.keys.require(tenant_id, key_id, in_force=True)
            check(old)
            key = self.keys.successor(old)
            overlapping = {"old_api_key_id": key_id, "overlap_seconds": overlap.total_seconds()}
            await self._record(
                actor, "RotateApiKey", tenant_id, old=_key_values(old), new=_key_values(key) | overlapping
            )
            text = await self._insert_key(key, request)
        except ApiKeyCreated:  # the first request may have been interrupted here
            await self.keys.expire(tenant_id, key_id, after=overlap)
            raise
        await self.keys.expire(tenant_id, key_id, after=overlap)
        return key, text

    async def update_policy(
        self, actor: Actor, tenant_id: str, change: PolicyChange, *, check: Callable[[Policy], None] = lambda _: None
    ) -> PolicyVersion:
        """Change a tenant's policy; the new one is in force on every server within 5 seconds.

        If the spending under its budgets cannot be counted, the policy is not changed.

        Args:
            actor: The author.
            tenant_id: The tenant.
            change: The change.
            check: Raises if the new policy is invalid.

        Raises:
            TenantNotFound: There is no such tenant.
            TenantDeleted: It is deleted.
            EtagMismatch: The policy is not the one that the change is based on.
        """
        await self.tenants.require_changeable(tenant_id)
        old = await self.policies.read_version(tenant_id)
        for _ in range(_UPDATE_ATTEMPTS):
            if change.etag not in ("", old.etag):
                break
            policy = change.apply(old.policy)
            check(policy)
            before, after = _plain(change.values(old.policy)), _plain(change.values(policy))
            await self._record(actor, "UpdatePolicy", tenant_id, old=before, new=after)
            updated = await self._update_policy(tenant_id, change, old, counted=bool(policy.budgets))
            old = await self.policies.read_version(tenant_id)
            if updated:
                return old
        raise EtagMismatch(
            "The policy was changed meanwhile: read it again, and send the change with its etag.",
            metadata={"etag": old.etag},
        )

    async def _update_policy(self, tenant_id: str, change: PolicyChange, old: PolicyVersion, *, counted: bool) -> bool:
        """Change a policy if it is still the version that was read; if it is not, no spending is counted for it."""
        with suppress(_Overtaken):
            async with self._counting(tenant_id) if counted else nullcontext():
                if not await self.policies.update(tenant_id, change, over=old):
                    raise _Overtaken
            return True
        return False

    async def set_provider_key(self, actor: Actor, tenant_id: str, secret: str | None) -> None:
        """Set a tenant's own OpenRouter key; None removes it.

        Raises:
            TenantNotFound: There is no such tenant.
            TenantDeleted: It is deleted.
            ProviderKeysOff: The server has no encryption key.
        """
        await self.tenants.require_changeable(tenant_id)
        before = {"provider_key_id": await self.provider_keys.current_id(tenant_id)}
        if secret is None:
            await self._record(actor, "SetProviderKey", tenant_id, old=before, new={"provider_key_id": None})
            await self.provider_keys.remove(tenant_id)
            return
        sealed = self.provider_keys.seal(tenant_id, secret)
        after = {"provider_key_id": sealed["key_id"]}
        await self._record(actor, "SetProviderKey", tenant_id, old=before, new=after)
        await self.provider_keys.insert(sealed)

    async def reseal_provider_keys(self, actor: Actor) -> int:
        """Re-encrypt with the first encryption key what others encrypted; return the number of keys changed.

        Raises:
            ProviderKeysOff: One cannot be decrypted.
        """
        await self._record(actor, "ResealProviderKeys", "", new={})
        return await self.provider_keys.reseal()

    async def record_resolution(self, actor: Actor, tenant_id: str, *, old: Values, new: Values) -> None:
        """Record that an unresolved call is about to be resolved; the ledger stores the resolution itself."""
        await self._record(actor, "ResolveCall", tenant_id, old=old, new=new)

    async def record_adjustment(self, actor: Actor, tenant_id: str, *, old: Values, new: Values) -> None:
        """Record that a call's cost is about to be adjusted; the ledger stores the adjustment itself."""
        await self._record(actor, "AdjustCall", tenant_id, old=old, new=new)

    async def record_time_repair(self, actor: Actor, tenant_id: str, *, old: Values, new: Values) -> None:
        """Record that entries' times are about to be replaced."""
        await self._record(actor, "RepairTimes", tenant_id, old=old, new=new)

    async def record_agent(self, actor: Actor, tenant_id: str, *, method: str, old: Values | None, new: Values) -> None:
        """Record that an agent is about to be changed; its versions have the content."""
        await self._record(actor, method, tenant_id, old=old, new=new)

    async def record_erasure(
        self, actor: Actor, tenant_id: str, *, user_reference: str, request_id: str | None
    ) -> None:
        """Record that an end user is about to be erased: by the reference, since the name is erased as well."""
        values = {"user_reference": user_reference, "request_id": request_id}
        await self._record(actor, "EraseUser", tenant_id, new=values)

    async def record_mcp_change(
        self, actor: Actor, method: str, tenant_id: str, *, old: Values | None, new: Values
    ) -> None:
        """Record that a tenant's MCP server is about to be created, changed or deleted.

        Raises:
            TenantNotFound: There is no such tenant.
            TenantDeleted: It is deleted.
        """
        await self.tenants.require_changeable(tenant_id)
        await self._record(actor, method, tenant_id, old=old, new=new)

    async def record_webhook_change(
        self, actor: Actor, method: str, tenant_id: str, *, old: Values | None, new: Values
    ) -> None:
        """Record that a tenant's webhook is about to be created, changed or deleted.

        Raises:
            TenantNotFound: There is no such tenant.
            TenantDeleted: It is deleted.
        """
        await self.tenants.require_changeable(tenant_id)
        await self._record(actor, method, tenant_id, old=old, new=new)

    async def _insert_key(self, key: ApiKey, request: AdminRequest | None) -> str:
        """Insert a key; return its text.

        Raises:
            ApiKeyCreated: The same request created a key meanwhile.
            RequestIdReused: The request's id was used for another request meanwhile.
        """
        try:
            return await self.keys.insert(key, request)
        except DuplicateKey:
            await self._check_first(key.tenant_id, request)
            raise

    async def _check_first(self, tenant_id: str, request: AdminRequest | None) -> None:
        """Check that a request has created no key before.

        Raises:
            ApiKeyCreated: It has.
            RequestIdReused: Its id was used for another request.
        """
        if request is not None and (found := await self.keys.of_request(tenant_id, request)) is not None:
            raise ApiKeyCreated(
                f"The request created the API key {found.key_id} before; its text is not stored.",
                metadata={"api_key_id": found.key_id},
            )

    async def _record(
        self, actor: Actor, method: str, tenant_id: str, *, old: Values | None = None, new: Values
    ) -> None:
        await self.changes.record(actor=actor, method=method, tenant_id=tenant_id, old=old, new=new)


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    """Return values of a policy as JSON has them."""
    return {
        name: [asdict(each) if isinstance(each, Budget) else each for each in value]
        if isinstance(value, tuple)
        else value
        for name, value in values.items()
    }


def _key_values(key: ApiKey) -> dict[str, object]:
    """Return what the audit log records of a key: nothing secret."""
    return {
        "api_key_id": key.key_id,
        "display_name": key.display_name,
        "scopes": sorted(key.scopes),
        "models": list(key.limits.models),
        "turns_per_minute": key.limits.turns_per_minute,
        "expire_time": key.expire_time,
    }
