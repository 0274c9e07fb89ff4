"""Operations of a tenant with 2,000,000 ledger entries: `python -m bench.large_tenant [--entries N]`.

The entries are real documents, evenly over the last 31 days, with their roll-ups. Then, with a storage timeout of 2 s
and while turns of the same tenant run, a first budget is set, computed from the ledger, verified, removed and set
again; usage is queried by model and by user; entries are exported. `--verify` also verifies the roll-ups and searches
for repeated generations, `--all` exports all entries; both take minutes. No operation may fail. Exit status 1: one did.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import grpc
from pymongo import AsyncMongoClient

from bench.usage import COST, SERVED, USAGE, call
from godoty_service.bootstrap.components import Components, open_components
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.budgets.verification import verify_budgets
from godoty_service.ledger.codec import entry_to_document
from godoty_service.ledger.totals import Totals
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.tenancy.audit import Actor, ActorKind
from godoty_service.tenancy.policies import NO_POLICY, Policy, PolicyChange
from godoty_service.usage.grouping import NamedGroup
from godoty_service.usage.ledger_pages import EntryFilter
from godoty_service.usage.query import UsageQuery
from godoty_service.usage.rollup_keys import (
    QUARTER,
    Granularity,
    RollupKey,
    Sum,
    Sums,
    floor_quarter,
    with_all_granularities,
)
from godoty_service.usage.verification import verify_usage
from tests.conftest import server_environment
from tests.faults.cluster import ServerProcess
from tests.support.backends import Backends
from tests.support.caller import Caller
from tests.support.service import Service

STORAGE_TIMEOUT = 2.0  # seconds
QUARTERS = 31 * 96
EXPORTED = 100_000  # entries, unless all
BATCH = 5000  # entries of one insert
USERS = 200  # end users
TURNS = 4  # concurrent ones
ME = Actor(kind=ActorKind.CLI, id="bench")
BUDGETS = tuple(Budget(window=window, limit=Decimal(1_000_000), hard=True) for window in BudgetWindow)


@dataclass
class Result:
    """The result.

    Attributes:
        lines: The lines of the report.
        failures: The steps and turns that failed.
        turns: The durations of the turns, in seconds.
    """

    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)


async def fill(uri: str, database: str, tenant_id: str, *, entries: int, start: datetime) -> int:
    """Insert settled entries, evenly over quarters of an hour, models and providers; return how many."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri)
    ledger = client[database]["ledger"]
    each = max(1, entries // (QUARTERS * len(SERVED)))
    number = 0
    batch: list[dict[str, Any]] = []
    users = [{"_id": f"user_{each:028x}", "tenant_id": tenant_id, "name": f"user-{each}"} for each in range(USERS)]
    await client[database]["users"].insert_many(users)
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
        "user_reference": f"user_{number % USERS:028x}",
        "opens_turn": True,
        "start_time": start,
        "settle_time": start + timedelta(seconds=2),
    }


async def roll_up(components: Components, tenant_id: str, *, each: int, start: datetime) -> None:
    """Write the roll-ups of these entries."""
    step = (QUARTER - timedelta(seconds=10)) / each
    usage = TokenUsage(**{name: (getattr(USAGE, name) or 0) * each for name in _counters()})
    totals = Totals(cost=COST * each, usage=usage, model_calls=each, turns=each)
    for day in range(31):
        details: Sums = {}
        for number in range(day * 96, (day + 1) * 96):
            quarter = start + number * QUARTER
            latest = (quarter + (each - 1) * step).replace(microsecond=0) + timedelta(seconds=2)
            for model, provider in SERVED:
                cell = RollupKey(
                    tenant_id=tenant_id,
                    granularity=Granularity.DETAIL,
                    time=quarter,
                    model=model,
                    provider=provider,
                    agent="assistant",
                )
                details[cell] = Sum(totals=totals, last_change=latest)
        await components.usage.rollups.add_batch(day + 1, with_all_granularities(details))
    await components.database.collection("usage_rollup_state").insert_one(
        {"_id": tenant_id, "revision": 0, "last_batch": 31}
    )


def _counters() -> list[str]:
    return [name for name in TokenUsage.__slots__ if getattr(USAGE, name) is not None]


async def step(result: Result, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Run a step, and report its duration and result; an exception is a failure."""
    begun = time.perf_counter()
    try:
        outcome = await work()
    except Exception as error:  # noqa: BLE001 - each is reported
        outcome = f"FAILED: {type(error).__name__}: {error}"
        result.failures.append(name)
    took = time.perf_counter() - begun
    result.lines.append(f"| {name} | {took:.2f} s | {'' if outcome is None else outcome} |")
    print(result.lines[-1], flush=True)


async def run_turns(caller: Caller, result: Result, name: str) -> None:
    """Run turns until cancelled."""
    while True:
        begun = time.perf_counter()
        turn = await caller.converse("@sandbox plain tokens=8", session_id=name)
        result.turns.append(time.perf_counter() - begun)
        if turn.failure is not None:
            result.failures.append(f"turn: {turn.failure.reason or turn.failure.code.name}")
        await asyncio.sleep(0.2)


class Steps:
    """The steps: the operations of `AdminService`, `BillingService` and `godoty ledger verify`."""

    def __init__(self, components: Components, tenant_id: str, result: Result) -> None:
        self._components = components
        self._tenant_id = tenant_id
        self._result = result

    async def set_budgets(self) -> None:
        """Set hard budgets that no turn reaches."""
        await self._components.administration.update_policy(
            ME, self._tenant_id, PolicyChange(policy=Policy(budgets=BUDGETS))
        )

    async def remove_budgets(self) -> None:
        """Remove them."""
        await self._components.administration.update_policy(ME, self._tenant_id, PolicyChange(policy=NO_POLICY))

    async def counted(self) -> None:
        """Wait until the server has computed the opening balance from the ledger."""
        while await self._components.budgets.store.tracked(self._tenant_id) is None:  # noqa: ASYNC110 - set by another process
            await asyncio.sleep(0.5)

    async def status(self, spent: Decimal) -> str:
        """Compare the total budget with the entries that were inserted before the turns."""
        by_window = {each.window: each.spent for each in await self._components.budgets.service.status(self._tenant_id)}
        if by_window[BudgetWindow.TOTAL] < spent:
            self._result.failures.append("the budget is too low")
        return f"spent {by_window[BudgetWindow.TOTAL]}, {spent} of it before the turns"

    async def verify_budgets(self) -> str:
        """Verify the budgets."""
        components = self._components
        found = verify_budgets(
            database=components.database,
            entries=components.budgets.entry_sums,
            budgets=components.budgets.store,
            tenant_id=self._tenant_id,
        )
        return _differences(self._result, [each.what async for each in found])

    async def verify_usage(self) -> str:
        """Verify the roll-ups."""
        usage = self._components.usage
        found = verify_usage(
            database=self._components.database,
            entries=usage.entries,
            rollups=usage.rollups,
            rollup_job=usage.rollup_job,
            tenant_id=self._tenant_id,
        )
        return _differences(self._result, [each.what async for each in found])

    async def repeated_generations(self) -> str:
        """Search for generations that occur on several entries."""
        found = self._components.accounting.ledger.repeated_generations(self._tenant_id)
        return _differences(self._result, [each.call_id async for each in found])

    async def ask(self, group: NamedGroup) -> str:
        """Ask what the tenant used in the last 31 days."""
        now = datetime.now(UTC)
        start = now - timedelta(days=31)
        question = UsageQuery(start=start, end=now, groups=(group,), zone=ZoneInfo("UTC"), as_of=None)
        answer = await self._components.usage.queries.run(self._tenant_id, question)
        return f"{len(answer.rows)} rows"

    async def export(self, *, most: int | None) -> str:
        """Read entries page by page, as an export does."""
        count = 0
        async for page in self._components.usage.pages.pages(self._tenant_id, EntryFilter(), size=500):
            count += len(page)
            if most is not None and count >= most:
                break
        return f"{count:,} entries"


async def measure(
    components: Components, tenant_id: str, result: Result, *, spent: Decimal, everything: bool, verify: bool
) -> None:
    """Do each step."""
    steps = Steps(components, tenant_id, result)
    await step(result, "first budget", steps.set_budgets)
    await step(result, "its status", lambda: steps.status(spent))
    await step(result, "usage by model", lambda: steps.ask(NamedGroup.MODEL))
    await step(result, "usage by user", lambda: steps.ask(NamedGroup.USER))
    await step(result, "export", lambda: steps.export(most=None if everything else EXPORTED))
    await step(result, "until stated for good", steps.counted)
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


async def run(backends: Backends, log: Path, *, entries: int, everything: bool, verify: bool) -> Result:
    """Fill a ledger, start a server, and do each step while turns run."""
    result, database = Result(), backends.new_database()
    tenant_id = "tnt_large"
    start = floor_quarter(datetime.now(UTC)) - (QUARTERS + 1) * QUARTER
    start = start.replace(hour=0, minute=0)
    begun = time.perf_counter()
    async with open_components(backends.settings(database)):
        pass  # a new database gets the current schema, and its indexes
    filled = await fill(backends.mongodb_uri, database, tenant_id, entries=entries, start=start)
    async with open_components(backends.settings(database, storage_timeout=600)) as components:
        await roll_up(components, tenant_id, each=filled // (QUARTERS * len(SERVED)), start=start)
    print(f"{filled:,} entries written, indexed and rolled up in {time.perf_counter() - begun:.0f} s", flush=True)
    settings: dict[str, str] = {"GODOTY_STORAGE_TIMEOUT": str(STORAGE_TIMEOUT)}
    server = ServerProcess(environment=server_environment(backends, database) | settings, log=log)
    await server.start()
    try:
        async with (
            open_components(backends.settings(database, storage_timeout=STORAGE_TIMEOUT)) as components,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            caller = Caller(await large_tenant(backends, server.address, database, tenant_id, components), channel)
            turns = [asyncio.create_task(run_turns(caller, result, f"talk-{number}")) for number in range(TURNS)]
            await measure(components, tenant_id, result, spent=COST * filled, everything=everything, verify=verify)
            for each in turns:
                each.cancel()
                with suppress(asyncio.CancelledError):
                    await each
    finally:
        await server.stop()
    return result


async def large_tenant(
    backends: Backends, target: str, database: str, tenant_id: str, components: Components
) -> Service:
    """Return a service whose tenant is the one with the entries."""
    service = await asyncio.to_thread(backends.service, target, database)
    tenants = components.database.collection("tenants")
    found = await tenants.find_one({"_id": service.tenant_id})
    await tenants.insert_one({**(found or {}), "_id": tenant_id})
    await components.database.collection("api_keys").update_many(
        {"tenant_id": service.tenant_id}, {"$set": {"tenant_id": tenant_id}}
    )
    return replace(service, tenant_id=tenant_id)


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
    with Backends(directory, None) as backends:
        result = asyncio.run(
            run(
                backends,
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
