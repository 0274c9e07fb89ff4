"""Builds the rooms that both the server and the command line need: the database, the provider, the books."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from godoty_service.clock import utc_now
from godoty_service.clock_sync import SynchronizedClock
from godoty_service.ids import new_id
from godoty_service.metering import booking as bookings
from godoty_service.metering import ledger as ledgers
from godoty_service.metering import oracle as oracles
from godoty_service.metering import provider_prices as provider_price_stores
from godoty_service.metering import rollups as rollup_stores
from godoty_service.metering.adjustments import Adjustments
from godoty_service.metering.booking import Booking
from godoty_service.metering.budget_sweep import BudgetSweep
from godoty_service.metering.budgets import BudgetAlert, Budgets
from godoty_service.metering.call import ModelCall
from godoty_service.metering.catalogue import Catalogue
from godoty_service.metering.entry_sums import EntrySums
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.ledger_export import LedgerExport
from godoty_service.metering.ledger_pages import LedgerPages
from godoty_service.metering.opening_balance import OpeningBalance
from godoty_service.metering.oracle import Oracle
from godoty_service.metering.provider_prices import ProviderPrices
from godoty_service.metering.reconciler import Patience, Reconciler
from godoty_service.metering.rollups import Rollups
from godoty_service.metering.session_folds import SessionFolds
from godoty_service.metering.spending import Spending
from godoty_service.metering.time_repair import TimeRepair
from godoty_service.metering.usage_entries import UsageEntries
from godoty_service.metering.usage_query import UsageQuery
from godoty_service.metering.usage_walk import WalkLimits
from godoty_service.mongo import Database, open_database
from godoty_service.mongo_diagnosis import reach
from godoty_service.openrouter.account import Account, BodyLimits
from godoty_service.openrouter.accounts import Access, Accounts
from godoty_service.openrouter.client import ErrorBodyLimits, OpenRouterClient, open_client
from godoty_service.openrouter.pace import Pace
from godoty_service.openrouter.record_keeping import RecordKeeping
from godoty_service.sessions import messages as message_stores
from godoty_service.sessions import replicas as replica_stores
from godoty_service.sessions import store as session_stores
from godoty_service.sessions.leases import Leases
from godoty_service.sessions.messages import MessageStore
from godoty_service.sessions.replicas import Replicas
from godoty_service.sessions.store import Sessions
from godoty_service.settings import Settings
from godoty_service.tenancy import audit
from godoty_service.tenancy import keys as key_stores
from godoty_service.tenancy import provider_keys as provider_key_stores
from godoty_service.tenancy.administration import Administration
from godoty_service.tenancy.audit import AdminChanges
from godoty_service.tenancy.gates import Gates
from godoty_service.tenancy.keys import ApiKeys
from godoty_service.tenancy.local_gates import DefaultLimits
from godoty_service.tenancy.policies import Policies
from godoty_service.tenancy.provider_keys import ProviderKeys
from godoty_service.tenancy.sealing import Sealer
from godoty_service.tenancy.tenants import Tenants
from godoty_service.turns import chunks as log_chunks
from godoty_service.turns import records as turn_records
from godoty_service.turns.chunks import LogChunks
from godoty_service.turns.deletion import Deletions
from godoty_service.turns.records import TurnRecords

_INDEXES = {
    "sessions": session_stores.INDEXES,
    "messages": message_stores.INDEXES,
    "replicas": replica_stores.INDEXES,
    "ledger": ledgers.INDEXES,
    "usage_quarters": rollup_stores.INDEXES,
    "usage_books": bookings.INDEXES,
    "catalogues": oracles.INDEXES,
    "provider_prices": provider_price_stores.INDEXES,
    "turns": turn_records.INDEXES,
    "turn_logs": log_chunks.INDEXES,
    "api_keys": key_stores.INDEXES,
    "provider_keys": provider_key_stores.INDEXES,
    "admin_changes": audit.INDEXES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What is built of settings alone. Nothing of it runs by itself."""

    database: Database
    clock: SynchronizedClock
    tenants: Tenants
    keys: ApiKeys
    replicas: Replicas
    sessions: Sessions
    leases: Leases
    messages: MessageStore
    records: TurnRecords
    chunks: LogChunks
    deletions: Deletions
    ledger: Ledger
    folds: SessionFolds
    adjustments: Adjustments
    policies: Policies
    provider_keys: ProviderKeys
    administration: Administration
    gates: Gates
    budgets: Budgets
    spending: Spending
    entry_sums: EntrySums
    budget_sweep: BudgetSweep
    time_repair: TimeRepair
    usage: "UsageRooms"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRooms:
    """What sums the ledger up, and reads it."""

    entries: UsageEntries
    rollups: Rollups
    booking: Booking
    query: UsageQuery
    pages: LedgerPages
    exports: LedgerExport


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRooms:
    """What speaks to the provider, or needs what it says."""

    client: OpenRouterClient
    pace: Pace
    account: Account
    accounts: Accounts
    key_id: str
    oracle: Oracle
    reconciler: Reconciler


@asynccontextmanager
async def open_rooms(
    settings: Settings, *, indexes: bool = True, on_alert: Callable[[BudgetAlert], None] = lambda _: None
) -> AsyncIterator[Rooms]:
    """Open the database, make what indexes it lacks, and build the rooms that keep things in it.

    Args:
        settings: What the environment says.
        indexes: Make them; a proof of the books must not stop at an index that cannot be made of them.
        on_alert: Told of each share of a budget that a turn reaches here.

    Raises:
        StorageUnavailable: It cannot be reached.
        ValueError: The settings name none.
    """
    database = open_database(
        uri=settings.database_uri,
        name=settings.mongodb_database,
        driver=settings.mongodb_driver,
        timeout=settings.storage_timeout,
    )
    try:
        await reach(database, settings.database_uri)
        if indexes:
            await asyncio.gather(*(database.collection(name).ensure(each) for name, each in _INDEXES.items()))
        clock = await _synchronized(database, tolerance=timedelta(seconds=settings.clock_tolerance))
        replicas = Replicas(
            database.collection("replicas"), replica_id=new_id("replica"), lease=timedelta(seconds=settings.lease)
        )
        sessions = Sessions(database.collection("sessions"), replicas=replicas, clock=clock)
        leases = Leases(sessions)
        messages = MessageStore(database.collection("messages"), clock=clock)
        records = TurnRecords(
            database.collection("turns"),
            keep_for=timedelta(seconds=settings.turn_log_retention),
            longest=timedelta(seconds=settings.longest_turn),
            clock=clock,
        )
        chunks = LogChunks(database.collection("turn_logs"))
        ledger = Ledger(database.collection("ledger"), clock=clock)
        folds = SessionFolds(sessions, ledger)
        policies = Policies(database.collection("policies"))
        budgets = Budgets(database.collection("budgets"), clock=clock)
        usage = _usage(database, settings, owner=replicas.replica_id)
        entry_sums = EntrySums(database.collection("ledger"))
        balance = OpeningBalance(database=database, booking=usage.booking, rollups=usage.rollups, entries=entry_sums)
        spending = Spending(
            budgets=budgets,
            balance=balance,
            adjustments=ledger.adjustments,
            budgets_of=policies.budgets,
            now=database.now,
            on_alert=on_alert,
        )
        tenants = Tenants(database.collection("tenants"), clock=clock)
        keys = ApiKeys(database.collection("api_keys"), clock=clock)
        provider_keys = ProviderKeys(database.collection("provider_keys"), sealer=_sealer(settings), clock=clock)

        yield Rooms(
            database=database,
            clock=clock,
            tenants=tenants,
            keys=keys,
            replicas=replicas,
            sessions=sessions,
            leases=leases,
            messages=messages,
            records=records,
            chunks=chunks,
            deletions=Deletions(sessions=sessions, leases=leases, messages=messages, records=records, chunks=chunks),
            ledger=ledger,
            folds=folds,
            adjustments=Adjustments(ledger, folds, spending=spending, clock=clock),
            policies=policies,
            provider_keys=provider_keys,
            administration=Administration(
                tenants=tenants,
                keys=keys,
                policies=policies,
                provider_keys=provider_keys,
                changes=AdminChanges(database.collection("admin_changes"), clock=clock),
                counting=spending.counting,
            ),
            gates=Gates(
                database.collection("gates"),
                replica_id=replicas.replica_id,
                living=replicas.living,
                defaults=DefaultLimits(
                    turns_per_minute=settings.default_turns_per_minute,
                    concurrent_turns=settings.default_concurrent_turns,
                ),
            ),
            budgets=budgets,
            spending=spending,
            entry_sums=entry_sums,
            budget_sweep=BudgetSweep(
                spending=spending,
                budgets=budgets,
                ledger=ledger,
                balance=balance,
                now=database.now,
                living=replicas.living,
                owner=replicas.replica_id,
            ),
            time_repair=TimeRepair(ledger=ledger, booking=usage.booking, folds=folds, restate=spending.restate),
            usage=usage,
        )
    finally:
        await database.close()


@asynccontextmanager
async def open_provider(
    settings: Settings,
    rooms: Rooms,
    *,
    record: Callable[[ModelCall], None],
    on_rejected_list: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[ProviderRooms]:
    """Build what speaks to the provider.

    Args:
        settings: What the environment says.
        rooms: The other rooms.
        record: Told of each call that is reconciled.
        on_rejected_list: Called for each price list that was fetched and not taken: of "models", or of "providers".

    Raises:
        ValueError: The settings name no key.
    """
    key_id = settings.openrouter_key_id
    pace = Pace()
    client = _open_client(settings, pace)
    records = RecordKeeping(base_url=settings.openrouter_base_url, configured=settings.generation_records)
    limits = BodyLimits(listing=settings.max_listing_bytes, record=settings.max_record_bytes)
    account_of = partial(Account, limits=limits, records=records)
    account = account_of(client)
    accounts = Accounts(
        Access(client=client, key_id=key_id),
        account_of=account_of,
        records=records,
        old_keys=settings.old_openrouter_keys,
        key_of=partial(_key_of, rooms.provider_keys),
        secret_of=rooms.provider_keys.by_key_id,
    )

    async def readable_keys() -> set[str]:
        return {key_id, *settings.old_openrouter_keys, *await rooms.provider_keys.readable_ids()}

    oracle = Oracle(
        rooms.database.collection("catalogues"),
        fetch_models=account.models,
        providers=ProviderPrices(
            rooms.database.collection("provider_prices"),
            fetch=account.endpoints,
            keep_for=timedelta(seconds=settings.catalogue_refresh),
            on_rejected=on_rejected_list,
            clock=rooms.clock,
        ),
        least_share=settings.catalogue_least_share,
        on_rejected=on_rejected_list,
        clock=rooms.clock,
    )
    reconciler = Reconciler(
        ledger=rooms.ledger,
        oracle=oracle,
        folds=rooms.folds,
        read_generation=accounts.generation,
        living=rooms.replicas.living,
        owner=rooms.replicas.replica_id,
        readable_keys=readable_keys,
        record=record,
        spending=rooms.spending,
        sweep=rooms.budget_sweep.sweep,
        patience=_patience(settings),
        keeps_records=accounts.keeps_records,
        now=rooms.database.now,
        clock=rooms.clock,
    )
    try:
        yield ProviderRooms(
            client=client,
            pace=pace,
            account=account,
            accounts=accounts,
            key_id=key_id,
            oracle=oracle,
            reconciler=reconciler,
        )
    finally:
        await client.close()


async def read_catalogue(settings: Settings) -> Catalogue:
    """Read the provider's list of models, without the database.

    Raises:
        ProviderError: It cannot be fetched.
        ValueError: It is no such list, or the settings name no key.
    """
    client = _open_client(settings, Pace())
    try:
        records = RecordKeeping(base_url=settings.openrouter_base_url, configured=settings.generation_records)
        limits = BodyLimits(listing=settings.max_listing_bytes, record=settings.max_record_bytes)
        body = await Account(client, limits=limits, records=records).models()
        return await asyncio.to_thread(Catalogue.parse, body, fetch_time=utc_now())
    finally:
        await client.close()


def _open_client(settings: Settings, pace: Pace) -> OpenRouterClient:
    return open_client(
        api_key=settings.provider_key,
        base_url=settings.openrouter_base_url,
        site_url=settings.site_url,
        app_name=settings.app_name,
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        pace=pace,
        error_limits=ErrorBodyLimits(size=settings.max_error_bytes, seconds=settings.error_body_timeout),
    )


async def _synchronized(database: Database, *, tolerance: timedelta) -> SynchronizedClock:
    clock = SynchronizedClock(database.now, tolerance=tolerance)
    for _ in range(2):  # the first may wait for a connection, so it is right to within a second only
        await clock.measure()
    return clock


def _patience(settings: Settings) -> Patience:
    """Return how long calls wait for their records: not at all where none are kept."""
    longest = 0.0 if settings.generation_records == "none" else settings.record_patience
    return Patience(
        without_usage=timedelta(seconds=longest),
        priced=timedelta(seconds=min(longest, settings.record_patience_with_usage)),
        after_error=timedelta(seconds=min(longest, settings.record_patience_after_error)),
    )


async def _key_of(provider_keys: ProviderKeys, tenant_id: str) -> tuple[str, str] | None:
    key = await provider_keys.get(tenant_id)
    return None if key is None else (key.key_id, key.secret)


def _sealer(settings: Settings) -> Sealer:
    """Read the keys that encrypt tenants' own provider keys.

    Raises:
        ValueError: One is none.
    """
    return Sealer.of(settings.encryption_keys.get_secret_value() if settings.encryption_keys else "")


def _usage(database: Database, settings: Settings, *, owner: str) -> UsageRooms:
    entries = UsageEntries(database.collection("ledger"))
    rollups = Rollups(database.collection("usage_quarters"))
    booking = Booking(
        database.collection("usage_books"), entries=entries, rollups=rollups, now=database.now, owner=owner
    )
    pages = LedgerPages(database.collection("ledger"))
    return UsageRooms(
        entries=entries,
        rollups=rollups,
        booking=booking,
        query=UsageQuery(
            database=database,
            booking=booking,
            rollups=rollups,
            entries=entries,
            limits=WalkLimits(piece=settings.usage_piece_entries, entries=settings.usage_max_entries),
        ),
        pages=pages,
        exports=LedgerExport(booking=booking, pages=pages),
    )
