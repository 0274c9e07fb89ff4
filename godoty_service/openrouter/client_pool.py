"""Chooses the key that pays for a call: the service's, or the tenant's own. All keys share one connection pool.

A client of a tenant's key is cached for some minutes. It owns no connection: one that leaves the cache needs no
closing, and a turn that has it uses it to its end.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from godoty_service.aio.caching import TtlCache
from godoty_service.aio.periodic import run_every
from godoty_service.errors import GodotyError, ProviderKeysOff, ProviderUnavailable
from godoty_service.openrouter.api import OpenRouterApi, RecordSupport
from godoty_service.openrouter.client import OpenRouterClient

MOST_CLIENTS = 1_000
CACHED_FOR = 600.0  # seconds: then the secret of a key that was replaced, or whose tenant was deleted, leaves memory
_SWEEP_INTERVAL = 60.0  # seconds between two removals of clients
_NO_GENERATION = "gen-0-none"

KeyOf = Callable[[str], Awaitable[tuple[str, str] | None]]
SecretOf = Callable[[str], Awaitable[str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderClient:
    """A client, and the id of its key; `own`: the key is a tenant's own."""

    client: OpenRouterClient
    key_id: str
    own: bool = False


class ClientPool:
    """Clients by key."""

    def __init__(
        self,
        service: ProviderClient,
        *,
        api_of: Callable[[OpenRouterClient], OpenRouterApi],
        record_support: RecordSupport,
        old_keys: Mapping[str, str],
        key_of: KeyOf,
        secret_of: SecretOf,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Build it.

        Args:
            service: The service's own key; its client is closed by the owner.
            api_of: Builds the API that a client reads.
            record_support: Whether the upstream retains generation records.
            old_keys: Secrets of the service's earlier keys, by id; they only read records.
            key_of: Returns a tenant's own key, as its id and secret; None: it has none.
            secret_of: Returns the secret of a tenant's key by its id; None: it does not exist, or no longer.
            monotonic: Returns the seconds of a monotonic clock.
        """
        self._api_of = api_of
        self._record_support = record_support
        self._old_keys = old_keys
        self._service = service
        self._key_of = key_of
        self._secret_of = secret_of
        self._clients: TtlCache[str, ProviderClient] = TtlCache(
            size=MOST_CLIENTS, ttl=CACHED_FOR, tick=monotonic
        )  # of tenants' keys

    async def run(self) -> None:
        """Remove the clients that were cached long enough, every minute until cancelled."""
        await run_every(_SWEEP_INTERVAL, self.sweep, failure="clients_not_removed")

    async def sweep(self) -> None:
        """Remove the clients that were cached long enough."""
        self._clients.remove_expired()

    async def of_tenant(self, tenant_id: str) -> ProviderClient:
        """Return the client whose key pays for a tenant's calls.

        Raises:
            ProviderKeysOff: The tenant's own key cannot be decrypted; the service's key does not pay instead.
        """
        key = await self._key_of(tenant_id)
        return self._service if key is None else self._client(*key)

    def keeps_records(self) -> bool:
        """Return whether the upstream may retain generation records."""
        return self._record_support.available

    async def learn_records(self) -> None:
        """Request a record that does not exist, unless it is certain whether the upstream retains records."""
        if not self._record_support.is_certain:
            with suppress(GodotyError, ValueError):
                await self._api_of(self._service.client).generation(_NO_GENERATION)

    async def generation(self, key_id: str, generation_id: str) -> bytes | None:
        """Return the record of a generation, read with the key that made it; None: it does not exist, or not yet.

        Raises:
            ProviderError: The answer is an error, or none came.
            ValueError: The record is too large, or in an unknown encoding.
        """
        found = self._service
        if key_id != self._service.key_id:
            secret = self._old_keys.get(key_id) or await self._tenant_secret(key_id)
            if secret is None:
                return None
            found = self._client(key_id, secret)
        return await self._api_of(found.client).generation(generation_id)

    async def _tenant_secret(self, key_id: str) -> str | None:
        try:
            return await self._secret_of(key_id)
        except ProviderKeysOff as error:
            raise ProviderUnavailable("The record cannot be read without the tenant's key.") from error

    def _client(self, key_id: str, secret: str) -> ProviderClient:
        """Return the cached client of a key, or build it."""
        if key_id == self._service.key_id:
            return self._service
        found = self._clients.get(key_id)
        if found is None:
            found = ProviderClient(client=self._service.client.with_key(secret), key_id=key_id, own=True)
            self._clients.put(key_id, found)
        return found
