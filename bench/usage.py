"""What a tenant's month costs to sum up (P6): `python -m bench.usage [--real N] [--rounds N]`.

A ledger of 10,000,000 entries does not fit the time of a bench. So the large tenant has the roll-up documents that
10,000,000 entries give, evenly over a month of 31 days and all pairs of model and provider, written by the service's
own `Rollups.fold`; and `--real` entries more, inserted into the ledger and taken up by the service's own `Booking`.
The small tenant's 10,000 entries are all real. MongoDB is a process of its own; the time is that of `UsageQuery.ask`
and of the response message, from Python, without gRPC.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from godoty_service.ids import new_id
from godoty_service.metering.call import CallState, CostSource, ModelCall
from godoty_service.metering.documents import entry_to_document
from godoty_service.metering.time_cells import TimeGroup
from godoty_service.metering.totals import Totals
from godoty_service.metering.usage import TokenUsage
from godoty_service.metering.usage_cells import QUARTER, Cell, Level, Sum, Sums, widened
from godoty_service.metering.usage_groups import Group, NamedGroup
from godoty_service.metering.usage_query import UsageQuestion
from godoty_service.rooms import Rooms, open_rooms
from godoty_service.rpc.billing_messages import usage_answer_message
from godoty_service.sandbox.replica_set import LocalMongo
from godoty_service.settings import Settings
from godoty_service.telemetry.logs import configure_logs

LARGE, SMALL = 10_000_000, 10_000
ALLOWED, ALLOWED_RATIO = 50.0, 1.5  # milliseconds; large over small
PAGE_BYTES = 1024 * 1024  # of a response, as the server has it
MONTH = datetime(2026, 10, 1, tzinfo=UTC)
QUARTERS = 31 * 96
SERVED = tuple((f"vendor/model-{number}", f"Provider {number % 6 + more}") for number in range(12) for more in (0, 1))
COST = Decimal("0.0000105")
USAGE = TokenUsage(input_tokens=900, output_tokens=120, total_tokens=1020, cache_read_tokens=600, reasoning_tokens=40)


@dataclass(frozen=True)
class Case:
    """A question, and whether P6 speaks of it."""

    name: str
    groups: tuple[Group, ...]
    zone: str = "UTC"
    promised: bool = True


CASES = (
    Case("in all", ()),
    Case("by hour", (TimeGroup.HOUR,)),
    Case("by hour, Asia/Kathmandu", (TimeGroup.HOUR,), "Asia/Kathmandu"),
    Case("by day", (TimeGroup.DAY,)),
    Case("by day, Europe/Berlin", (TimeGroup.DAY,), "Europe/Berlin"),
    Case("by month", (TimeGroup.MONTH,)),
    Case("by model", (NamedGroup.MODEL,)),
    Case("by provider", (NamedGroup.PROVIDER,)),
    Case("by model and provider", (NamedGroup.MODEL, NamedGroup.PROVIDER), promised=False),
    Case("by day and model", (TimeGroup.DAY, NamedGroup.MODEL), promised=False),
    Case("by day and model, Europe/Berlin", (TimeGroup.DAY, NamedGroup.MODEL), "Europe/Berlin", promised=False),
    Case("by session (reads the entries)", (NamedGroup.SESSION,), promised=False),
)


@asynccontextmanager
async def world() -> AsyncIterator[Rooms]:
    """MongoDB, and the rooms on it."""
    with tempfile.TemporaryDirectory(prefix="godoty-bench-", ignore_cleanup_errors=True) as directory:
        async with LocalMongo(Path(directory)) as mongo:
            settings = Settings(mongodb_uri=mongo.uri, mongodb_database="godoty_bench", storage_timeout=120)
            async with open_rooms(settings) as rooms:
                yield rooms


def call(tenant_id: str, number: int, of: int) -> ModelCall:
    """One of so many settled calls, evenly over the month."""
    start = MONTH + timedelta(milliseconds=number * (QUARTERS * 900_000) // of)
    model, provider = SERVED[number % len(SERVED)]
    return ModelCall(
        call_id=new_id("call"),
        tenant_id=tenant_id,
        session_uid=f"{tenant_id}-{number // 20}",
        session_id=f"session-{number // 20 % 50}",
        turn_id=f"turn_{tenant_id}_{number // 2}",
        number=number % 20 + 1,
        state=CallState.SETTLED,
        requested_model=model,
        served_model=model,
        provider=provider,
        generation_id=new_id("gen"),
        usage=USAGE,
        cost=COST,
        cost_source=CostSource.BILLED,
        catalogue_cost=COST,
        upper_bound=COST * 10,
        provider_key_id="key",
        start_time=start,
        settle_time=start + timedelta(seconds=2),
        duration=timedelta(seconds=2),
        agent="assistant",
        owner="server",
    )


async def insert(rooms: Rooms, tenant_id: str, calls: int) -> float:
    """Write entries, 5,000 at a time, and take none of them up; returns the seconds it took."""
    begun = time.perf_counter()
    ledger = rooms.database.collection("ledger")
    for first in range(0, calls, 5000):
        numbers = range(first, min(first + 5000, calls))
        await ledger.insert_many(
            [entry_to_document(call(tenant_id, number, calls)) | {"unbooked": "final"} for number in numbers]
        )
    return time.perf_counter() - begun


def day_of_sums(tenant_id: str, day: int, entries: int) -> Sums:
    """The sums of a day of a month of so many entries."""
    details: Sums = {}
    for number in range(day * 96, (day + 1) * 96):
        calls = entries * (number + 1) // QUARTERS - entries * number // QUARTERS
        quarter = MONTH + number * QUARTER
        for place, (model, provider) in enumerate(SERVED):
            share = calls * (place + 1) // len(SERVED) - calls * place // len(SERVED)
            totals = Totals(cost=COST * share, usage=_times(share), model_calls=share, turns=share // 2)
            cell = Cell(
                tenant_id=tenant_id,
                level=Level.DETAIL,
                time=quarter,
                model=model,
                provider=provider,
                agent="assistant",
            )
            details[cell] = Sum(totals=totals, latest=quarter + QUARTER)
    return widened(details)


async def fold(rooms: Rooms, tenant_id: str, entries: int) -> int:
    """Write the roll-ups of so many entries; returns how many documents they are."""
    for day in range(31):
        await rooms.usage.rollups.fold(day + 1, day_of_sums(tenant_id, day, entries))
    await rooms.database.collection("usage_books").insert_one({"_id": tenant_id, "revision": 0, "done": 31})
    return await rooms.database.collection("usage_quarters").count({"tenant_id": tenant_id})


def question(case: Case) -> UsageQuestion:
    """The month of a zone, so that it begins and ends where the zone's days do."""
    zone = ZoneInfo(case.zone)
    start, end = (datetime(2026, month, 1, tzinfo=zone).astimezone(UTC) for month in (10, 11))
    return UsageQuestion(start=start, end=end, groups=case.groups, zone=zone, as_of=None)


async def timed(rooms: Rooms, tenant_id: str, case: Case) -> tuple[float, int]:
    """Ask once: milliseconds, and rows."""
    begun = time.perf_counter()
    answer = await rooms.usage.query.ask(tenant_id, question(case))
    (await usage_answer_message(answer, most_bytes=PAGE_BYTES)).SerializeToString()
    return (time.perf_counter() - begun) * 1000, len(answer.rows)


async def check(rooms: Rooms, tenant_id: str) -> None:
    """The roll-ups of real entries equal a full scan."""
    found = await rooms.database.collection("ledger").aggregate(
        [
            {"$match": {"tenant_id": tenant_id}},
            {"$group": {"_id": None, "cost": {"$sum": "$cost"}, "calls": {"$sum": 1}}},
        ]
    )
    answer = await rooms.usage.query.ask(tenant_id, question(CASES[0]))
    assert (answer.totals.cost, answer.totals.model_calls) == (found[0]["cost"].to_decimal(), found[0]["calls"])  # noqa: S101


async def run(*, real: int, rounds: int) -> Iterator[str]:
    """Run it; gives the report's lines."""
    lines: list[str] = []
    async with world() as rooms:
        small, large = "tnt_small", "tnt_large"
        inserted = await insert(rooms, small, SMALL)
        begun = time.perf_counter()
        await rooms.usage.booking.take_up(small)
        taken = time.perf_counter() - begun
        await check(rooms, small)
        lines.append(
            f"Small: {SMALL:,} entries inserted ({SMALL / inserted:,.0f} a second) and taken up "
            f"({SMALL / taken:,.0f} a second); its sums equal a scan."
        )
        begun = time.perf_counter()
        documents = await fold(rooms, large, LARGE - real)
        folded = time.perf_counter() - begun
        inserted = await insert(rooms, large, real)
        begun = time.perf_counter()
        await rooms.usage.booking.take_up(large)
        taken = time.perf_counter() - begun
        lines.append(
            f"Large: {documents:,} roll-up documents as {LARGE - real:,} entries give them, written in {folded:.0f} s "
            f"by `Rollups.fold`, without those entries; and {real:,} real entries inserted "
            f"({real / inserted:,.0f} a second) and taken up ({real / taken:,.0f} a second). At these rates all "
            f"{LARGE:,} would take {LARGE / real * (inserted + taken) / 60:.0f} minutes."
        )
        answer = await rooms.usage.query.ask(large, question(CASES[0]))
        assert (answer.totals.model_calls, answer.totals.cost) == (LARGE, COST * LARGE)  # noqa: S101
        lines += ["", *await _table(rooms, small, large, rounds), ""]
        lines.append(await _under_load(rooms, large, rounds))
    return iter(lines)


async def _table(rooms: Rooms, small: str, large: str, rounds: int) -> list[str]:
    lines = [
        f"| a month, median of {rounds} | rows | {SMALL:,} entries | {LARGE:,} entries | its 95th | ratio | P6 |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        times: dict[str, list[float]] = {small: [], large: []}
        rows = 0
        for _ in range(rounds if case.name.find("entries") < 0 else 3):
            for tenant_id in random.sample([small, large], 2):
                took, rows = await timed(rooms, tenant_id, case)
                times[tenant_id].append(took)
        low, high = statistics.median(times[small]), statistics.median(times[large])
        late = sorted(times[large])[int(len(times[large]) * 0.95)]
        kept = "-" if not case.promised else "kept" if high <= ALLOWED and high / low <= ALLOWED_RATIO else "MISSED"
        lines.append(f"| {case.name} | {rows} | {low:.1f} | {high:.1f} | {late:.1f} | {high / low:.2f} | {kept} |")
    return lines


async def _under_load(rooms: Rooms, large: str, rounds: int) -> str:
    """Ask while 20 entries have come since the last answer, which the answer takes up first."""
    times = []
    ledger = rooms.database.collection("ledger")
    for _ in range(rounds):
        documents = [entry_to_document(call(large, number, LARGE)) | {"unbooked": "final"} for number in range(20)]
        for document in documents:
            document["session_uid"] = new_id("ses")
        await ledger.insert_many(documents)
        times.append((await timed(rooms, large, CASES[6]))[0])
    return (
        f"By model, where 20 entries have come since the last answer: {statistics.median(times):.1f} ms at the median."
    )


def _times(share: int) -> TokenUsage:
    names = ("input_tokens", "output_tokens", "total_tokens", "cache_read_tokens", "reasoning_tokens")
    return TokenUsage(**{name: (getattr(USAGE, name) or 0) * share for name in names})


def main() -> int:
    """Run it and print the report; exit status 1: P6 is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=int, default=100_000, help="real entries of the large tenant")
    parser.add_argument("--rounds", type=int, default=30, help="questions of each kind")
    options = parser.parse_args()
    configure_logs(level="WARNING", pretty=True, log_content=False)
    report = "\n".join(asyncio.run(run(real=options.real, rounds=options.rounds)))
    load = "{:.1f}, {:.1f}, {:.1f}".format(*os.getloadavg())
    print(f"## A tenant's month\n\n{report}\n\n{os.cpu_count()} cores; load average, when done: {load}.")
    return 1 if "MISSED" in report else 0


if __name__ == "__main__":
    sys.exit(main())
