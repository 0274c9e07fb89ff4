"""Builds what concerns budgets: the tracked spending of tenants, its verification, and its maintenance."""

from collections.abc import Callable
from dataclasses import dataclass

from godoty_service.budgets.alerts import BudgetAlert
from godoty_service.budgets.entry_sums import EntrySums
from godoty_service.budgets.maintenance import BudgetMaintenance
from godoty_service.budgets.opening_balance import OpeningBalanceJob
from godoty_service.budgets.service import BudgetService
from godoty_service.budgets.store import BudgetStore
from godoty_service.clock import Clock
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.ledger.ledger import Ledger
from godoty_service.mongo.client import Database
from godoty_service.tenancy.policies import Policies
from godoty_service.tenancy.tenants import Tenants
from godoty_service.usage.rollup_job import RollupJob
from godoty_service.usage.rollup_store import RollupStore


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetComponents:
    """The tracked spending of tenants, and the sums of entries that it is compared with."""

    store: BudgetStore
    service: BudgetService
    maintenance: BudgetMaintenance
    entry_sums: EntrySums


def build_budgets(
    database: Database,
    ledger: Ledger,
    *,
    entry_sums: EntrySums,
    rollup_job: RollupJob,
    rollups: RollupStore,
    tenants: Tenants,
    policies: Policies,
    replicas: ReplicaHeartbeats,
    clock: Clock,
    on_alert: Callable[[BudgetAlert], None],
) -> BudgetComponents:
    """Build them.

    Args:
        database: Has the tracked spending.
        ledger: The entries.
        entry_sums: Sums them.
        rollup_job: Rolls them up.
        rollups: Their sums.
        tenants: Returns the calendars of tenants.
        policies: Returns the budgets of tenants.
        replicas: Returns which servers are alive.
        clock: Returns the time.
        on_alert: Called with each alert.
    """
    calendar_of = tenants.calendar
    store = BudgetStore(database.collection(BudgetStore.COLLECTION), clock=clock, calendar_of=calendar_of)
    balance = OpeningBalanceJob(
        database=database,
        rollup_job=rollup_job,
        rollups=rollups,
        entries=entry_sums,
        calendar_of=calendar_of,
    )
    service = BudgetService(
        budgets=store,
        balance=balance,
        adjustments=ledger.adjustments,
        budgets_of=policies.budgets,
        now=database.now,
        on_alert=on_alert,
    )
    maintenance = BudgetMaintenance(
        budget_service=service,
        budgets=store,
        ledger=ledger,
        balance=balance,
        now=database.now,
        living=replicas.alive,
        owner=replicas.replica_id,
    )
    return BudgetComponents(store=store, service=service, maintenance=maintenance, entry_sums=entry_sums)
