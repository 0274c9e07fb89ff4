"""Builds the job that erases the data of deleted tenants: `_steps` lists all that is erased."""

import asyncio
from datetime import datetime, timedelta

from godoty_service.bootstrap.components import Components
from godoty_service.errors import GodotyError, SessionNotFound, StorageUnavailable
from godoty_service.tenancy.erasure import ErasureStep, TenantErasure

_SESSIONS = 10  # that are deleted at once


def tenant_erasure(components: Components, *, delay: float, patience: timedelta) -> TenantErasure:
    """Build the job.

    Args:
        components: What is erased.
        delay: Seconds after the deletion of a tenant until its data are erased.
        patience: The time for which a call that is unresolved may still be resolved by its generation record.
    """
    return TenantErasure(
        components.tenancy.tenants,
        steps=_steps(components, patience),
        delay=timedelta(seconds=delay),
        now=components.database.now,
        living=components.replicas.alive,
        owner=components.replicas.replica_id,
    )


def _steps(components: Components, patience: timedelta) -> tuple[ErasureStep, ...]:
    """Return what is erased of a deleted tenant, in this order.

    The ledger, usage, the tracked spending and the recorded changes remain, and the tenant's own document.
    """
    eraser = _Eraser(components, patience)
    return (
        ErasureStep(name="key_revocation", erase=eraser.key_revocation),
        ErasureStep(name="sessions", erase=eraser.sessions),
        ErasureStep(name="messages", erase=eraser.messages),
        ErasureStep(name="actions", erase=eraser.actions),
        ErasureStep(name="attachments", erase=eraser.attachments),
        ErasureStep(name="turns", erase=eraser.turns),
        ErasureStep(name="webhooks", erase=eraser.webhooks),
        ErasureStep(name="users", erase=eraser.users),
        ErasureStep(name="api_keys", erase=eraser.api_keys),
        ErasureStep(name="policy", erase=eraser.policy),
        ErasureStep(name="agents", erase=eraser.agents),
        ErasureStep(name="mcp_servers", erase=eraser.mcp_servers),
        ErasureStep(name="provider_keys", erase=eraser.provider_keys),  # last: it waits for reconciliation
    )


class _Eraser:
    """The steps; each returns whether it is complete."""

    def __init__(self, components: Components, patience: timedelta) -> None:
        self._tenancy = components.tenancy
        self._conversations = components.conversations
        self._calls = components.accounting.ledger.unsettled
        self._users = components.users
        self._now = components.database.now
        self._patience = patience
        self._mcp = components.mcp
        self._webhooks = components.webhooks.erasure

    async def key_revocation(self, tenant_id: str) -> bool:
        """Revoke the API keys that the deletion did not; servers of earlier builds have them in their caches."""
        return await self._tenancy.api_keys.revoke_all(tenant_id) == 0

    async def sessions(self, tenant_id: str) -> bool:
        """Delete the sessions, their messages and logs; a turn that is being cancelled may still hold one.

        It is complete once it finds none: the tombstones of the logs remain until the next run, so that late writes of
        turns that are being cancelled collide with them.
        """
        complete = True
        after: tuple[datetime, str] | None = None
        lists = self._conversations.sessions.lists
        while page := await lists.page(tenant_id, user=None, after=after, limit=_SESSIONS, incomplete=True):
            complete, after = False, (page[-1].update_time, page[-1].uid)
            deletions = (self._conversations.deletions.finish(each) for each in page)
            for failure in await asyncio.gather(*deletions, return_exceptions=True):
                if not isinstance(failure, BaseException) or isinstance(failure, SessionNotFound):
                    continue
                if isinstance(failure, StorageUnavailable) or not isinstance(failure, GodotyError):
                    raise failure
        return complete

    async def messages(self, tenant_id: str) -> bool:
        """Delete the messages that no session has."""
        await self._conversations.messages.erase(tenant_id)
        return True

    async def actions(self, tenant_id: str) -> bool:
        """Delete the waiting steps and their calls, also those that a dead server left."""
        await self._conversations.actions.steps.erase(tenant_id)
        await self._conversations.actions.calls.erase(tenant_id)
        return True

    async def attachments(self, tenant_id: str) -> bool:
        """Delete the attachments and their bytes, also of uploads that no session has named."""
        await self._conversations.attachments.store.erase(tenant_id)
        return True

    async def turns(self, tenant_id: str) -> bool:
        """Delete the records of turns, also of deleted ones, and their logs.

        It is complete once it finds none: the last part of a log may be stored after its tombstone was erased.
        """
        complete = True
        turn_store, event_logs = self._conversations.turn_store, self._conversations.event_logs
        while turn_ids := await turn_store.some_ids(tenant_id):
            await event_logs.erase(tenant_id, turn_ids)
            await turn_store.erase(tenant_id, turn_ids)
            complete = False
        while turn_ids := await event_logs.some_ended(tenant_id):
            await event_logs.erase(tenant_id, turn_ids)
            complete = False
        return complete

    async def webhooks(self, tenant_id: str) -> bool:
        """Delete the webhooks, with their secrets and deliveries; complete once it finds none."""
        return await self._webhooks.tenant(tenant_id)

    async def users(self, tenant_id: str) -> bool:
        """Delete the names of the end users, once no entry has one; entries keep their references."""
        if await self._users.stored_names.in_ledger(tenant_id):  # its replacement would insert the users again
            return False
        await self._users.references.forget_tenant(tenant_id)
        return True

    async def api_keys(self, tenant_id: str) -> bool:
        """Delete the API keys and the counts of their turns."""
        keys, limiter = self._tenancy.api_keys, self._tenancy.turn_limiter
        while key_ids := await keys.some_ids(tenant_id):
            await limiter.erase(tenant_id, key_ids)
            await keys.erase(tenant_id, key_ids)
        await limiter.erase(tenant_id, ())
        return True

    async def policy(self, tenant_id: str) -> bool:
        """Delete the policy."""
        await self._tenancy.policies.erase(tenant_id)
        return True

    async def agents(self, tenant_id: str) -> bool:
        """Delete the agents and their versions."""
        await self._conversations.agents.erase(tenant_id)
        return True

    async def mcp_servers(self, tenant_id: str) -> bool:
        """Delete the MCP servers, with their secrets."""
        await self._mcp.servers.erase(tenant_id)
        return True

    async def provider_keys(self, tenant_id: str) -> bool:
        """Delete the tenant's OpenRouter keys, once no call needs them to be reconciled.

        An open call does, and one that became unresolved lately: its own server may have been out of reach, and resolve
        it by its generation record once it is back.
        """
        if await self._calls.any_open(tenant_id):
            return False
        keys = self._tenancy.provider_keys
        key_ids = await keys.key_ids(tenant_id)
        since = await self._now() - self._patience
        if key_ids and await self._calls.any_unresolved(tenant_id, provider_key_ids=key_ids, since=since):
            return False
        await keys.erase(tenant_id)
        return True
