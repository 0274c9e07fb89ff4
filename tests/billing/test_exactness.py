"""Whatever happens to the books, an answer equals a full scan of the ledger, and stays what it was."""

import asyncio
import itertools
import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from godoty_service.errors import StorageUnavailable
from godoty_service.metering import money
from godoty_service.metering.call import CallState
from godoty_service.metering.time_cells import TimeGroup
from godoty_service.metering.usage_groups import NamedGroup
from godoty_service.metering.usage_query import UsageAnswer, UsageQuestion
from godoty_service.mongo import Database
from tests.billing.books import Server, Tenant, question, scan, shown, total
from tests.conftest import LONG

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


class Story:
    """Two servers, a tenant, and chance."""

    def __init__(self, database: Database, chance: random.Random) -> None:
        self.chance = chance
        self.servers = (Server(database, "one"), Server(database, "two"))
        self.tenant = Tenant(database, self.servers[0].ledger, chance)
        self.middle = chance.choice(MOMENTS)
        self.told: list[tuple[UsageQuestion, UsageAnswer]] = []

    async def open(self) -> None:
        """A call begins; now and then its time is wrong, or comes late."""
        start = self.middle + timedelta(minutes=self.chance.choice([-2000, -300, -31, -15, 0, 1, 14, 15, 90, 1500]))
        await self.tenant.open(start + timedelta(milliseconds=self.chance.choice([0, 0, 1, 59_999])))

    async def leave(self) -> None:
        """A call is left to reconciliation: it is still pending, whatever is known of it."""
        pending = [call for call in self.tenant.calls.values() if call.state is CallState.PENDING]
        if pending:
            await self.tenant.leave(self.chance.choice(pending))

    async def close(self) -> None:
        """A call ends, by a clock that may be wrong or a write that was kept for long."""
        pending = [call for call in self.tenant.calls.values() if call.state is CallState.PENDING]
        if pending:
            skew = timedelta(milliseconds=self.chance.choice([-86_400_000, -500, -5, 0, 0, 0, 0, 3, 90_000]))
            await self.tenant.close(self.chance.choice(pending), self._now() + skew)

    async def adjust(self) -> None:
        """Somebody knows more of a call."""
        final = [each for each in self.tenant.calls.values() if each.state in (CallState.UNRESOLVED, CallState.SETTLED)]
        if final:
            call = self.chance.choice(final)
            await self.tenant.adjust(call, self._now())
            if call.state is CallState.UNRESOLVED:
                del self.tenant.calls[call.call_id]  # once

    async def roll_up(self) -> None:
        """Both servers roll up at once, and one may die in it."""
        struck = self.chance.choice(self.servers)
        struck.trouble.writes = self.chance.choice([None, 0, 1, 2, 3, 4, 5])
        struck.trouble.done = self.chance.random() < 0.5
        found = await asyncio.gather(
            *(each.booking.take_up(self.tenant.tenant_id, note=self.chance.random() < 0.3) for each in self.servers),
            return_exceptions=True,
        )
        struck.trouble.writes = None
        assert await struck.differences(self.tenant.tenant_id) == [], "also while a batch is half done"
        assert all(not isinstance(each, BaseException) or isinstance(each, StorageUnavailable) for each in found)

    async def die_answering(self) -> None:
        """A server dies while it answers."""
        struck = self.chance.choice(self.servers)
        struck.trouble.writes, struck.trouble.done = self.chance.randrange(6), self.chance.random() < 0.5
        with suppress(StorageUnavailable):
            answer = await struck.query.ask(self.tenant.tenant_id, asked := self._question())
            self.told.append((asked, answer))
        struck.trouble.writes = None

    async def ask(self) -> None:
        """An answer equals the scan."""
        asked = self._question()
        answer = await self.chance.choice(self.servers).query.ask(self.tenant.tenant_id, asked)
        true = scan(await self.tenant.documents(), asked)
        assert shown(answer) == true
        assert (answer.totals.cost, answer.totals.turns) == total(true.values())
        self.told.append((asked, answer))

    async def ask_again(self) -> None:
        """An answer of before is the same again."""
        if self.told:
            asked, before = self.chance.choice(self.told)
            again = await self._again(asked, before)
            assert (again.rows, again.totals, again.as_of) == (before.rows, before.totals, before.as_of)

    async def finish(self) -> None:
        """What was said and what became known later is all there is."""
        assert await self.servers[1].differences(self.tenant.tenant_id) == []
        for asked, before in self.told:
            again = await self._again(asked, before)
            assert (again.rows, again.totals, again.as_of) == (before.rows, before.totals, before.as_of)
            now = await self.servers[0].query.ask(self.tenant.tenant_id, asked)
            assert again.later is not None
            assert money.add(before.totals.cost, again.later) == now.totals.cost

    async def _again(self, asked: UsageQuestion, before: UsageAnswer) -> UsageAnswer:
        repeated = question(asked.start, asked.end, *asked.groups, zone=asked.zone.key, as_of=before.as_of)
        return await self.chance.choice(self.servers).query.ask(self.tenant.tenant_id, repeated)

    def _question(self) -> UsageQuestion:
        start = self.middle - timedelta(milliseconds=self.chance.choice([1, 900_000, 86_400_000, 10 * 86_400_000]))
        end = self.middle + timedelta(milliseconds=self.chance.choice([1, 60_001, 86_400_000, 10 * 86_400_000]))
        return question(start, end, *self.chance.choice(GROUPS), zone=self.chance.choice(ZONES))

    @staticmethod
    def _now() -> datetime:
        now = datetime.now(UTC)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


EVENTS = (
    ["open"] * 6
    + ["leave"]
    + ["close"] * 5
    + ["adjust", "roll_up", "roll_up", "die_answering"]
    + ["ask"] * 3
    + ["ask_again"]
)


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@settings(
    max_examples=100 if LONG else 12,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(events=st.lists(st.sampled_from(EVENTS), min_size=5, max_size=60), seed=st.integers(0, 2**32))
async def test_an_answer_is_exact_and_stays(database: Database, events: list[str], seed: int) -> None:
    """Over any mix of calls, ends, adjustments, roll-ups by two servers, and deaths between any two writes."""
    story = Story(database, random.Random(seed))
    for event in events:
        await getattr(story, event)()
    await story.ask()
    await story.finish()
