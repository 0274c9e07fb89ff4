"""`godoty ledger repair-times` on entries that a server with a wrong clock wrote."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from godoty_service.bootstrap.components import Components, open_components
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.tenancy.policies import Policy, PolicyChange
from tests.conftest import Start
from tests.e2e.metering.conftest import Godoty
from tests.faults.invoice_comparison import spending_at
from tests.faults.stored_times import late_times
from tests.support.backends import ME
from tests.support.caller import Caller
from tests.support.service import Service, soon

Connect = Callable[[Service], Caller]
MONTH = timedelta(days=31)
HARD = Policy(budgets=(Budget(window=BudgetWindow.MONTH, limit=Decimal(100), hard=True),))
QUIET: dict[str, Any] = {"rollup_interval": 3600.0}  # tests roll usage up themselves


def written_ahead(service: Service, by: timedelta, **which: Any) -> None:
    """Shift entries' times, as a server whose clock is ahead would have written them."""
    milliseconds = by // timedelta(milliseconds=1)
    for name in ("start_time", "settle_time", "time", "call_time"):
        service.database["ledger"].update_many(
            {"tenant_id": service.tenant_id, name: {"$exists": True}, **which},
            [{"$set": {name: {"$add": [f"${name}", milliseconds]}}}],
        )


async def ended(service: Service) -> None:
    """Wait until no turn has a lease on the session."""
    await soon(lambda: (service.session("talk") or {"lease": 1})["lease"] is None)


async def spent(components: Components, service: Service) -> Decimal:
    """Return what the month's budget counts, a minute later."""
    _, sweep = spending_at(components, timedelta(minutes=5))
    await sweep.run_once()
    await sweep.run_once()
    (status,) = await components.budgets.service.status(service.tenant_id)
    return status.spent


async def test_entries_a_month_ahead_return_to_their_time(serve: Start, connect: Connect, godoty: Godoty) -> None:
    """Roll-ups, the session's runs and the month's budget are as if the clock had been right, and `verify` is clean."""
    service = await serve(**QUIET)
    caller = connect(service)
    async with open_components(service.backends.settings(service.database.name), indexes=False) as components:
        await components.administration.update_policy(ME, service.tenant_id, PolicyChange(policy=HARD))
        await spent(components, service)
        budgets = service.database["budgets"]
        counted_nothing = budgets.find_one({"_id": service.tenant_id}) or {}
        await caller.converse("hello")
        await caller.converse("@sandbox tool-loop calls=3")
        await ended(service)
        true = service.entries("talk")
        cost = sum((each.cost or Decimal(0) for each in true), Decimal(0))
        written_ahead(service, MONTH, number={"$gte": 2})
        await components.usage.rollup_job.advance_watermark(service.tenant_id)
        await components.accounting.totals_updater.rebuild(service.tenant_id, true[0].session_uid)
        budgets.replace_one({"_id": service.tenant_id}, counted_nothing)
        dry = await godoty(service, "ledger", "repair-times", "--dry-run")
        untouched = service.entries("talk")
        said = await godoty(service, "ledger", "repair-times")
        counted = await spent(components, service)

    assert (dry.status, said.status) == (0, 0), said.err
    assert "3 entries to repair" in dry.out
    assert untouched[1].start_time == true[1].start_time + MONTH
    assert "3 entries repaired" in said.out
    for entry, right in zip(service.entries("talk"), true, strict=True):
        assert abs(entry.start_time - right.start_time) < timedelta(seconds=10)
        assert entry.settle_time is not None
        assert right.settle_time is not None
        assert abs(entry.settle_time - right.settle_time) < timedelta(seconds=10)
    late = late_times(service.database, now=datetime.now(UTC) + timedelta(seconds=1))
    assert [line for line in late if ".time_repair.before." not in line] == []
    assert counted == cost
    verified = await godoty(service, "ledger", "verify")
    assert (verified.status, verified.out.split(", ")[-1].strip()) == (0, "0 differences"), verified.err
    change = service.database["admin_changes"].find_one({"action": "RepairTimes"}) or {}
    assert true[1].call_id in change["details"]
    assert true[1].call_id in change["old"]
    again = await godoty(service, "ledger", "repair-times")
    assert "0 entries repaired" in again.out


async def test_answer_given_before_the_repair_stays_as_it_was(serve: Start, connect: Connect, godoty: Godoty) -> None:
    """With its `as_of` it excludes the entry dated a month ahead; without, the entry is in today's usage."""
    service = await serve(**QUIET)
    caller = connect(service)
    await caller.converse("hello")
    await caller.converse("hello")
    await ended(service)
    written_ahead(service, MONTH, number=2)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    month = ["--from", str(today.date() - timedelta(days=1)), "--to", str(today.date() + timedelta(days=2))]
    before = await godoty(service, "usage", service.tenant_id, *month)
    as_of = before.out.split("as of ")[1].split(":  --")[0].split(": --")[0]
    await godoty(service, "ledger", "repair-times")
    again = await godoty(service, "usage", service.tenant_id, *month, "--as-of", as_of)
    now = await godoty(service, "usage", service.tenant_id, *month)

    def calls(out: str) -> int:
        (line,) = [line for line in out.splitlines() if "total" in line]
        return int(line.split("│")[3])

    assert [calls(each.out) for each in (before, again, now)] == [1, 1, 2]


async def test_watermark_in_the_future_returns_to_now(serve: Start, connect: Connect, godoty: Godoty) -> None:
    """After an older version's error, `as_of` is the database's time again, and the answer has all entries since."""
    service = await serve(**QUIET)
    caller = connect(service)
    await caller.converse("hello")
    await ended(service)
    async with open_components(service.backends.settings(service.database.name), indexes=False) as components:
        ahead = await components.usage.rollup_job.advance_watermark(service.tenant_id) + MONTH
        states = service.database["usage_rollup_state"]
        states.update_one({"_id": service.tenant_id}, {"$set": {"watermark": ahead, "last_change": ahead}})
        await caller.converse("hello")
        await ended(service)
        assert await components.usage.rollup_job.advance_watermark(service.tenant_id) > ahead
        said = await godoty(service, "ledger", "repair-times")
        as_of = await components.usage.rollup_job.advance_watermark(service.tenant_id)

    assert said.status == 0, said.err
    assert as_of <= datetime.now(UTC) + timedelta(seconds=1)  # known to within a round trip
    verified = await godoty(service, "ledger", "verify")
    assert (verified.status, verified.err) == (0, "")
    usage = await godoty(service, "usage", service.tenant_id)
    assert " 2 " in usage.out


async def test_interrupted_repair_is_finished_by_the_next(serve: Start, connect: Connect, godoty: Godoty) -> None:
    """If the command dies after the roll-ups, another run corrects session totals and budgets."""
    service = await serve(**QUIET)
    caller = connect(service)
    async with open_components(service.backends.settings(service.database.name), indexes=False) as components:
        await components.administration.update_policy(ME, service.tenant_id, PolicyChange(policy=HARD))
        await caller.converse("hello")
        await ended(service)
        written_ahead(service, MONTH)
        (batch,) = [
            each
            async for each in components.accounting.time_repair.find(
                None, now=await components.database.now(), limit=components.clock() + components.clock.tolerance
            )
        ]
        await components.usage.rollup_job.repair(batch.tenant_id, batch.repairs)
        said = await godoty(service, "ledger", "repair-times")
        counted = await spent(components, service)

    assert "1 entries repaired" in said.out, said.err
    assert counted == service.entries("talk")[0].cost
    verified = await godoty(service, "ledger", "verify")
    assert (verified.status, verified.err) == (0, "")


async def test_open_call_that_is_due_in_a_month_is_made_due(serve: Start, connect: Connect, godoty: Godoty) -> None:
    """Otherwise reconciliation would not read its generation record before."""
    service = await serve(**QUIET, reconcile_interval=3600.0)
    turn = await connect(service).converse("@sandbox error-mid n=3 usage=0 record_ms=0")
    assert turn.failure is not None
    await ended(service)
    later = datetime.now(UTC) + MONTH
    service.database["ledger"].update_many({"state": "pending"}, {"$set": {"due": later, "left_time": later}})
    said = await godoty(service, "ledger", "repair-times")
    (entry,) = service.entry_documents("talk")

    assert "1 open calls made due" in said.out, said.err
    assert max(entry["due"], entry["left_time"]).replace(tzinfo=UTC) <= datetime.now(UTC) + timedelta(seconds=1)
