"""Builds the components that the server and the command line share: the database, the provider, the ledger."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from godoty_service.actions.calls import StepCalls
from godoty_service.actions.steps import Steps
from godoty_service.actions.stores import ActionStores
from godoty_service.agents.mcp.changes import McpComponents
from godoty_service.agents.mcp.store import McpServers
from godoty_service.agents.store import Agents
from godoty_service.agents.versions import AgentVersions
from godoty_service.attachments.attachments import Attachments
from godoty_service.attachments.chunks import AttachmentChunks
from godoty_service.attachments.store import AttachmentStore
from godoty_service.bootstrap.attachments import build_attachments
from godoty_service.bootstrap.budgets import BudgetComponents, build_budgets
from godoty_service.bootstrap.mcp import build_mcp
from godoty_service.bootstrap.usage import UsageComponents, build_usage
from godoty_service.bootstrap.users import UserComponents, build_user_erasure, build_users
from godoty_service.bootstrap.webhooks import WEBHOOK_STORES, build_subscribers, build_webhooks
from godoty_service.budgets.alerts import BudgetAlert
from godoty_service.budgets.entry_sums import EntrySums
from godoty_service.budgets.service import BudgetService
from godoty_service.clock import Clock
from godoty_service.cluster.clock_sync import SynchronizedClock
from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.ids import new_id
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.session_totals import SessionTotalsUpdater
from godoty_service.metering.adjustments import Adjustments
from godoty_service.metering.time_repair import TimeRepair
from godoty_service.migrations import registry
from godoty_service.migrations.migrator import Migrator
from godoty_service.migrations.schema import Schema
from godoty_service.mongo.client import Database, open_database
from godoty_service.mongo.diagnosis import reach
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.pricing.provider_prices import ProviderPrices
from godoty_service.sessions.lease_holders import LeaseHolders
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.store import SessionStore
from godoty_service.settings.settings import Settings
from godoty_service.tenancy.admin import Administration
from godoty_service.tenancy.api_keys import ApiKeys
from godoty_service.tenancy.audit import AdminChanges
from godoty_service.tenancy.encryption import SecretBox
from godoty_service.tenancy.lifecycle import TenantLifecycle
from godoty_service.tenancy.policies import Policies
from godoty_service.tenancy.provider_keys import ProviderKeys
from godoty_service.tenancy.tenants import Tenants
from godoty_service.tenancy.turn_limits import DefaultLimits, TurnLimiter
from godoty_service.turns.event_log.outbox import Wants
from godoty_service.turns.event_log.store import EventLogStore
from godoty_service.turns.session_deletion import SessionDeletions
from godoty_service.turns.turn_store import TurnStore
from godoty_service.usage.rollup_job import RollupJob
from godoty_service.usage.rollup_store import RollupStore
from godoty_service.user_erasure import UserErasure
from godoty_service.users.references import UserReferences
from godoty_service.users.stored_names import StoredNames
from godoty_service.webhooks.changes import WebhookComponents

_INDEXED_STORES = (
    AttachmentStore,
    AttachmentChunks,
    Agents,
    AgentVersions,
    McpServers,
    *WEBHOOK_STORES,
    SessionStore,
    MessageStore,
    ReplicaHeartbeats,
    Ledger,
    RollupStore,
    RollupJob,
    PricingOracle,
    ProviderPrices,
    TurnStore,
    EventLogStore,
    Tenants,
    ApiKeys,
    ProviderKeys,
    AdminChanges,
    UserReferences,
    StepCalls,
    Steps,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenancyComponents:
    """Tenants, and what each of them may do."""

    tenants: Tenants
    api_keys: ApiKeys
    policies: Policies
    provider_keys: ProviderKeys
    turn_limiter: TurnLimiter


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationComponents:
    """Agents, sessions and turns, as the database stores them."""

    agents: Agents
    sessions: SessionStore
    leases: LeaseHolders
    messages: MessageStore
    turn_store: TurnStore
    event_logs: EventLogStore
    deletions: SessionDeletions
    attachments: Attachments
    actions: ActionStores


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountingComponents:
    """The ledger, session totals, and what corrects both."""

    ledger: Ledger
    totals_updater: SessionTotalsUpdater
    adjustments: Adjustments
    time_repair: TimeRepair


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The components that need the settings alone. None of them runs in the background by itself."""

    database: Database
    schema: Schema
    clock: SynchronizedClock
    replicas: ReplicaHeartbeats
    tenancy: TenancyComponents
    users: UserComponents
    conversations: ConversationComponents
    usage: UsageComponents
    budgets: BudgetComponents
    accounting: AccountingComponents
    administration: Administration
    user_erasure: UserErasure
    mcp: McpComponents
    webhooks: WebhookComponents


@asynccontextmanager
async def open_components(
    settings: Settings,
    *,
    migrate: bool = False,
    indexes: bool = True,
    on_alert: Callable[[BudgetAlert], None] = lambda _: None,
) -> AsyncIterator[Components]:
    """Open the database, create missing indexes, and build the components that use it.

    Args:
        settings: The settings.
        migrate: Bring an older database to this build's schema; else it is refused.
        indexes: Create missing indexes. A verification of the ledger must also run on entries that violate one.
        on_alert: Called for each share of a budget that a turn of this process reaches.

    Raises:
        StorageUnavailable: The database cannot be reached.
        SchemaError: Its schema version does not fit this build.
        ValueError: The settings name no database.
    """
    database = open_database(
        uri=settings.database_uri,
        name=settings.mongodb_database,
        driver=settings.mongodb_driver,
        timeout=settings.storage_timeout,
    )
    try:
        await reach(database, settings.database_uri)
        schema = Schema(database, registry.MIGRATIONS)
        if migrate:
            await Migrator(database, schema, server_lease=timedelta(seconds=settings.lease)).run()
        await schema.require_current()
        if indexes:
            await _create_indexes(database)
        clock = await _synchronized_clock(database, tolerance=timedelta(seconds=settings.clock_tolerance))
        yield _components(settings, database, schema, clock, on_alert=on_alert)
    finally:
        await database.close()


async def _create_indexes(database: Database) -> None:
    await asyncio.gather(*(database.collection(store.COLLECTION).ensure(store.INDEXES) for store in _INDEXED_STORES))


async def _synchronized_clock(database: Database, *, tolerance: timedelta) -> SynchronizedClock:
    clock = SynchronizedClock(database.now, tolerance=tolerance)
    for _ in range(2):  # the first may wait for a connection, so it is right to within a second only
        await clock.measure()
    return clock


def _components(
    settings: Settings,
    database: Database,
    schema: Schema,
    clock: SynchronizedClock,
    *,
    on_alert: Callable[[BudgetAlert], None],
) -> Components:
    replicas = ReplicaHeartbeats(
        database.collection(ReplicaHeartbeats.COLLECTION),
        replica_id=new_id("replica"),
        lease=timedelta(seconds=settings.lease),
        schema=schema.supported,
    )
    entries = database.collection(Ledger.COLLECTION)
    secret_box = _secret_box(settings)
    tenancy = _tenancy(settings, database, clock, replicas, secret_box)
    users = build_users(database, schema, clock, replicas)
    subscribers = build_subscribers(database, clock, secret_box=secret_box)
    conversations = _conversations(settings, database, clock, replicas, users.stored_names, wants=subscribers.wants)
    usage = build_usage(settings, database, entries, users.references, owner=replicas.replica_id)
    ledger = Ledger(entries)
    budgets = build_budgets(
        database,
        ledger,
        entry_sums=EntrySums(entries),
        rollup_job=usage.rollup_job,
        rollups=usage.rollups,
        tenants=tenancy.tenants,
        policies=tenancy.policies,
        replicas=replicas,
        clock=clock,
        on_alert=on_alert,
    )
    administration = _administration(database, tenancy, budgets.service, clock)
    webhooks = build_webhooks(
        settings, database, clock, subscribers, secret_box=secret_box, policies=tenancy.policies, replicas=replicas
    )
    return Components(
        database=database,
        schema=schema,
        clock=clock,
        replicas=replicas,
        tenancy=tenancy,
        users=users,
        conversations=conversations,
        usage=usage,
        budgets=budgets,
        accounting=_accounting(ledger, budgets.service, usage=usage, sessions=conversations.sessions, clock=clock),
        administration=administration,
        user_erasure=build_user_erasure(users, conversations, replicas, administration, webhooks.erasure),
        mcp=build_mcp(settings, database, clock, secret_box=secret_box),
        webhooks=webhooks,
    )


def _tenancy(
    settings: Settings, database: Database, clock: Clock, replicas: ReplicaHeartbeats, secret_box: SecretBox
) -> TenancyComponents:
    return TenancyComponents(
        tenants=Tenants(database.collection(Tenants.COLLECTION), clock=clock),
        api_keys=ApiKeys(database.collection(ApiKeys.COLLECTION), clock=clock),
        policies=Policies(database.collection(Policies.COLLECTION)),
        provider_keys=ProviderKeys(database.collection(ProviderKeys.COLLECTION), sealer=secret_box, clock=clock),
        turn_limiter=TurnLimiter(
            database.collection(TurnLimiter.COLLECTION),
            replica_id=replicas.replica_id,
            living=replicas.alive,
            defaults=DefaultLimits(
                turns_per_minute=settings.default_turns_per_minute,
                concurrent_turns=settings.default_concurrent_turns,
            ),
        ),
    )


def _conversations(
    settings: Settings,
    database: Database,
    clock: Clock,
    replicas: ReplicaHeartbeats,
    stored_names: StoredNames,
    *,
    wants: Wants,
) -> ConversationComponents:
    sessions = SessionStore(
        database.collection(SessionStore.COLLECTION),
        replicas=replicas,
        clock=clock,
        with_names=lambda: stored_names.kept_in_sessions,
    )
    leases = LeaseHolders(sessions)
    messages = MessageStore(database.collection(MessageStore.COLLECTION), clock=clock)
    turn_store = TurnStore(
        database.collection(TurnStore.COLLECTION),
        retention=timedelta(seconds=settings.turn_log_retention),
        max_duration=timedelta(seconds=settings.longest_turn),
        clock=clock,
        wants=wants,
    )
    event_logs = EventLogStore(database.collection(EventLogStore.COLLECTION))
    versions = AgentVersions(database.collection(AgentVersions.COLLECTION))
    attachments = build_attachments(settings, database, clock)
    actions = ActionStores(
        calls=StepCalls(database.collection(StepCalls.COLLECTION), clock=clock),
        steps=Steps(database.collection(Steps.COLLECTION), clock=clock),
        retention=timedelta(seconds=settings.action_retention),
    )
    return ConversationComponents(
        attachments=attachments,
        actions=actions,
        agents=Agents(database.collection(Agents.COLLECTION), versions, clock=clock),
        sessions=sessions,
        leases=leases,
        messages=messages,
        turn_store=turn_store,
        event_logs=event_logs,
        deletions=SessionDeletions(
            sessions=sessions,
            leases=leases,
            messages=messages,
            turn_store=turn_store,
            event_logs=event_logs,
            attachments=attachments.store,
            wants=wants,
            clock=clock,
            actions=actions,
        ),
    )


def _accounting(
    ledger: Ledger, budget_service: BudgetService, *, usage: UsageComponents, sessions: SessionStore, clock: Clock
) -> AccountingComponents:
    totals_updater = SessionTotalsUpdater(sessions, ledger)
    return AccountingComponents(
        ledger=ledger,
        totals_updater=totals_updater,
        adjustments=Adjustments(ledger, totals_updater, budget_service=budget_service, clock=clock),
        time_repair=TimeRepair(
            ledger=ledger,
            rollup_job=usage.rollup_job,
            totals_updater=totals_updater,
            restate_budgets=budget_service.rebuild,
        ),
    )


def _administration(
    database: Database, tenancy: TenancyComponents, budget_service: BudgetService, clock: Clock
) -> Administration:
    changes = AdminChanges(database.collection(AdminChanges.COLLECTION), clock=clock)
    return Administration(
        tenants=tenancy.tenants,
        lifecycle=TenantLifecycle(tenants=tenancy.tenants, keys=tenancy.api_keys, changes=changes, clock=clock),
        keys=tenancy.api_keys,
        policies=tenancy.policies,
        provider_keys=tenancy.provider_keys,
        changes=changes,
        counting=budget_service.tracking,
    )


def _secret_box(settings: Settings) -> SecretBox:
    """Build the encryption of tenants' own provider keys, and of the secrets of their MCP servers.

    Raises:
        ValueError: An encryption key is malformed.
    """
    return SecretBox.of(settings.encryption_keys.get_secret_value() if settings.encryption_keys else "")
