"""Which account pays: the service's, or the tenant's own. All of them share one pool of connections."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from godoty_service.errors import GodotyError, ProviderKeysOff, ProviderUnavailable
from godoty_service.openrouter.account import Account
from godoty_service.openrouter.client import OpenRouterClient
from godoty_service.openrouter.record_keeping import RecordKeeping

_REMEMBERED = 1_000
_NO_GENERATION = "gen-0-none"

KeyOf = Callable[[str], Awaitable[tuple[str, str] | None]]
SecretOf = Callable[[str], Awaitable[str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A client, and the id of the key that it speaks with; `own`: the key is a tenant's own."""

    client: OpenRouterClient
    key_id: str
    own: bool = False


class Accounts:
    """Clients by key."""

    def __init__(
        self,
        service: Access,
        *,
        account_of: Callable[[OpenRouterClient], Account],
        records: RecordKeeping,
        old_keys: Mapping[str, str],
        key_of: KeyOf,
        secret_of: SecretOf,
    ) -> None:
        """Build it.

        Args:
            service: The service's own account. Its client is closed by whoever opened it.
            account_of: Builds the account that a client speaks for.
            records: Whether the upstream keeps generation records.
            old_keys: Secrets of the service's earlier keys, by id: they only read records.
            key_of: Tells a tenant's own key, as its id and secret; None: it has none.
            secret_of: Tells the secret of a tenants' key by its id; None: there is none (any more).
        """
        self._account_of = account_of
        self._records = records
        self._old_keys = old_keys
        self._service = service
        self._key_of = key_of
        self._secret_of = secret_of
        self._accesses: OrderedDict[str, Access] = OrderedDict()

    async def of_tenant(self, tenant_id: str) -> Access:
        """Tell the account that pays for a tenant's calls.

        Raises:
            ProviderKeysOff: It has a key of its own that cannot be decrypted: the service does not pay instead.
        """
        key = await self._key_of(tenant_id)
        return self._service if key is None else self._access(*key)

    def keeps_records(self) -> bool:
        """Return whether the upstream may keep generation records."""
        return self._records.kept

    async def learn_records(self) -> None:
        """Ask the upstream for a record that there is not, unless it is known whether it keeps any."""
        if not self._records.is_certain:
            with suppress(GodotyError, ValueError):
                await self._account_of(self._service.client).generation(_NO_GENERATION)

    async def generation(self, key_id: str, generation_id: str) -> bytes | None:
        """Read the record of a generation with the key that made it; None: there is none, or none yet.

        Raises:
            ProviderError: The answer is an error, or there is none.
            ValueError: The record is too large, or in an unknown encoding.
        """
        access = self._service
        if key_id != self._service.key_id:
            secret = self._old_keys.get(key_id) or await self._tenants_secret(key_id)
            if secret is None:
                return None
            access = self._access(key_id, secret)
        return await self._account_of(access.client).generation(generation_id)

    async def _tenants_secret(self, key_id: str) -> str | None:
        try:
            return await self._secret_of(key_id)
        except ProviderKeysOff as error:
            raise ProviderUnavailable("The record cannot be read without the tenant's key.") from error

    def _access(self, key_id: str, secret: str) -> Access:
        """Find or make a client. It is a view of the service's with another key: there is nothing to close."""
        if key_id == self._service.key_id:
            return self._service
        access = self._accesses.pop(key_id, None)
        if access is None:
            access = Access(client=self._service.client.with_options(api_key=secret), key_id=key_id, own=True)
        self._accesses[key_id] = access
        if len(self._accesses) > _REMEMBERED:
            self._accesses.popitem(last=False)
        return access
