"""What a tenant with 2,000,000 ledger entries does to itself: `python -m bench.large_tenant [--entries N]`.

The entries are real documents, evenly over the 31 days before now, with the roll-ups that they give. Then, with a
storage timeout of 2 s and while turns of the same tenant run: a first budget is set and stated for good, verified,
removed and set again; usage is asked by model and by user; entries are exported. `--verify` verifies the roll-ups and
looks for repeated generations as well, `--all` exports all entries; that takes minutes more. Nothing may be refused.
Exit status 1: something was.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import grpc
from pymongo import AsyncMongoClient

from bench.usage import COST, SERVED, USAGE, call
from godoty_service.budget import Budget, BudgetWindow
from godoty_service.metering.budget_verification import verify_budgets
from godoty_service.metering.documents import entry_to_document
from godoty_service.metering.ledger_pages import EntryFilter
from godoty_service.metering.rollup_verification import verify_usage
from godoty_service.metering.totals import Totals
from godoty_service.metering.usage import TokenUsage
from godoty_service.metering.usage_cells import QUARTER, Cell, Level, Sum, Sums, floor_quarter, widened
from godoty_service.metering.usage_groups import NamedGroup
from godoty_service.metering.usage_query import UsageQuestion
from godoty_service.rooms import Rooms, open_rooms
from godoty_service.tenancy.policy import NO_POLICY, Policy
from tests.conftest import server_environment
from tests.faults.world import ServerProcess
from tests.service.caller import Caller
from tests.service.service import Service
from tests.service.surroundings import Surroundings

STORAGE_TIMEOUT = 2.0  # seconds
QUARTERS = 31 * 96
EXPORTED = 100_000  # entries, unless all
BATCH = 5000  # entries of one insert
TURNS = 4  # at once
BUDGETS = tuple(Budget(window=window, limit=Decimal(1_000_000), hard=True) for window in BudgetWindow)


@dataclass
class Result:
    """What was seen.

    Attributes:
        lines: The report's.
        failures: What was refused, by step.
        turns: How long each turn took, in seconds.
    """

    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)


async def fill(uri: str, database: str, tenant_id: str, *, entries: int, start: datetime) -> int:
    """Insert settled entries, as many in each quarter of an hour for each model and provider; returns how many."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri)
    ledger = client[database]["ledger"]
    each = max(1, entries // (QUARTERS * len(SERVED)))
    number = 0
    batch: list[dict[str, Any]] = []
    templates = [entry_to_document(call(tenant_id, place, 1)) for place in range(len(SERVED))]
    step = (QUARTER - timedelta(seconds=10)) / each
    for quarter in range(QUARTERS):
        for template in templates:
            for place in range(each):
                begun = start + quarter * QUARTER + place * step
                batch.append(_entry(template, tenant_id, number, begun.replace(microsecond=0)))
                number += 1
        if len(batch) >= BATCH or quarter == QUARTERS - 1:
            await ledger.insert_many(batch, ordered=False)
            batch = []
    await client.close()
    return number


def _entry(template: dict[str, Any], tenant_id: str, number: int, start: datetime) -> dict[str, Any]:
    return {
        **template,
        "_id": f"call_{number:020x}",
        "session_uid": f"{tenant_id}-{number // 20}",
        "session_id": f"session-{number // 20 % 50}",
        "turn_id": f"turn_{number:020x}",
        "generation_id": f"gen_{number:020x}",
        "number": number % 20 + 1,
        "user": f"user-{number % 200}",
        "opens_turn": True,
        "start_time": start,
        "settle_time": start + timedelta(seconds=2),
    }


async def roll_up(rooms: Rooms, tenant_id: str, *, each: int, start: datetime) -> None:
    """Write the roll-ups of those entries."""
    step = (QUARTER - timedelta(seconds=10)) / each
    usage = TokenUsage(**{name: (getattr(USAGE, name) or 0) * each for name in _counters()})
    totals = Totals(cost=COST * each, usage=usage, model_calls=each, turns=each)
    for day in range(31):
        details: Sums = {}
        for number in range(day * 96, (day + 1) * 96):
            quarter = start + number * QUARTER
            latest = (quarter + (each - 1) * step).replace(microsecond=0) + timedelta(seconds=2)
            for model, provider in SERVED:
                cell = Cell(
                    tenant_id=tenant_id,
                    level=Level.DETAIL,
                    time=quarter,
                    model=model,
                    provider=provider,
                    agent="assistant",
                )
                details[cell] = Sum(totals=totals, latest=latest)
        await rooms.usage.rollups.fold(day + 1, widened(details))
    await rooms.database.collection("usage_books").insert_one({"_id": tenant_id, "revision": 0, "done": 31})


def _counters() -> list[str]:
    return [name for name in TokenUsage.__slots__ if getattr(USAGE, name) is not None]


async def step(result: Result, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do something and report what it took and gave; what it raises is a failure."""
    begun = time.perf_counter()
    try:
        given = await work()
    except Exception as error:  # noqa: BLE001 - each is reported
        given = f"FAILED: {type(error).__name__}: {error}"
        result.failures.append(name)
    took = time.perf_counter() - begun
    result.lines.append(f"| {name} | {took:.2f} s | {'' if given is None else given} |")
    print(result.lines[-1], flush=True)


async def take_turns(caller: Caller, result: Result, name: str) -> None:
    """Take turns until cancelled."""
    while True:
        begun = time.perf_counter()
        turn = await caller.converse("@sandbox plain tokens=8", session_id=name)
        result.turns.append(time.perf_counter() - begun)
        if turn.failure is not None:
            result.failures.append(f"turn: {turn.failure.reason or turn.failure.code.name}")
        await asyncio.sleep(0.2)


class Steps:
    """What is done to the tenant, by what `AdminService`, `BillingService` and `godoty ledger verify` call."""

    def __init__(self, rooms: Rooms, tenant_id: str, result: Result) -> None:
        self._rooms = rooms
        self._tenant_id = tenant_id
        self._result = result

    async def set_budgets(self) -> None:
        """Set hard budgets that no turn reaches."""
        await self._rooms.administration.set_policy("bench", self._tenant_id, Policy(budgets=BUDGETS))

    async def remove_budgets(self) -> None:
        """Remove them."""
        await self._rooms.administration.set_policy("bench", self._tenant_id, NO_POLICY)

    async def stated(self) -> None:
        """Wait until the server has stated for good what was before."""
        while await self._rooms.budgets.counted(self._tenant_id) is None:  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.5)

    async def status(self, spent: Decimal) -> str:
        """Compare the budget of all time with the entries from before the turns."""
        by_window = {each.window: each.spent for each in await self._rooms.spending.status(self._tenant_id)}
        if by_window[BudgetWindow.TOTAL] < spent:
            self._result.failures.append("the budget lacks something")
        return f"spent {by_window[BudgetWindow.TOTAL]}, of it before the turns {spent}"

    async def verify_budgets(self) -> str:
        """Verify the budgets."""
        rooms = self._rooms
        found = verify_budgets(
            database=rooms.database, entries=rooms.entry_sums, budgets=rooms.budgets, tenant_id=self._tenant_id
        )
        return _differences(self._result, [each.what async for each in found])

    async def verify_usage(self) -> str:
        """Verify the roll-ups."""
        usage = self._rooms.usage
        found = verify_usage(
            database=self._rooms.database,
            entries=usage.entries,
            rollups=usage.rollups,
            booking=usage.booking,
            tenant_id=self._tenant_id,
        )
        return _differences(self._result, [each.what async for each in found])

    async def repeated_generations(self) -> str:
        """Look for generations that stand on several entries."""
        found = self._rooms.ledger.repeated_generations(self._tenant_id)
        return _differences(self._result, [each.call_id async for each in found])

    async def ask(self, group: NamedGroup) -> str:
        """Ask what the tenant used in the last 31 days."""
        now = datetime.now(UTC)
        start = now - timedelta(days=31)
        question = UsageQuestion(start=start, end=now, groups=(group,), zone=ZoneInfo("UTC"), as_of=None)
        answer = await self._rooms.usage.query.ask(self._tenant_id, question)
        return f"{len(answer.rows)} rows"

    async def export(self, *, most: int | None) -> str:
        """Read entries page by page, as an export does."""
        count = 0
        async for page in self._rooms.usage.pages.pages(self._tenant_id, EntryFilter(), size=500):
            count += len(page)
            if most is not None and count >= most:
                break
        return f"{count:,} entries"


async def measure(
    rooms: Rooms, tenant_id: str, result: Result, *, spent: Decimal, everything: bool, verify: bool
) -> None:
    """Do each step."""
    steps = Steps(rooms, tenant_id, result)
    await step(result, "first budget", steps.set_budgets)
    await step(result, "its status", lambda: steps.status(spent))
    await step(result, "usage by model", lambda: steps.ask(NamedGroup.MODEL))
    await step(result, "usage by user", lambda: steps.ask(NamedGroup.USER))
    await step(result, "export", lambda: steps.export(most=None if everything else EXPORTED))
    await step(result, "until stated for good", steps.stated)
    await step(result, "its status", lambda: steps.status(spent))
    await step(result, "verify budgets", steps.verify_budgets)
    await step(result, "remove the budgets", steps.remove_budgets)
    await step(result, "set them again", steps.set_budgets)
    await step(result, "its status", lambda: steps.status(spent))
    if verify:
        await step(result, "verify usage", steps.verify_usage)
        await step(result, "repeated generations", steps.repeated_generations)


def _differences(result: Result, found: list[str]) -> str:
    if found:
        result.failures.append("verify")
    return f"{len(found)} differences {found[:3] or ''}"


async def run(surroundings: Surroundings, log: Path, *, entries: int, everything: bool, verify: bool) -> Result:
    """Fill a ledger, start a server, and do each step while turns run."""
    result, database = Result(), surroundings.new_database()
    tenant_id = "tnt_large"
    start = floor_quarter(datetime.now(UTC)) - (QUARTERS + 1) * QUARTER
    start = start.replace(hour=0, minute=0)
    begun = time.perf_counter()
    filled = await fill(surroundings.mongodb_uri, database, tenant_id, entries=entries, start=start)
    async with open_rooms(surroundings.settings(database, storage_timeout=600)) as rooms:  # it makes the indexes
        await roll_up(rooms, tenant_id, each=filled // (QUARTERS * len(SERVED)), start=start)
    print(f"{filled:,} entries written, indexed and rolled up in {time.perf_counter() - begun:.0f} s", flush=True)
    settings: dict[str, str] = {"GODOTY_STORAGE_TIMEOUT": str(STORAGE_TIMEOUT)}
    server = ServerProcess(environment=server_environment(surroundings, database) | settings, log=log)
    await server.start()
    try:
        async with (
            open_rooms(surroundings.settings(database, storage_timeout=STORAGE_TIMEOUT)) as rooms,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            caller = Caller(await large_tenant(surroundings, server.address, database, tenant_id, rooms), channel)
            turns = [asyncio.create_task(take_turns(caller, result, f"talk-{number}")) for number in range(TURNS)]
            await measure(rooms, tenant_id, result, spent=COST * filled, everything=everything, verify=verify)
            for each in turns:
                each.cancel()
                with suppress(asyncio.CancelledError):
                    await each
    finally:
        await server.stop()
    return result


async def large_tenant(surroundings: Surroundings, target: str, database: str, tenant_id: str, rooms: Rooms) -> Service:
    """Return a service whose tenant is the one with the entries."""
    service = await asyncio.to_thread(surroundings.service, target, database)
    tenants = rooms.database.collection("tenants")
    found = await tenants.find_one({"_id": service.tenant_id})
    await tenants.insert_one({**(found or {}), "_id": tenant_id})
    await rooms.database.collection("api_keys").update_many(
        {"tenant_id": service.tenant_id}, {"$set": {"tenant_id": tenant_id}}
    )
    return Service(place=service.place, tenant_id=tenant_id, api_key=service.api_key, key_id=service.key_id)


def main() -> int:
    """Run it and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=2_000_000, help="entries of the tenant, about")
    parser.add_argument(
        "--verify", action="store_true", help="also verify the roll-ups, and that no generation repeats"
    )
    parser.add_argument("--all", action="store_true", help="export all entries")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="godoty-bench-"))
    with Surroundings(directory, None) as surroundings:
        result = asyncio.run(
            run(
                surroundings,
                directory / "server.log",
                entries=options.entries,
                everything=options.all,
                verify=options.verify,
            )
        )
    load = "{:.1f}, {:.1f}, {:.1f}".format(*os.getloadavg())
    slowest = max(result.turns, default=0.0)
    print("\n## A tenant of many entries, storage timeout 2 s\n\n| step | took | result |\n|---|---:|---|")
    print("\n".join(result.lines))
    print(f"\n{len(result.turns)} turns meanwhile, the slowest {slowest:.2f} s; failures: {result.failures or 'none'}.")
    print(f"{os.cpu_count()} cores; load average, when done: {load}.")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
