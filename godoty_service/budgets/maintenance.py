"""Completes what servers that died left unfinished: settles orphaned reservations and sets opening balances."""

from collections.abc import Awaitable, Callable, Iterable
from collections.abc import Collection as Some
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from godoty_service.budgets.opening_balance import OpeningBalanceJob
from godoty_service.budgets.service import BudgetService
from godoty_service.budgets.store import BudgetStore, OldReservation
from godoty_service.errors import GodotyError, StorageUnavailable
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.ledger import Ledger

log = structlog.get_logger(__name__)

# A reservation is settled right after its entry is closed; an older one belongs to a server that died.
_MAX_SETTLE_DELAY = timedelta(seconds=30)
# This long after its start, every call is in the ledger or will never be sent.
_MAX_INSERT_DELAY = timedelta(seconds=30)
_PRUNE_INTERVAL = timedelta(hours=1)
_MAX_FAILURES = 3  # tenants in a row: then the database cannot be reached for any of them

Now = Callable[[], Awaitable[datetime]]
Living = Callable[[Some[str]], Awaitable[set[str]]]


@dataclass(frozen=True, slots=True)
class _Job:
    tenant_id: str
    work: Callable[[], Awaitable[bool]]


class BudgetMaintenance:
    """Maintains the budgets of all tenants."""

    def __init__(
        self,
        *,
        budget_service: BudgetService,
        budgets: BudgetStore,
        ledger: Ledger,
        balance: OpeningBalanceJob,
        now: Now,
        living: Living,
        owner: str,
    ) -> None:
        """Create it.

        Args:
            budget_service: Sets when tracking starts.
            budgets: The tracked spending and reservations.
            ledger: The entries.
            balance: Sums opening balances from the ledger.
            now: Returns the database's time, which all servers share.
            living: Returns which of some servers are alive.
            owner: The id of this server.
        """
        self._budget_service = budget_service
        self._budgets = budgets
        self._ledger = ledger
        self._balance = balance
        self._now = now
        self._living = living
        self._owner = owner
        self._last_prune: datetime | None = None

    async def run_once(self) -> int:
        """Run all maintenance once; return the number of reservations that were settled or released.

        A tenant whose work fails is retried by the next run, and does not block other tenants.

        Raises:
            StorageUnavailable: The database cannot be reached.
        """
        now = await self._now()
        settled = await self._settle_orphans(now)
        await _run_each([self._start_job(each) for each in await self._budgets.tenants_without_start()])
        without_balance = await self._budgets.tenants_without_balance(until=now - _MAX_INSERT_DELAY)
        await _run_each([self._balance_job(tenant_id, since) for tenant_id, since in without_balance])
        if self._last_prune is None or now - self._last_prune > _PRUNE_INTERVAL:
            self._last_prune = now
            await self._budgets.prune(now)
        return settled

    async def _settle_orphans(self, now: datetime) -> int:
        old = await self._budgets.old_reservations(older_than=_MAX_SETTLE_DELAY)
        return await _run_each([self._settle_job(each, now) for each in old])

    def _settle_job(self, reservation: OldReservation, now: datetime) -> _Job:
        return _Job(reservation.tenant_id, lambda: self._settle(reservation, now))

    def _start_job(self, tenant_id: str) -> _Job:
        return _Job(tenant_id, lambda: self._set_tracking_start(tenant_id))

    def _balance_job(self, tenant_id: str, since: datetime) -> _Job:
        return _Job(tenant_id, lambda: self._set_opening_balance(tenant_id, since))

    async def _settle(self, reservation: OldReservation, now: datetime) -> bool:
        """Settle a reservation whose call is closed, or release it if its call can never be inserted."""
        tenant_id, call_id = reservation.tenant_id, reservation.call_id
        call = await self._ledger.get(tenant_id, call_id)
        if call is None:
            if not await self._is_orphaned(reservation):
                return False
            call = await self._ledger.get(tenant_id, call_id)  # it may have been inserted before its server died
        if call is None:
            await self._budgets.release(tenant_id, call_id)
            return True
        if call.counts.open or not _closed_long_ago(call, now):
            return False
        await self._budgets.settle(call)
        return True

    async def _is_orphaned(self, reservation: OldReservation) -> bool:
        """Return whether the server that made a call is dead, or is this one and no longer runs the call."""
        if reservation.owner == self._owner:
            return reservation.call_id not in self._ledger.open_calls
        return reservation.owner not in await self._living([reservation.owner])

    async def _set_tracking_start(self, tenant_id: str) -> bool:
        """Set the start of tracking if the policy is in force, but its writer did not set it."""
        if await self._budget_service.budgets_of(tenant_id) is None:
            return False
        await self._budget_service.set_tracking_start(tenant_id)
        return True

    async def _set_opening_balance(self, tenant_id: str, since: datetime) -> bool:
        balance = await self._balance.before(tenant_id, since, at=since)
        await self._budgets.set_opening_balance(tenant_id, balance, since=since)
        return True


async def _run_each(jobs: Iterable[_Job]) -> int:
    """Run jobs one after the other; return how many did something. A failed job blocks its own tenant alone.

    Raises:
        StorageUnavailable: Several tenants in a row failed with it.
    """
    done, failed = 0, dict[str, StorageUnavailable]()
    for job in jobs:
        if job.tenant_id in failed:
            continue
        try:
            done += await job.work()
            failed.clear()
        except GodotyError as error:
            log.warning("budget_maintenance_failed", tenant_id=job.tenant_id, error=str(error))
            if isinstance(error, StorageUnavailable):
                failed[job.tenant_id] = error
        except Exception:
            log.exception("budget_maintenance_fault", tenant_id=job.tenant_id)
        if len(failed) == _MAX_FAILURES:
            raise failed[job.tenant_id]
    return done


def _closed_long_ago(call: ModelCall, now: datetime) -> bool:
    """Return whether its own server had the time to settle it; with a wrong clock it may close in the future."""
    return call.settle_time is None or abs(now - call.settle_time) > _MAX_SETTLE_DELAY
