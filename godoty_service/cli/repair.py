"""`godoty ledger repair-times`: corrects times that a wrong clock wrote."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from godoty_service.cli.context import actor, out, with_components

if TYPE_CHECKING:
    from godoty_service.bootstrap.components import Components
    from godoty_service.metering.time_repair import RepairBatch

_RECORDED = 100  # entries of a batch whose times its audit record includes; each entry has its own


def repair_times(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's entries.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the changes without making them.")] = False,
) -> None:
    """Correct times of entries that are in the future, and their roll-ups, session totals and budgets.

    A time is wrong if it is later than the database's by more than GODOTY_CLOCK_TOLERANCE. Each entry retains its old
    times and the evidence for the new ones; a report as of an earlier time does not change.
    """

    async def work(components: "Components") -> None:
        now = await components.database.now()
        limit = now + components.clock.tolerance
        entries = rollups = 0
        async for batch in components.accounting.time_repair.find(tenant, now=now, limit=limit):
            _print(batch)
            entries += len(batch.repairs)
            rollups += not batch.repairs
            if not dry_run:
                await components.administration.record_time_repair(
                    actor(), batch.tenant_id, old=_old_times(batch), new=_new_times(batch)
                )
                await components.accounting.time_repair.apply(batch)
        requeued = 0 if dry_run else await components.accounting.time_repair.requeue(tenant, now=now, limit=limit)
        done = "to repair" if dry_run else "repaired"
        out.print(
            f"{entries} entries {done}, {rollups} further tenants' roll-ups {done}, {requeued} open calls made due"
        )

    with_components(work)


def _print(batch: "RepairBatch") -> None:
    for each in batch.repairs:
        changes = [f"{name} {_text(each.before[name])} -> {_text(time)}" for name, time in each.times.items()]
        evidence = ", ".join(sorted(set(each.evidence.values())))
        out.print(f"{batch.tenant_id} {each.entry_id}: {'; '.join(changes)} ({evidence})", markup=False)
    if not batch.repairs:
        out.print(f"{batch.tenant_id}: the roll-ups' watermark is in the future", markup=False)


def _old_times(batch: "RepairBatch") -> dict[str, Any]:
    return {"entries": [{"entry_id": each.entry_id, **each.before} for each in batch.repairs[:_RECORDED]]}


def _new_times(batch: "RepairBatch") -> dict[str, Any]:
    entries = [
        {"entry_id": each.entry_id, **each.times, "evidence": each.evidence} for each in batch.repairs[:_RECORDED]
    ]
    return {"count": len(batch.repairs), "entries": entries}


def _text(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")
