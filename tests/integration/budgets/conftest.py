"""A database for each test, and servers on it whose clock the test sets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.budgets.calendar import UTC_CALENDAR, BudgetCalendar
from godoty_service.budgets.charges import OpeningBalance
from godoty_service.budgets.entry_sums import EntrySums
from godoty_service.budgets.maintenance import BudgetMaintenance
from godoty_service.budgets.opening_balance import OpeningBalanceJob
from godoty_service.budgets.service import BudgetService
from godoty_service.budgets.store import BudgetStatus, BudgetStore
from godoty_service.budgets.verification import verify_budgets
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.ids import new_id
from godoty_service.ledger.entries import CostSource, ModelCall
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.session_totals import SessionTotalsUpdater
from godoty_service.ledger.states import CallState
from godoty_service.metering.adjustments import Adjustments
from godoty_service.mongo.client import Database, open_database
from godoty_service.sessions.store import SessionStore
from godoty_service.usage.entries import UsageEntries
from godoty_service.usage.rollup_job import RollupJob
from godoty_service.usage.rollup_store import RollupStore

NOON = datetime(2026, 8, 22, 12, tzinfo=UTC)
BOUND = Decimal(1)
BUDGETS = tuple(Budget(window=window, limit=Decimal(1000), hard=True) for window in BudgetWindow)


@pytest.fixture
async def database(mongodb_uri: str, prepared_database: str) -> AsyncIterator[Database]:
    """An empty database."""
    opened = open_database(uri=mongodb_uri, name=prepared_database)
    yield opened
    await opened.close()


class InterruptedOpeningBalanceJob(OpeningBalanceJob):
    """Runs a callback after the ledger was summed, before the sums are written."""

    between: Callable[[], Awaitable[None]] | None = None

    async def before(self, tenant_id: str, end: datetime, *, at: datetime) -> OpeningBalance:
        """Sum it, then run the callback once."""
        balance = await super().before(tenant_id, end, at=at)
        between, self.between = self.between, None
        if between is not None:
            await between()
        return balance


class BudgetHarness:
    """One tenant's ledger and budgets, as servers see them at the time that the test sets.

    Attributes:
        now: The time of their clocks.
        ledger: The entries.
        budgets: The tracked spending.
        balance: Sums opening balances.
        budget_service: The budgets, on any server.
        rollup_job: Rolls the entries up on demand.
        in_force: The budgets that a server reads; None: there never was one.
        living: The servers that are alive.
        calendar: The tenant's days and months.
    """

    def __init__(self, database: Database, *, piece: int = 7) -> None:
        self.now = NOON
        self.in_force: Sequence[Budget] | None = BUDGETS
        self.living: set[str] = set()
        self.ledger = Ledger(database.collection("ledger"))
        self.calendar = UTC_CALENDAR
        self.budgets = BudgetStore(database.collection("budgets"), clock=self._now, calendar_of=self._calendar_of)
        self.sums = EntrySums(database.collection("ledger"), piece=piece)
        rollups = RollupStore(database.collection("usage_rollups"))
        self.rollup_job = RollupJob(
            database.collection("usage_rollup_state"),
            entries=UsageEntries(database.collection("ledger")),
            rollups=rollups,
            now=self.database_now,
            owner="server",
        )
        self.balance = InterruptedOpeningBalanceJob(
            database=database,
            rollup_job=self.rollup_job,
            rollups=rollups,
            entries=self.sums,
            calendar_of=self._calendar_of,
        )
        self.budget_service = BudgetService(
            budgets=self.budgets,
            balance=self.balance,
            adjustments=self.ledger.adjustments,
            budgets_of=self.budgets_of,
            now=self.database_now,
        )
        self._database = database
        self._numbers = 0
        self._passed = timedelta()

    def advance(self, seconds: float) -> None:
        """Advance the time of the servers and the database."""
        self.now += timedelta(seconds=seconds)
        self._passed += timedelta(seconds=seconds)

    async def begin(self) -> None:
        """Set the tenant's first budget."""
        async with self.budget_service.tracking("tenant"):
            pass

    async def open(
        self, *, reserved: bool, budgets: Sequence[Budget] = BUDGETS, budgeted: bool | None = None
    ) -> ModelCall:
        """Open a call, on a server that knows the budgets or on one that does not yet."""
        self._numbers += 1
        call = ModelCall(
            call_id=new_id("call"),
            tenant_id="tenant",
            session_uid="ses",
            session_id="talk",
            turn_id="turn",
            number=self._numbers,
            state=CallState.PENDING,
            requested_model="a/b",
            upper_bound=BOUND,
            budgeted=budgeted,
            provider_key_id="key",
            start_time=self.now,
            agent="assistant",
            owner="server",
        )
        await self.ledger.insert(call)
        if reserved:
            await self.budget_service.reserve(call, budgets)
        return call

    async def close(self, call: ModelCall, cost: Decimal | None) -> ModelCall:
        """Close a call, at a cost or unresolved, without settling it."""
        settled = {"state": CallState.SETTLED, "cost": cost, "cost_source": CostSource.BILLED}
        changes = settled if cost is not None else {"state": CallState.UNRESOLVED}
        closed = replace(call, settle_time=self.now, **changes)
        assert await self.ledger.close(closed)
        return closed

    async def resolve(self, call: ModelCall, cost: Decimal) -> None:
        """Resolve an unresolved call at a cost."""
        replicas = ReplicaHeartbeats(
            self._database.collection("replicas"), replica_id="other", lease=timedelta(seconds=15)
        )
        sessions = SessionStore(self._database.collection("sessions"), replicas=replicas)
        updater = SessionTotalsUpdater(sessions, self.ledger)
        adjustments = Adjustments(self.ledger, updater, budget_service=self.budget_service, clock=self._now)
        await adjustments.resolve(call, cost=cost, why="the invoice", by="ann")

    async def run_maintenance(self, servers: int = 2) -> None:
        """Run maintenance on several servers at once."""
        await self._age()
        await asyncio.gather(*(self.maintenance().run_once() for _ in range(servers)))

    def maintenance(self, owner: str = "maintainer", *, ledger: Ledger | None = None) -> BudgetMaintenance:
        """Return the maintenance of a server."""
        return BudgetMaintenance(
            budget_service=self.budget_service,
            budgets=self.budgets,
            ledger=ledger or self.ledger,
            balance=self.balance,
            now=self.database_now,
            living=self._living,
            owner=owner,
        )

    async def _age(self) -> None:
        """Age the reservations by the advanced time, since the database's own clock is not advanced."""
        passed, self._passed = self._passed // timedelta(milliseconds=1), timedelta()
        earlier = {"$mergeObjects": ["$$each.v", {"made": {"$subtract": ["$$each.v.made", passed]}}]}
        every = {"input": {"$objectToArray": "$open"}, "as": "each", "in": {"k": "$$each.k", "v": earlier}}
        aged = {"$arrayToObject": {"$map": every}}
        await self._database.collection("budgets").update_many({}, [{"$set": {"open": aged}}])

    async def status(self) -> BudgetStatus:
        """Return the status of the budget of all time."""
        (found,) = [each for each in await self.budget_service.status("tenant") if each.window is BudgetWindow.TOTAL]
        return found

    async def differences(self) -> list[str]:
        """Return the differences that verification finds; it must not skip the tenant."""
        assert await self.budgets.tracked("tenant") is not None
        found = verify_budgets(database=self._database, entries=self.sums, budgets=self.budgets)
        return [each.what async for each in found]

    def _now(self) -> datetime:
        return self.now

    async def database_now(self) -> datetime:
        """Return the time of the database."""
        return self.now

    async def budgets_of(self, _: str) -> Sequence[Budget] | None:
        """Return the budgets that are in force."""
        return self.in_force

    async def _calendar_of(self, _: str) -> BudgetCalendar:
        return self.calendar

    async def _living(self, owners: Collection[str]) -> set[str]:
        return self.living & set(owners)


@pytest.fixture
async def harness(database: Database) -> BudgetHarness:
    """A tenant that has spent nothing."""
    await database.collection("ledger").ensure(Ledger.INDEXES)
    return BudgetHarness(database)
