"""Builds the components that call OpenRouter: the client, its pool, the pricing oracle, the reconciler."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from godoty_service.bootstrap.components import Components
from godoty_service.clock import utc_now
from godoty_service.ledger.entries import ModelCall
from godoty_service.metering.reconciler import Reconciler
from godoty_service.metering.settlement import RecordTimeouts
from godoty_service.openrouter.api import BodyLimits, OpenRouterApi, RecordSupport, is_openrouter
from godoty_service.openrouter.client import ErrorBodyLimits, OpenRouterClient, open_client
from godoty_service.openrouter.client_pool import ClientPool, ProviderClient
from godoty_service.openrouter.read_pacer import ReadPacer
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.pricing.oracle import PricingOracle
from godoty_service.pricing.price_file import PriceRules, load_price_file
from godoty_service.pricing.provider_prices import ProviderPrices
from godoty_service.pricing.server_tools import ServerToolPrices
from godoty_service.pricing.stored_catalogues import Upstream
from godoty_service.settings.settings import Settings
from godoty_service.tenancy.provider_keys import ProviderKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderComponents:
    """The components that call the provider, or depend on its prices."""

    client: OpenRouterClient
    read_pacer: ReadPacer
    api: OpenRouterApi
    client_pool: ClientPool
    key_id: str
    oracle: PricingOracle
    reconciler: Reconciler


@asynccontextmanager
async def open_provider(
    settings: Settings,
    components: Components,
    *,
    record: Callable[[ModelCall], None],
    on_rejected_list: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[ProviderComponents]:
    """Build the components that call the provider.

    Args:
        settings: The settings.
        components: The other components.
        record: Called for each call that is reconciled.
        on_rejected_list: Called for each price list that was fetched and rejected: of "models", or of "providers".

    Raises:
        ValueError: The settings name no key, or the price file is wrong.
    """
    upstream = await asyncio.to_thread(_upstream, settings)
    read_pacer = ReadPacer()
    client = _open_client(settings, read_pacer)
    try:
        record_support = _record_support(settings)
        api_of = partial(OpenRouterApi, limits=_body_limits(settings), record_support=record_support)
        api = api_of(client)
        client_pool = _client_pool(
            settings,
            client,
            api_of=api_of,
            record_support=record_support,
            provider_keys=components.tenancy.provider_keys,
        )
        oracle = _oracle(settings, components, api, upstream=upstream, on_rejected=on_rejected_list)
        yield ProviderComponents(
            client=client,
            read_pacer=read_pacer,
            api=api,
            client_pool=client_pool,
            key_id=settings.openrouter_key_id,
            oracle=oracle,
            reconciler=_reconciler(settings, components, oracle=oracle, client_pool=client_pool, record=record),
        )
    finally:
        await client.close()


def _client_pool(
    settings: Settings,
    client: OpenRouterClient,
    *,
    api_of: Callable[[OpenRouterClient], OpenRouterApi],
    record_support: RecordSupport,
    provider_keys: ProviderKeys,
) -> ClientPool:
    return ClientPool(
        ProviderClient(client=client, key_id=settings.openrouter_key_id),
        api_of=api_of,
        record_support=record_support,
        old_keys=settings.old_openrouter_keys,
        key_of=partial(_key_of, provider_keys),
        secret_of=provider_keys.by_key_id,
    )


def _upstream(settings: Settings) -> Upstream:
    """Return the provider whose catalogue is fetched, with the operator's own prices.

    Raises:
        ValueError: The price file is wrong.
    """
    return Upstream(
        name=settings.openrouter_base_url,
        lists_prices=is_openrouter(settings.openrouter_base_url),
        rules=load_price_file(settings.price_file) if settings.price_file is not None else PriceRules(),
    )


def _oracle(
    settings: Settings,
    components: Components,
    api: OpenRouterApi,
    *,
    upstream: Upstream,
    on_rejected: Callable[[str], None],
) -> PricingOracle:
    database, clock = components.database, components.clock
    return PricingOracle(
        database.collection(PricingOracle.COLLECTION),
        fetch_models=api.models,
        providers=ProviderPrices(
            database.collection(ProviderPrices.COLLECTION),
            fetch=api.endpoints,
            keep_for=timedelta(seconds=settings.catalogue_refresh),
            on_rejected=on_rejected,
            clock=clock,
        ),
        upstream=upstream,
        server_tools=ServerToolPrices(
            fetch=api.tools, valid_for=timedelta(seconds=settings.catalogue_refresh), clock=clock
        ),
        least_share=settings.catalogue_least_share,
        on_rejected=on_rejected,
        clock=clock,
    )


def _reconciler(
    settings: Settings,
    components: Components,
    *,
    oracle: PricingOracle,
    client_pool: ClientPool,
    record: Callable[[ModelCall], None],
) -> Reconciler:
    accounting = components.accounting
    own_keys = {settings.openrouter_key_id, *settings.old_openrouter_keys}

    async def readable_keys() -> set[str]:
        return own_keys | await components.tenancy.provider_keys.readable_ids()

    return Reconciler(
        ledger=accounting.ledger,
        oracle=oracle,
        totals_updater=accounting.totals_updater,
        adjustments=accounting.adjustments,
        read_generation=client_pool.generation,
        alive=components.replicas.alive,
        owner=components.replicas.replica_id,
        readable_keys=readable_keys,
        record=record,
        budget_service=components.budgets.service,
        settle_orphans=components.budgets.maintenance.run_once,
        timeouts=_record_timeouts(settings),
        keeps_records=client_pool.keeps_records,
        now=components.database.now,
        clock=components.clock,
    )


async def read_catalogue(settings: Settings) -> Catalogue:
    """Fetch the provider's list of models, without the database.

    Raises:
        ProviderError: It cannot be fetched.
        ValueError: It is no such list, or the settings name no key.
    """
    client = _open_client(settings, ReadPacer())
    try:
        api = OpenRouterApi(client, limits=_body_limits(settings), record_support=_record_support(settings))
        body = await api.models()
        return await asyncio.to_thread(Catalogue.parse, body, fetch_time=utc_now())
    finally:
        await client.close()


def _open_client(settings: Settings, read_pacer: ReadPacer) -> OpenRouterClient:
    return open_client(
        api_key=settings.provider_key,
        base_url=settings.openrouter_base_url,
        site_url=settings.site_url,
        app_name=settings.app_name,
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        read_pacer=read_pacer,
        error_limits=ErrorBodyLimits(size=settings.max_error_bytes, seconds=settings.error_body_timeout),
    )


def _body_limits(settings: Settings) -> BodyLimits:
    return BodyLimits(listing=settings.max_listing_bytes, record=settings.max_record_bytes)


def _record_support(settings: Settings) -> RecordSupport:
    return RecordSupport(base_url=settings.openrouter_base_url, configured=settings.generation_records)


def _record_timeouts(settings: Settings) -> RecordTimeouts:
    """Return how long calls wait for their generation records: zero if the upstream has none."""
    longest = 0.0 if settings.generation_records == "none" else settings.record_patience
    return RecordTimeouts(
        without_usage=timedelta(seconds=longest),
        priced=timedelta(seconds=min(longest, settings.record_patience_with_usage)),
        after_error=timedelta(seconds=min(longest, settings.record_patience_after_error)),
    )


def late_call_patience(settings: Settings) -> timedelta:
    """Return how long a call that is unresolved may still be resolved by its record: zero if the upstream has none."""
    return timedelta(0) if settings.generation_records == "none" else _record_timeouts(settings).unreachable


async def _key_of(provider_keys: ProviderKeys, tenant_id: str) -> tuple[str, str] | None:
    key = await provider_keys.get(tenant_id)
    return None if key is None else (key.key_id, key.secret)
