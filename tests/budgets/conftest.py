"""A database for each test, and servers on it whose clock the test turns."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from godoty_service.budget import Budget, BudgetWindow
from godoty_service.ids import new_id
from godoty_service.metering import ledger as ledgers
from godoty_service.metering.adjustments import Adjustments
from godoty_service.metering.budget_verification import verify_budgets
from godoty_service.metering.budgets import Budgets, BudgetStatus
from godoty_service.metering.call import CallState, CostSource, ModelCall
from godoty_service.metering.charges import Statement
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.session_folds import SessionFolds
from godoty_service.metering.spending import Spending
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


class Interrupted(Ledger):
    """A ledger that lets something happen after it was summed, before anybody has heard of the sums."""

    between: Callable[[], Awaitable[None]] | None = None

    async def statement(self, tenant_id: str, *, at: datetime, end: datetime) -> Statement:
        """Sum it, and be interrupted once."""
        statement = await super().statement(tenant_id, at=at, end=end)
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
        spending: Both, on any server.
    """

    def __init__(self, database: Database) -> None:
        self.now = NOON
        self.ledger = Interrupted(database.collection("ledger"), clock=self._now)
        self.budgets = Budgets(database.collection("budgets"), clock=self._now)
        self.spending = Spending(budgets=self.budgets, ledger=self.ledger, budgets_of=self._budgets_of, clock=self._now)
        self._database = database
        self._numbers = 0

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    async def open(self, *, reserved: bool) -> ModelCall:
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
            await self.spending.reserve(call, BUDGETS)
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
        await asyncio.gather(*(self.spending.sweep() for _ in range(servers)))

    async def status(self) -> BudgetStatus:
        """Tell how the budget of all time stands."""
        (found,) = [each for each in await self.spending.status("tenant") if each.window is BudgetWindow.TOTAL]
        return found

    async def differences(self) -> list[str]:
        """What the books' own proof finds, which must not pass the tenant over."""
        assert set(await self.budgets.counted("tenant", at=self.now)) == set(BudgetWindow)
        found = verify_budgets(database=self._database, ledger=self.ledger, budgets=self.budgets, clock=self._now)
        return [each.what async for each in found]

    def _now(self) -> datetime:
        return self.now

    async def _budgets_of(self, _: str) -> Sequence[Budget]:
        return BUDGETS


@pytest.fixture
async def till(database: Database) -> Till:
    """A tenant who has spent nothing."""
    await database.collection("ledger").ensure(ledgers.INDEXES)
    return Till(database)
