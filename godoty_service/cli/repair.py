"""`godoty ledger repair-times`: replaces times that a wrong clock wrote."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from godoty_service.cli.session import out, user, with_rooms

if TYPE_CHECKING:
    from godoty_service.metering.time_repair import RepairBatch
    from godoty_service.rooms import Rooms

_RECORDED = 100  # entries of a batch whose times are in its audit record; all are in the entries themselves


def repair_times(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's entries.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be changed, and change nothing.")
    ] = False,
) -> None:
    """Replace entries' times in the future, and correct roll-ups, session sums and budgets.

    A time is wrong that lies after the database's by more than GODOTY_CLOCK_TOLERANCE. Each entry keeps its old times
    and the evidence for the new ones; an answer given before, with its `as_of`, stays as it was.
    """

    async def work(rooms: "Rooms") -> None:
        now = await rooms.database.now()
        limit = now + rooms.clock.tolerance
        entries = books = 0
        async for batch in rooms.time_repair.find(tenant, now=now, limit=limit):
            _print(batch)
            entries += len(batch.repairs)
            books += not batch.repairs
            if not dry_run:
                await rooms.administration.repairing_times(user(), batch.tenant_id, _told(batch))
                await rooms.time_repair.apply(batch)
        requeued = 0 if dry_run else await rooms.time_repair.requeue(tenant, now=now, limit=limit)
        done = "to repair" if dry_run else "repaired"
        out.print(f"{entries} entries {done}, {books} further tenants' roll-ups {done}, {requeued} open calls made due")

    with_rooms(work)


def _print(batch: "RepairBatch") -> None:
    for each in batch.repairs:
        changes = [f"{name} {_text(each.before[name])} -> {_text(time)}" for name, time in each.times.items()]
        evidence = ", ".join(sorted(set(each.evidence.values())))
        out.print(f"{batch.tenant_id} {each.entry_id}: {'; '.join(changes)} ({evidence})", markup=False)
    if not batch.repairs:
        out.print(f"{batch.tenant_id}: roll-ups are closed in the future", markup=False)


def _told(batch: "RepairBatch") -> dict[str, Any]:
    entries = [
        {"entry_id": each.entry_id, "before": each.before, "after": each.times, "evidence": each.evidence}
        for each in batch.repairs[:_RECORDED]
    ]
    return {"count": len(batch.repairs), "entries": entries}


def _text(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")
