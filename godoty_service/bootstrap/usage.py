"""Builds what concerns usage: the roll-ups of the ledger, and the queries that read both."""

from dataclasses import dataclass

from godoty_service.mongo.client import Database
from godoty_service.mongo.collection import Collection
from godoty_service.settings.settings import Settings
from godoty_service.usage.entries import UsageEntries
from godoty_service.usage.entry_scan import ScanLimits
from godoty_service.usage.ledger_pages import LedgerExport, LedgerPages
from godoty_service.usage.query import UsageQueries
from godoty_service.usage.rollup_job import RollupJob
from godoty_service.usage.rollup_store import RollupStore
from godoty_service.users.references import UserReferences


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageComponents:
    """Roll-ups of the ledger, and the queries that read it."""

    entries: UsageEntries
    rollups: RollupStore
    rollup_job: RollupJob
    queries: UsageQueries
    pages: LedgerPages
    exports: LedgerExport


def build_usage(
    settings: Settings, database: Database, ledger: Collection, users: UserReferences, *, owner: str
) -> UsageComponents:
    """Build them.

    Args:
        settings: The settings.
        database: The database.
        ledger: The collection of the ledger's entries.
        users: The end users' references.
        owner: The id of this process, for the lease of the roll-up job.
    """
    entries = UsageEntries(ledger)
    rollups = RollupStore(database.collection(RollupStore.COLLECTION))
    rollup_job = RollupJob(
        database.collection(RollupJob.COLLECTION), entries=entries, rollups=rollups, now=database.now, owner=owner
    )
    pages = LedgerPages(ledger, users=users, piece=settings.usage_piece_entries)
    return UsageComponents(
        entries=entries,
        rollups=rollups,
        rollup_job=rollup_job,
        queries=UsageQueries(
            database=database,
            rollup_job=rollup_job,
            rollups=rollups,
            entries=entries,
            users=users,
            limits=ScanLimits(piece=settings.usage_piece_entries, entries=settings.usage_max_entries),
        ),
        pages=pages,
        exports=LedgerExport(rollup_job=rollup_job, pages=pages, now=database.now),
    )
