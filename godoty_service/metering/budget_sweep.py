"""Settles the reservations that dead servers left, and states for good what was spent before budgets were set."""

from collections.abc import Awaitable, Callable, Iterable
from collections.abc import Collection as Some
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from godoty_service.errors import GodotyError, StorageUnavailable
from godoty_service.metering.budgets import Budgets, LeftOpen
from godoty_service.metering.call import CallState, ModelCall
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.opening_balance import OpeningBalance
from godoty_service.metering.spending import Spending

log = structlog.get_logger(__name__)

# A call's reservation is settled right after its entry; one that is so much older was left by a server that died.
_FORGOTTEN = timedelta(seconds=30)
# So long after its start every call is in the ledger, or will never be sent.
_LANDED = timedelta(seconds=30)
_TIDY = timedelta(hours=1)  # between two looks for days and months that are long over
_FAILURES = 3  # tenants in a row: then the database is out of reach for all

Now = Callable[[], Awaitable[datetime]]
Living = Callable[[Some[str]], Awaitable[set[str]]]


@dataclass(frozen=True, slots=True)
class _Job:
    tenant_id: str
    work: Callable[[], Awaitable[bool]]


class BudgetSweep:
    """Does for all tenants what their own servers did not come to."""

    def __init__(
        self,
        *,
        spending: Spending,
        budgets: Budgets,
        ledger: Ledger,
        balance: OpeningBalance,
        now: Now,
        living: Living,
        owner: str,
    ) -> None:
        """Build it.

        Args:
            spending: Begins to count.
            budgets: What is spent and reserved.
            ledger: The entries behind it.
            balance: States what the ledger has.
            now: Returns the time of the database, which all servers share.
            living: Returns which of some servers live.
            owner: This server.
        """
        self._spending = spending
        self._budgets = budgets
        self._ledger = ledger
        self._balance = balance
        self._now = now
        self._living = living
        self._owner = owner
        self._tidied: datetime | None = None

    async def sweep(self) -> int:
        """Sweep once; returns how many reservations were settled or released.

        A tenant whose work fails is left for the next sweep, and holds up no other one.

        Raises:
            StorageUnavailable: The database is out of reach.
        """
        now = await self._now()
        left = await self._budgets.left_open(older_than=_FORGOTTEN)
        swept = await _each([self._left(each, now) for each in left])
        await _each([self._started(tenant_id) for tenant_id in await self._budgets.of_unknown_start()])
        unstated = await self._budgets.unstated(until=now - _LANDED)
        await _each([self._stated(tenant_id, since) for tenant_id, since in unstated])
        if self._tidied is None or now - self._tidied > _TIDY:
            self._tidied = now
            await self._budgets.forget(now)
        return swept

    def _left(self, left: LeftOpen, now: datetime) -> _Job:
        return _Job(left.tenant_id, lambda: self._settle(left, now))

    def _started(self, tenant_id: str) -> _Job:
        return _Job(tenant_id, lambda: self._start(tenant_id))

    def _stated(self, tenant_id: str, since: datetime) -> _Job:
        return _Job(tenant_id, lambda: self._state(tenant_id, since))

    async def _settle(self, left: LeftOpen, now: datetime) -> bool:
        """Settle a reservation whose call is closed, or release it where its call can never be written."""
        call = await self._ledger.get(left.tenant_id, left.call_id)
        if call is None:
            if not await self._is_abandoned(left):
                return False
            call = await self._ledger.get(left.tenant_id, left.call_id)  # it may have landed until then
        if call is None:
            await self._budgets.release(left.tenant_id, left.call_id)
            return True
        if call.state is CallState.PENDING or not _closed_long_ago(call, now):
            return False
        await self._budgets.settle(call)
        return True

    async def _is_abandoned(self, left: LeftOpen) -> bool:
        """Whether the server that made a call is dead, or is this one and no longer busy with it."""
        if left.owner == self._owner:
            return left.call_id not in self._ledger.open_calls
        return left.owner not in await self._living([left.owner])

    async def _start(self, tenant_id: str) -> bool:
        """Finish what the writer of a first budget did not: its policy is in force."""
        if await self._spending.budgets_of(tenant_id) is None:
            return False
        await self._spending.in_force(tenant_id)
        return True

    async def _state(self, tenant_id: str, since: datetime) -> bool:
        await self._budgets.state(tenant_id, await self._balance.until(tenant_id, since, at=since))
        return True


async def _each(jobs: Iterable[_Job]) -> int:
    """Do jobs one after the other; returns how many did something. One that fails holds up its own tenant alone.

    Raises:
        StorageUnavailable: That is how several tenants in a row failed.
    """
    done, failed = 0, dict[str, StorageUnavailable]()
    for job in jobs:
        if job.tenant_id in failed:
            continue
        try:
            done += await job.work()
            failed.clear()
        except GodotyError as error:
            log.warning("budget_sweep_failed", tenant_id=job.tenant_id, error=str(error))
            if isinstance(error, StorageUnavailable):
                failed[job.tenant_id] = error
        except Exception:
            log.exception("budget_sweep_fault", tenant_id=job.tenant_id)
        if len(failed) == _FAILURES:
            raise failed[job.tenant_id]
    return done


def _closed_long_ago(call: ModelCall, now: datetime) -> bool:
    """Whether its own server has had the time to settle it; by a clock that is wrong it may close in the future."""
    return call.settle_time is None or abs(now - call.settle_time) > _FORGOTTEN
