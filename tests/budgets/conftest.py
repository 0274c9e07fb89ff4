"""A database for each test, and servers on it whose clock the test turns."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from godoty_service.budget import Budget, BudgetWindow
from godoty_service.ids import new_id
from godoty_service.metering import ledger as ledgers
from godoty_service.metering.adjustments import Adjustments
from godoty_service.metering.booking import Booking
from godoty_service.metering.budget_sweep import BudgetSweep
from godoty_service.metering.budget_verification import verify_budgets
from godoty_service.metering.budgets import Budgets, BudgetStatus
from godoty_service.metering.call import CallState, CostSource, ModelCall
from godoty_service.metering.charges import Statement
from godoty_service.metering.entry_sums import EntrySums
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.opening_balance import OpeningBalance
from godoty_service.metering.rollups import Rollups
from godoty_service.metering.session_folds import SessionFolds
from godoty_service.metering.spending import Spending
from godoty_service.metering.usage_entries import UsageEntries
from godoty_service.mongo import Database, open_database
from godoty_service.sessions.replicas import Replicas
from godoty_service.sessions.store import Sessions

NOON = datetime(2026, 8, 22, 12, tzinfo=UTC)
BOUND = Decimal(1)
BUDGETS = tuple(Budget(window=window, limit=Decimal(1000), hard=True) for window in BudgetWindow)


@pytest.fixture
async def database(mongodb_uri: str, new_database: str) -> AsyncIterator[Database]:
    """An empty database."""
    opened = open_database(uri=mongodb_uri, name=new_database)
    yield opened
    await opened.close()


class Interrupted(OpeningBalance):
    """Lets something happen after the ledger was summed, before the sums are written."""

    between: Callable[[], Awaitable[None]] | None = None

    async def until(self, tenant_id: str, end: datetime, *, at: datetime) -> Statement:
        """Sum it, and be interrupted once."""
        statement = await super().until(tenant_id, end, at=at)
        between, self.between = self.between, None
        if between is not None:
            await between()
        return statement


class Till:
    """One tenant's ledger and budgets, as servers see them at the time that the test says.

    Attributes:
        now: What their clocks say.
        ledger: The entries.
        budgets: What is counted.
        balance: States what was before.
        spending: Both, on any server.
        booking: Rolls the entries up, when the test says so.
        living: The servers that live.
    """

    def __init__(self, database: Database, *, piece: int = 7) -> None:
        self.now = NOON
        self.living: set[str] = set()
        self.ledger = Ledger(database.collection("ledger"), clock=self._now)
        self.budgets = Budgets(database.collection("budgets"), clock=self._now)
        self.sums = EntrySums(database.collection("ledger"), piece=piece)
        rollups = Rollups(database.collection("usage_quarters"))
        self.booking = Booking(
            database.collection("usage_books"),
            entries=UsageEntries(database.collection("ledger")),
            rollups=rollups,
            now=self.database_now,
            owner="server",
        )
        self.balance = Interrupted(database=database, booking=self.booking, rollups=rollups, entries=self.sums)
        self.spending = Spending(
            budgets=self.budgets,
            balance=self.balance,
            adjustments=self.ledger.adjustments,
            budgets_of=self.budgets_of,
            now=self.database_now,
        )
        self._database = database
        self._numbers = 0
        self._passed = timedelta()

    def pass_(self, seconds: float) -> None:
        """Let time pass, for the servers and for the database."""
        self.now += timedelta(seconds=seconds)
        self._passed += timedelta(seconds=seconds)

    async def begin(self) -> None:
        """Set the tenant's first budget."""
        async with self.spending.counting("tenant"):
            pass

    async def open(self, *, reserved: bool, budgets: Sequence[Budget] = BUDGETS) -> ModelCall:
        """Begin a call: on a server that knows of the budgets, or on one that does not yet."""
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
            provider_key_id="key",
            start_time=self.now,
            agent="assistant",
            owner="server",
        )
        await self.ledger.insert(call)
        if reserved:
            await self.spending.reserve(call, budgets)
        return call

    async def close(self, call: ModelCall, cost: Decimal | None) -> ModelCall:
        """Close a call, at a cost or unresolved. Its budgets are the caller's to settle."""
        settled = {"state": CallState.SETTLED, "cost": cost, "cost_source": CostSource.BILLED}
        changes = settled if cost is not None else {"state": CallState.UNRESOLVED}
        closed = replace(call, settle_time=self.now, **changes)
        assert await self.ledger.close(closed)
        return closed

    async def resolve(self, call: ModelCall, cost: Decimal) -> None:
        """Say what an unresolved call has cost."""
        replicas = Replicas(self._database.collection("replicas"), replica_id="other", lease=timedelta(seconds=15))
        sessions = Sessions(self._database.collection("sessions"), replicas=replicas)
        folds = SessionFolds(sessions, self.ledger)
        adjustments = Adjustments(self.ledger, folds, spending=self.spending, clock=self._now)
        await adjustments.resolve(call, cost=cost, why="the invoice", by="ann")

    async def sweep(self, servers: int = 2) -> None:
        """Let servers sweep side by side."""
        await self._age()
        await asyncio.gather(*(self.sweeper().sweep() for _ in range(servers)))

    def sweeper(self, owner: str = "sweeper", *, ledger: Ledger | None = None) -> BudgetSweep:
        """Build what sweeps on a server."""
        return BudgetSweep(
            spending=self.spending,
            budgets=self.budgets,
            ledger=ledger or self.ledger,
            balance=self.balance,
            now=self.database_now,
            living=self._living,
            owner=owner,
        )

    async def _age(self) -> None:
        """Let the reservations be as old as the test says: the database's own clock stands still for it."""
        passed, self._passed = self._passed // timedelta(milliseconds=1), timedelta()
        earlier = {"$mergeObjects": ["$$each.v", {"made": {"$subtract": ["$$each.v.made", passed]}}]}
        every = {"input": {"$objectToArray": "$open"}, "as": "each", "in": {"k": "$$each.k", "v": earlier}}
        aged = {"$arrayToObject": {"$map": every}}
        await self._database.collection("budgets").update_many({}, [{"$set": {"open": aged}}])

    async def status(self) -> BudgetStatus:
        """Tell how the budget of all time stands."""
        (found,) = [each for each in await self.spending.status("tenant") if each.window is BudgetWindow.TOTAL]
        return found

    async def differences(self) -> list[str]:
        """What the books' own proof finds, which must not pass the tenant over."""
        assert await self.budgets.counted("tenant") is not None
        found = verify_budgets(database=self._database, entries=self.sums, budgets=self.budgets)
        return [each.what async for each in found]

    def _now(self) -> datetime:
        return self.now

    async def database_now(self) -> datetime:
        """Return the time of the database."""
        return self.now

    async def budgets_of(self, _: str) -> Sequence[Budget]:
        """Return the budgets that are in force."""
        return BUDGETS

    async def _living(self, owners: Collection[str]) -> set[str]:
        return self.living & set(owners)


@pytest.fixture
async def till(database: Database) -> Till:
    """A tenant who has spent nothing."""
    await database.collection("ledger").ensure(ledgers.INDEXES)
    return Till(database)
