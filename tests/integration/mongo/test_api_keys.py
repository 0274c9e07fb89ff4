"""Keys and tenants as the database has them."""

from datetime import UTC, datetime, timedelta

import pytest

from godoty_service.errors import InvalidApiKey
from godoty_service.mongo.client import Database
from godoty_service.tenancy.api_keys import ApiKeys
from godoty_service.tenancy.auth import Principal, Scope
from godoty_service.tenancy.tenants import Tenants

NOW = datetime(2026, 8, 22, 12, tzinfo=UTC)
CONVERSE = frozenset({Scope.CONVERSE})


def keys_at(database: Database, time: datetime = NOW) -> ApiKeys:
    """Keys as a server sees them whose clock says so."""
    return ApiKeys(database.collection("api_keys"), clock=lambda: time)


async def test_key_resolves_to_its_tenant_and_scopes(database: Database) -> None:
    """Issued by one server, a key is good on another."""
    key, text = await keys_at(database).issue("tenant", scopes=frozenset({Scope.CONVERSE, Scope.BILLING}))

    principal = await keys_at(database).verify(text)
    assert principal == Principal(tenant_id="tenant", key_id=key.key_id, scopes=frozenset(key.scopes))
    assert text.startswith(f"gdt_{key.key_id}_")


async def test_secret_is_not_stored(database: Database) -> None:
    """The database has a hash, which is no key."""
    key, text = await keys_at(database).issue("tenant", scopes=CONVERSE)
    kept = await database.collection("api_keys").find_one({"_id": key.key_id})

    assert kept is not None
    assert text[len(f"gdt_{key.key_id}_") :] not in str(kept)
    with pytest.raises(InvalidApiKey):
        await keys_at(database).verify(f"gdt_{key.key_id}_{kept['hash'][:43]}")


async def test_two_keys_are_never_alike(database: Database) -> None:
    """Ids and secrets are random, and one key's secret opens no other."""
    keys = keys_at(database)
    issued = [await keys.issue("tenant", scopes=CONVERSE) for _ in range(5)]
    assert len({key.key_id for key, _ in issued}) == len({text[-43:] for _, text in issued}) == 5

    (first, _), (_, second) = issued[:2]
    with pytest.raises(InvalidApiKey):
        await keys.verify(f"gdt_{first.key_id}_{second[-43:]}")


async def test_expired_key_is_refused(database: Database) -> None:
    """Good until its time, and not from then on."""
    _, text = await keys_at(database).issue("tenant", scopes=CONVERSE, expire_time=NOW + timedelta(days=1))

    await keys_at(database, NOW + timedelta(hours=23)).verify(text)
    for hours in (24, 25):
        with pytest.raises(InvalidApiKey):
            await keys_at(database, NOW + timedelta(hours=hours)).verify(text)


async def test_revoked_key_is_refused_at_once_by_the_same_server(database: Database) -> None:
    """The server that revokes it knows at once; only the tenant's own keys can be revoked."""
    keys = keys_at(database)
    key, text = await keys.issue("tenant", scopes=CONVERSE)
    await keys.verify(text)
    assert not await keys.revoke("else", key.key_id)
    await keys.verify(text)

    assert await keys.revoke("tenant", key.key_id)
    with pytest.raises(InvalidApiKey):
        await keys.verify(text)
    assert not await keys.revoke("tenant", "0" * 16)


async def test_keys_are_listed_without_their_secrets(database: Database) -> None:
    """Only the tenant's own keys are returned, oldest first."""
    first, _ = await keys_at(database).issue("tenant", scopes=CONVERSE)
    second, _ = await keys_at(database, NOW + timedelta(hours=1)).issue("tenant", scopes=frozenset({Scope.ADMIN}))
    await keys_at(database).issue("else", scopes=CONVERSE)

    keys = keys_at(database)
    assert await keys.page("tenant", after=None, limit=9) == [first, second]
    assert await keys.page("tenant", after=(first.create_time, first.key_id), limit=9) == [second]
    assert await keys.page("tenant", after=None, limit=1) == [first]


async def test_tenants_are_made_read_and_listed(database: Database) -> None:
    """Names may repeat, ids do not."""
    tenants = Tenants(database.collection("tenants"), clock=lambda: NOW)
    first, second = await tenants.create("same"), await tenants.create("same")

    assert first.tenant_id != second.tenant_id
    assert await tenants.get(first.tenant_id) == first
    assert await tenants.get("none") is None
    everybody = await tenants.page(after=None, limit=9)
    assert sorted(each.tenant_id for each in everybody) == sorted([first.tenant_id, second.tenant_id])
    assert await tenants.page(after=(everybody[0].create_time, everybody[0].tenant_id), limit=9) == everybody[1:]


async def test_key_with_a_scope_of_a_later_build_is_valid_for_the_others(database: Database) -> None:
    """A scope that this build does not know permits nothing here, and does not refuse the key."""
    key, text = await keys_at(database).issue("tenant", scopes=CONVERSE)
    await database.collection("api_keys").update_one({"_id": key.key_id}, {"$push": {"scopes": "later"}})

    assert (await keys_at(database).verify(text)).scopes == CONVERSE
