"""Time of a usage query over a tenant's month (P6): `python -m bench.usage [--real N] [--rounds N]`.

Inserting 10,000,000 entries takes too long. So the large tenant has the roll-up documents of 10,000,000 entries, evenly
over a month of 31 days and all pairs of model and provider, written by the service's own `RollupStore`; and `--real`
further entries, inserted into the ledger and rolled up by the service's own `RollupJob`. The small tenant's 10,000
entries are all real. MongoDB is a separate process; the time is that of `UsageQueries.run` and of the response message,
from Python, without gRPC.
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

from godoty_service.bootstrap.components import Components, open_components
from godoty_service.ids import new_id
from godoty_service.ledger.codec import entry_to_document
from godoty_service.ledger.entries import CostSource, ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.ledger.totals import Totals
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.rpc.billing.codec import usage_report_message
from godoty_service.settings.settings import Settings
from godoty_service.telemetry.logs import configure_logs
from godoty_service.usage.calendar import TimeGroup
from godoty_service.usage.grouping import Group, NamedGroup
from godoty_service.usage.query import UsageQuery
from godoty_service.usage.rollup_keys import QUARTER, Granularity, RollupKey, Sum, Sums, with_all_granularities
from openrouter_sandbox.mongodb.replica_set import LocalMongo

LARGE, SMALL = 10_000_000, 10_000
ALLOWED, ALLOWED_RATIO = 50.0, 1.5  # milliseconds; large over small
PAGE_BYTES = 1024 * 1024  # of a response, as in the server
MONTH = datetime(2026, 10, 1, tzinfo=UTC)
QUARTERS = 31 * 96
SERVED = tuple((f"vendor/model-{number}", f"Provider {number % 6 + more}") for number in range(12) for more in (0, 1))
COST = Decimal("0.0000105")
USAGE = TokenUsage(input_tokens=900, output_tokens=120, total_tokens=1020, cache_read_tokens=600, reasoning_tokens=40)


@dataclass(frozen=True)
class Case:
    """A query, and whether P6 covers it."""

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
async def open_database() -> AsyncIterator[Components]:
    """Start MongoDB, and open the components on it."""
    with tempfile.TemporaryDirectory(prefix="godoty-bench-", ignore_cleanup_errors=True) as directory:
        async with LocalMongo(Path(directory)) as mongo:
            settings = Settings(mongodb_uri=mongo.uri, mongodb_database="godoty_bench", storage_timeout=120)
            async with open_components(settings) as components:
                yield components


def call(tenant_id: str, number: int, of: int) -> ModelCall:
    """Return the `number`th of `of` settled calls, evenly over the month."""
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


async def insert(components: Components, tenant_id: str, calls: int) -> float:
    """Insert entries, 5,000 at a time, without rolling them up; return the seconds it took."""
    begun = time.perf_counter()
    ledger = components.database.collection("ledger")
    for first in range(0, calls, 5000):
        numbers = range(first, min(first + 5000, calls))
        await ledger.insert_many(
            [entry_to_document(call(tenant_id, number, calls)) | {"rollup_state": "ready"} for number in numbers]
        )
    return time.perf_counter() - begun


def day_of_sums(tenant_id: str, day: int, entries: int) -> Sums:
    """Return the sums of a day of a month of `entries` entries."""
    details: Sums = {}
    for number in range(day * 96, (day + 1) * 96):
        calls = entries * (number + 1) // QUARTERS - entries * number // QUARTERS
        quarter = MONTH + number * QUARTER
        for place, (model, provider) in enumerate(SERVED):
            share = calls * (place + 1) // len(SERVED) - calls * place // len(SERVED)
            totals = Totals(cost=COST * share, usage=_times(share), model_calls=share, turns=share // 2)
            cell = RollupKey(
                tenant_id=tenant_id,
                granularity=Granularity.DETAIL,
                time=quarter,
                model=model,
                provider=provider,
                agent="assistant",
            )
            details[cell] = Sum(totals=totals, last_change=quarter + QUARTER)
    return with_all_granularities(details)


async def write_rollups(components: Components, tenant_id: str, entries: int) -> int:
    """Write the roll-ups of `entries` entries; return the number of documents."""
    for day in range(31):
        await components.usage.rollups.add_batch(day + 1, day_of_sums(tenant_id, day, entries))
    await components.database.collection("usage_rollup_state").insert_one(
        {"_id": tenant_id, "revision": 0, "last_batch": 31}
    )
    return await components.database.collection("usage_rollups").count({"tenant_id": tenant_id})


def query(case: Case) -> UsageQuery:
    """Return the query of the month in the zone of a case."""
    zone = ZoneInfo(case.zone)
    start, end = (datetime(2026, month, 1, tzinfo=zone).astimezone(UTC) for month in (10, 11))
    return UsageQuery(start=start, end=end, groups=case.groups, zone=zone, as_of=None)


async def timed(components: Components, tenant_id: str, case: Case) -> tuple[float, int]:
    """Run a query; return its milliseconds and rows."""
    begun = time.perf_counter()
    answer = await components.usage.queries.run(tenant_id, query(case))
    (await usage_report_message(answer, query(case), max_bytes=PAGE_BYTES)).SerializeToString()
    return (time.perf_counter() - begun) * 1000, len(answer.rows)


async def check(components: Components, tenant_id: str) -> None:
    """Check that the roll-ups of real entries equal a full scan."""
    found = await components.database.collection("ledger").aggregate(
        [
            {"$match": {"tenant_id": tenant_id}},
            {"$group": {"_id": None, "cost": {"$sum": "$cost"}, "calls": {"$sum": 1}}},
        ]
    )
    answer = await components.usage.queries.run(tenant_id, query(CASES[0]))
    assert (answer.totals.cost, answer.totals.model_calls) == (found[0]["cost"].to_decimal(), found[0]["calls"])  # noqa: S101


async def run(*, real: int, rounds: int) -> Iterator[str]:
    """Run all cases; return the lines of the report."""
    lines: list[str] = []
    async with open_database() as components:
        small, large = "tnt_small", "tnt_large"
        inserted = await insert(components, small, SMALL)
        begun = time.perf_counter()
        await components.usage.rollup_job.roll_up(small)
        taken = time.perf_counter() - begun
        await check(components, small)
        lines.append(
            f"Small: {SMALL:,} entries inserted ({SMALL / inserted:,.0f} a second) and rolled up "
            f"({SMALL / taken:,.0f} a second); its sums equal a scan."
        )
        begun = time.perf_counter()
        documents = await write_rollups(components, large, LARGE - real)
        written = time.perf_counter() - begun
        inserted = await insert(components, large, real)
        begun = time.perf_counter()
        await components.usage.rollup_job.roll_up(large)
        taken = time.perf_counter() - begun
        lines.append(
            f"Large: {documents:,} roll-up documents of {LARGE - real:,} entries, written in {written:.0f} s "
            f"by `RollupStore`, without those entries; and {real:,} real entries inserted "
            f"({real / inserted:,.0f} a second) and rolled up ({real / taken:,.0f} a second). At these rates all "
            f"{LARGE:,} would take {LARGE / real * (inserted + taken) / 60:.0f} minutes."
        )
        answer = await components.usage.queries.run(large, query(CASES[0]))
        assert (answer.totals.model_calls, answer.totals.cost) == (LARGE, COST * LARGE)  # noqa: S101
        lines += ["", *await _table(components, small, large, rounds), ""]
        lines.append(await _under_load(components, large, rounds))
    return iter(lines)


async def _table(components: Components, small: str, large: str, rounds: int) -> list[str]:
    lines = [
        f"| a month, median of {rounds} | rows | {SMALL:,} entries | {LARGE:,} entries | its 95th | ratio | P6 |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        times: dict[str, list[float]] = {small: [], large: []}
        rows = 0
        for _ in range(rounds if case.name.find("entries") < 0 else 3):
            for tenant_id in random.sample([small, large], 2):
                took, rows = await timed(components, tenant_id, case)
                times[tenant_id].append(took)
        low, high = statistics.median(times[small]), statistics.median(times[large])
        late = sorted(times[large])[int(len(times[large]) * 0.95)]
        verdict = "-" if not case.promised else "kept" if high <= ALLOWED and high / low <= ALLOWED_RATIO else "MISSED"
        lines.append(f"| {case.name} | {rows} | {low:.1f} | {high:.1f} | {late:.1f} | {high / low:.2f} | {verdict} |")
    return lines


async def _under_load(components: Components, large: str, rounds: int) -> str:
    """Run a query after 20 new entries, which it rolls up first."""
    times = []
    ledger = components.database.collection("ledger")
    for _ in range(rounds):
        documents = [entry_to_document(call(large, number, LARGE)) | {"rollup_state": "ready"} for number in range(20)]
        for document in documents:
            document["session_uid"] = new_id("ses")
        await ledger.insert_many(documents)
        times.append((await timed(components, large, CASES[6]))[0])
    return f"By model, after 20 new entries since the last query: {statistics.median(times):.1f} ms at the median."


def _times(share: int) -> TokenUsage:
    names = ("input_tokens", "output_tokens", "total_tokens", "cache_read_tokens", "reasoning_tokens")
    return TokenUsage(**{name: (getattr(USAGE, name) or 0) * share for name in names})


def main() -> int:
    """Run it and print the report; exit status 1: P6 is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=int, default=100_000, help="real entries of the large tenant")
    parser.add_argument("--rounds", type=int, default=30, help="queries of each kind")
    options = parser.parse_args()
    configure_logs(level="WARNING", pretty=True, log_content=False)
    report = "\n".join(asyncio.run(run(real=options.real, rounds=options.rounds)))
    load = "{:.1f}, {:.1f}, {:.1f}".format(*os.getloadavg())
    print(f"## A tenant's month\n\n{report}\n\n{os.cpu_count()} cores; load average, when done: {load}.")
    return 1 if "MISSED" in report else 0


if __name__ == "__main__":
    sys.exit(main())
