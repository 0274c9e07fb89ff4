"""In any interleaving and after any failed write, a report equals a full scan of the ledger, and does not change."""

import asyncio
import itertools
import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from godoty_service.errors import StorageUnavailable
from godoty_service.ledger.states import CallState
from godoty_service.mongo.client import Database
from godoty_service.pricing import money
from godoty_service.usage.calendar import TimeGroup
from godoty_service.usage.grouping import NamedGroup
from godoty_service.usage.query import UsageQuery, UsageReport
from tests.conftest import LONG
from tests.integration.billing.harness import Server, Tenant, report_sums, scan, total, usage_query

ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut")
# Around these clocks change in Berlin (twice), New York, Lord Howe and Beirut; the last is no such day.
MOMENTS = (
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 1, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
    datetime(2026, 3, 28, 22, tzinfo=UTC),
    datetime(2026, 5, 31, 18, 20, 30, 123_000, tzinfo=UTC),
)
GROUPS: tuple[tuple[TimeGroup | NamedGroup, ...], ...] = tuple(
    combination
    for size in range(4)
    for combination in itertools.permutations((*TimeGroup, *NamedGroup), size)
    if sum(isinstance(each, TimeGroup) for each in combination) <= 1
    and sum(isinstance(each, NamedGroup) for each in combination) <= 2
)


class Scenario:
    """Two servers, a tenant, and chance."""

    def __init__(self, database: Database, chance: random.Random) -> None:
        self.chance = chance
        self.servers = (Server(database, "one"), Server(database, "two"))
        self.tenant = Tenant(database, self.servers[0].ledger, chance)
        self.middle = chance.choice(MOMENTS)
        self.reports: list[tuple[UsageQuery, UsageReport]] = []

    async def open(self) -> None:
        """Open a call; now and then its time is wrong, or it is inserted late."""
        start = self.middle + timedelta(minutes=self.chance.choice([-2000, -300, -31, -15, 0, 1, 14, 15, 90, 1500]))
        await self.tenant.open(start + timedelta(milliseconds=self.chance.choice([0, 0, 1, 59_999])))

    async def defer(self) -> None:
        """Defer a call to reconciliation: it stays pending, with what is known of it."""
        pending = [call for call in self.tenant.calls.values() if call.state is CallState.PENDING]
        if pending:
            await self.tenant.defer(self.chance.choice(pending))

    async def close(self) -> None:
        """Close a call, by a clock that may be wrong or with a delayed write."""
        pending = [call for call in self.tenant.calls.values() if call.state is CallState.PENDING]
        if pending:
            skew = timedelta(milliseconds=self.chance.choice([-86_400_000, -500, -5, 0, 0, 0, 0, 3, 90_000]))
            await self.tenant.close(self.chance.choice(pending), self._now() + skew)

    async def adjust(self) -> None:
        """Adjust a call."""
        final = [each for each in self.tenant.calls.values() if each.state in (CallState.UNRESOLVED, CallState.SETTLED)]
        if final:
            call = self.chance.choice(final)
            await self.tenant.adjust(call, self._now())
            if call.state is CallState.UNRESOLVED:
                del self.tenant.calls[call.call_id]  # once

    async def roll_up(self) -> None:
        """Roll up on both servers at once, one of which may die."""
        faulty = self.chance.choice(self.servers)
        faulty.faults.writes = self.chance.choice([None, 0, 1, 2, 3, 4, 5])
        faulty.faults.done = self.chance.random() < 0.5
        found = await asyncio.gather(
            *(
                each.rollup_job.roll_up(self.tenant.tenant_id, include_pending=self.chance.random() < 0.3)
                for each in self.servers
            ),
            return_exceptions=True,
        )
        faulty.faults.writes = None
        assert await faulty.differences(self.tenant.tenant_id) == [], "also while a batch is half done"
        assert all(not isinstance(each, BaseException) or isinstance(each, StorageUnavailable) for each in found)

    async def die_reporting(self) -> None:
        """Let a server die during a report."""
        faulty = self.chance.choice(self.servers)
        faulty.faults.writes, faulty.faults.done = self.chance.randrange(6), self.chance.random() < 0.5
        with suppress(StorageUnavailable):
            report = await faulty.query.run(self.tenant.tenant_id, query := self._random_query())
            self.reports.append((query, report))
        faulty.faults.writes = None

    async def report(self) -> None:
        """Compare a report with the scan."""
        query = self._random_query()
        report = await self.chance.choice(self.servers).query.run(self.tenant.tenant_id, query)
        expected = scan(await self.tenant.documents(), query)
        assert report_sums(report) == expected
        assert (report.totals.cost, report.totals.turns) == total(expected.values())
        self.reports.append((query, report))

    async def replace_names(self) -> None:
        """Replace end users' names by references, on both servers at once."""
        await asyncio.gather(*(each.stored_names.replace() for each in self.servers))

    async def repeat_report(self) -> None:
        """Compare a report with the same one as of its earlier time."""
        if self.reports:
            query, before = self.chance.choice(self.reports)
            again = await self._again(query, before)
            assert (again.rows, again.totals, again.as_of) == (before.rows, before.totals, before.as_of)

    async def finish(self) -> None:
        """Check that an earlier report and the cost that became visible later add up to the whole."""
        assert await self.servers[1].differences(self.tenant.tenant_id) == []
        for query, before in self.reports:
            again = await self._again(query, before)
            assert (again.rows, again.totals, again.as_of) == (before.rows, before.totals, before.as_of)
            now = await self.servers[0].query.run(self.tenant.tenant_id, query)
            assert again.later_cost is not None
            assert money.add(before.totals.cost, again.later_cost) == now.totals.cost

    async def _again(self, query: UsageQuery, before: UsageReport) -> UsageReport:
        repeated = usage_query(query.start, query.end, *query.groups, zone=query.zone.key, as_of=before.as_of)
        return await self.chance.choice(self.servers).query.run(self.tenant.tenant_id, repeated)

    def _random_query(self) -> UsageQuery:
        start = self.middle - timedelta(milliseconds=self.chance.choice([1, 900_000, 86_400_000, 10 * 86_400_000]))
        end = self.middle + timedelta(milliseconds=self.chance.choice([1, 60_001, 86_400_000, 10 * 86_400_000]))
        return usage_query(start, end, *self.chance.choice(GROUPS), zone=self.chance.choice(ZONES))

    @staticmethod
    def _now() -> datetime:
        now = datetime.now(UTC)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


EVENTS = (
    ["open"] * 6
    + ["defer"]
    + ["close"] * 5
    + ["adjust", "roll_up", "roll_up", "die_reporting"]
    + ["report"] * 3
    + ["repeat_report", "replace_names"]
)


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@settings(
    max_examples=100 if LONG else 12,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(events=st.lists(st.sampled_from(EVENTS), min_size=5, max_size=60), seed=st.integers(0, 2**32))
async def test_report_is_exact_and_repeatable(database: Database, events: list[str], seed: int) -> None:
    """Over any mix of calls, ends, adjustments, roll-ups by two servers, and deaths between any two writes."""
    scenario = Scenario(database, random.Random(seed))
    await scenario.tenant.name_users()
    for event in events:
        await getattr(scenario, event)()
    await scenario.report()
    await scenario.finish()
