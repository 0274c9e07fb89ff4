"""Erases the data of deleted tenants in the background: step by step, each as often as needed.

A tenant's document says that its data are to be erased, from its deletion until all steps are complete. Each step
deletes what it finds, in pieces; it may be interrupted anywhere and be repeated by any server. A server claims a tenant
so that others need not do the same work; one that is dead is replaced.

The first step starts some time after the deletion: by then all servers know of it, so nothing new is written.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from collections.abc import Collection as Some
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from godoty_service.aio.periodic import run_every
from godoty_service.errors import GodotyError, StorageUnavailable
from godoty_service.tenancy.tenants import Tenants, TenantToErase

log = structlog.get_logger(__name__)

_MAX_FAILURES = 3  # tenants in a row: then the database cannot be reached for any of them

Living = Callable[[Some[str]], Awaitable[set[str]]]
Now = Callable[[], Awaitable[datetime]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureStep:
    """A part of a tenant's data.

    Attributes:
        name: What it is, for the log.
        erase: Erases it; returns False if some of it is still in use, so that it must be repeated later.
    """

    name: str
    erase: Callable[[str], Awaitable[bool]]


class TenantErasure:
    """Erases the data of deleted tenants."""

    def __init__(
        self,
        tenants: Tenants,
        *,
        steps: Sequence[ErasureStep],
        delay: timedelta,
        now: Now,
        living: Living,
        owner: str,
    ) -> None:
        """Create the job.

        Args:
            tenants: The tenants.
            steps: What is erased, in this order; one that is not complete delays those after it.
            delay: The time after the deletion at which all servers know of it.
            now: Returns the database's time, which all servers share.
            living: Returns which of some servers are alive.
            owner: The id of this server.
        """
        self._tenants = tenants
        self._steps = steps
        self._delay = delay
        self._now = now
        self._living = living
        self._owner = owner

    async def run(self, interval: float) -> None:
        """Erase what is to be erased every `interval` seconds, until cancelled."""
        await run_every(interval, self.run_once, failure="tenants_not_erased", fault="erasure_fault")

    async def run_once(self) -> None:
        """Continue the erasure of each deleted tenant that no other server works on.

        A tenant whose erasure fails, or waits for what is still in use, is retried by the next run, and does not block
        other tenants.

        Raises:
            StorageUnavailable: The database cannot be reached: several tenants in a row failed with it.
        """
        failed = 0
        async for tenant in self._to_erase():
            try:
                await self._continue(tenant.tenant_id, tenant.owner)
                failed = 0
            except StorageUnavailable as error:
                log.warning("tenant_not_erased", tenant_id=tenant.tenant_id, error=str(error))
                failed += 1
                if failed == _MAX_FAILURES:
                    raise

    async def _to_erase(self) -> AsyncIterator[TenantToErase]:
        """Yield all tenants whose data are to be erased now, in the order of their deletion."""
        before = await self._now() - self._delay
        page = await self._tenants.to_erase(deleted_before=before)
        while page:
            for each in page:
                yield each
            page = await self._tenants.to_erase(deleted_before=before, after=page[-1])

    async def _continue(self, tenant_id: str, owner: str) -> None:
        """Continue the erasure of a tenant, unless another server works on it.

        Raises:
            StorageUnavailable: The database cannot be reached, or an operation takes too long.
        """
        if await self._claim(tenant_id, owner) and await self._erase(tenant_id):
            await self._tenants.end_erasure(tenant_id)
            log.info("tenant_erased", tenant_id=tenant_id)

    async def _claim(self, tenant_id: str, owner: str) -> bool:
        """Return whether this server is the one that erases a tenant's data; it replaces a dead one."""
        if owner == self._owner:
            return True
        if owner and await self._living([owner]):
            return False
        return await self._tenants.claim_erasure(tenant_id, owner=self._owner, instead_of=owner)

    async def _erase(self, tenant_id: str) -> bool:
        """Do the steps up to the first that is not complete; return whether all are. The next run repeats the rest.

        Raises:
            StorageUnavailable: The database cannot be reached, or an operation takes too long.
        """
        for step in self._steps:
            try:
                if not await step.erase(tenant_id):
                    return False
            except StorageUnavailable:
                raise
            except GodotyError as error:
                log.warning("tenant_not_erased", tenant_id=tenant_id, step=step.name, error=str(error))
                return False
            except Exception:
                log.exception("erasure_fault", tenant_id=tenant_id, step=step.name)
                return False
        return True
