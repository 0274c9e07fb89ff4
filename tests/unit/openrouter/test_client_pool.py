"""The clients of tenants' keys: cached for a while, on the connection pool of the service's client."""

import gc
import weakref
from typing import Any

from godoty_service.openrouter.api import BodyLimits, OpenRouterApi, RecordSupport
from godoty_service.openrouter.client import OpenRouterClient
from godoty_service.openrouter.client_pool import CACHED_FOR, MOST_CLIENTS, ClientPool, ProviderClient
from tests.unit.openrouter.test_client import recording_server
from tests.unit.test_caching import Tick


def client_pool(client: OpenRouterClient, tick: Tick) -> ClientPool:
    """Return a pool in which each tenant has a key of its own, named after it."""
    records = RecordSupport(base_url="http://127.0.0.1", configured="kept")

    def api_of(client: OpenRouterClient) -> OpenRouterApi:
        return OpenRouterApi(client, limits=BodyLimits(listing=1024, record=1024), record_support=records)

    async def key_of(tenant_id: str) -> tuple[str, str]:
        return f"id of {tenant_id}", f"key of {tenant_id}"

    async def secret_of(key_id: str) -> str | None:
        return None

    return ClientPool(
        ProviderClient(client=client, key_id="service"),
        api_of=api_of,
        record_support=records,
        old_keys={},
        key_of=key_of,
        secret_of=secret_of,
        monotonic=tick,
    )


async def test_client_of_a_key_leaves_memory_after_a_while() -> None:
    """A turn that has it goes on to send with it; the next one gets a new client."""
    tick = Tick()
    async with recording_server() as (service, heads):
        pool = client_pool(service, tick)
        first: Any = (await pool.of_tenant("one")).client
        tick.now = CACHED_FOR - 1
        await pool.sweep()
        assert (await pool.of_tenant("one")).client is first
        tick.now = CACHED_FOR
        await pool.sweep()
        await (await first.complete({"model": "a/b"})).aread()
        gone, first = weakref.ref(first), None
        gc.collect()
        assert gone() is None
        second = (await pool.of_tenant("one")).client
        await (await second.complete({"model": "a/b"})).aread()

    assert [each["authorization"] for each in heads] == ["Bearer key of one"] * 2


async def test_clients_are_bounded_in_number() -> None:
    """The least recently used one leaves; it shares the connection pool, so nothing of it is closed."""
    async with recording_server() as (service, heads):
        pool = client_pool(service, Tick())
        first = (await pool.of_tenant("first")).client
        for number in range(MOST_CLIENTS):
            await pool.of_tenant(str(number))
        assert (await pool.of_tenant("first")).client is not first
        await (await first.complete({"model": "a/b"})).aread()

    assert [each["authorization"] for each in heads] == ["Bearer key of first"]
