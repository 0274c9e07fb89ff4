"""The steps that erase a deleted tenant: what is written late, or by servers of earlier builds, is erased as well."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest

from godoty_service.bootstrap.components import Components, open_components
from godoty_service.bootstrap.erasure import tenant_erasure
from godoty_service.ledger.states import CallState
from godoty_service.mongo.client import Driver
from godoty_service.tenancy.audit import Actor, ActorKind
from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.errors import TenantDeleted
from godoty_service.tenancy.lifecycle import TenantLifecycle
from godoty_service.tenancy.tenants import Tenant
from godoty_service.turns.event_log.events import TextDelta
from godoty_service.turns.event_log.store import Chunk, Outcome
from godoty_service.turns.turn_store import TurnRecord
from tests.integration.billing.harness import Tenant as Bill
from tests.integration.mongo.session_stores import acquire, finish
from tests.support.backends import Backends

ACTOR = Actor(kind=ActorKind.SYSTEM, id="test")
PATIENCE = timedelta(hours=24)
NO_USER = {"user": None, "user_reference": None}


@pytest.fixture
async def components(backends: Backends, prepared_database: str, driver: Driver) -> AsyncIterator[Components]:
    """The components of a server on an empty database."""
    settings = backends.settings(prepared_database, mongodb_driver=driver)
    async with open_components(settings, migrate=True) as opened:
        yield opened


class Cancelled(Exception):
    """Ends a call like a cancellation."""


async def tenant_with_key(components: Components) -> str:
    """Create a tenant with an API key; return its id."""
    tenant = await components.tenancy.tenants.create("Acme")
    await components.tenancy.api_keys.issue(tenant.tenant_id, scopes=frozenset({Scope.CONVERSE}))
    return tenant.tenant_id


async def delete_without_revocation(components: Components, tenant_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete a tenant in a server that ends before it revokes the keys."""

    async def killed(_: str) -> int:
        raise Cancelled

    with monkeypatch.context() as patched:
        patched.setattr(components.tenancy.api_keys, "revoke_all", killed)
        with pytest.raises(Cancelled):
            await lifecycle(components).delete(ACTOR, tenant_id)


def lifecycle(components: Components) -> TenantLifecycle:
    """Return what deletes tenants."""
    return components.administration.lifecycle


async def run_erasure(components: Components, tenant_id: str) -> Tenant:
    """Run the erasure once; return the tenant. The delay covers the difference of server's and database's clocks."""
    await tenant_erasure(components, delay=-60, patience=PATIENCE).run_once()
    return await components.tenancy.tenants.require(tenant_id)


async def unrevoked(components: Components, tenant_id: str) -> int:
    """Return the number of keys that servers of earlier builds accept."""
    return await components.database.collection("api_keys").count({"tenant_id": tenant_id, "revoke_time": None})


async def test_repeated_deletion_revokes_keys_that_the_first_did_not(
    components: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server was killed between the two writes."""
    tenant_id = await tenant_with_key(components)
    await delete_without_revocation(components, tenant_id, monkeypatch)
    assert await unrevoked(components, tenant_id) == 1
    await lifecycle(components).delete(ACTOR, tenant_id)

    assert await unrevoked(components, tenant_id) == 0


async def test_erasure_revokes_keys_before_it_erases(components: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the deletion did not; the rest is erased by the next run, once no cache has the keys."""
    tenant_id = await tenant_with_key(components)
    await delete_without_revocation(components, tenant_id, monkeypatch)
    assert (await run_erasure(components, tenant_id)).erase_time is None
    assert await unrevoked(components, tenant_id) == 0
    assert await components.tenancy.api_keys.some_ids(tenant_id) != []

    assert (await run_erasure(components, tenant_id)).erase_time is not None
    assert await components.tenancy.api_keys.some_ids(tenant_id) == []


async def test_end_of_a_log_that_is_stored_late_is_erased(components: Components) -> None:
    """A run later, it meets the tombstone of its session's deletion; after that, the next run finds it."""
    tenant_id = (await components.tenancy.tenants.create("Acme")).tenant_id
    conversations = components.conversations
    await components.replicas.heartbeat()
    await finish(conversations.sessions, await acquire(conversations.sessions, tenant_id=tenant_id))
    turns, logs = conversations.turn_store, conversations.event_logs
    await turns.begin(
        TurnRecord(
            turn_id="turn", tenant_id=tenant_id, session_id="talk", request_id="r", fingerprint="", replica_id="here"
        )
    )
    first = Chunk(
        turn_id="turn",
        tenant_id=tenant_id,
        index=0,
        first=1,
        events=(TextDelta("hello"),),
        ended=False,
        error=None,
        writer="here",
        expire_time=turns.log_expiry(),
    )
    last = replace(first, index=1, first=2, ended=True)
    await logs.append([first])
    await lifecycle(components).delete(ACTOR, tenant_id)
    assert (await run_erasure(components, tenant_id)).erase_time is None
    assert await logs.append([last]) == {"turn": Outcome.LOST}
    assert (await run_erasure(components, tenant_id)).erase_time is None
    assert await logs.append([last]) == {"turn": Outcome.STORED}
    assert (await run_erasure(components, tenant_id)).erase_time is None
    assert await logs.read(tenant_id, "turn", after=-1) == []

    assert (await run_erasure(components, tenant_id)).erase_time is not None
    assert await turns.some_ids(tenant_id) == []


async def test_names_of_schema_1_are_replaced_before_users_are_erased(components: Components) -> None:
    """Else their replacement would insert users of a tenant whose data are erased."""
    tenant_id = (await components.tenancy.tenants.create("Acme")).tenant_id
    ledger, users = components.database.collection("ledger"), components.database.collection("users")
    await ledger.insert_one({"_id": "call", "tenant_id": tenant_id, "session_uid": "ses", "number": 1, "user": "Ann"})
    await lifecycle(components).delete(ACTOR, tenant_id)
    assert (await run_erasure(components, tenant_id)).erase_time is None
    await components.users.stored_names.replace()
    assert await users.count({"tenant_id": tenant_id}) == 1

    assert (await run_erasure(components, tenant_id)).erase_time is not None
    assert await users.count({}) == 0
    assert await ledger.count({"user": {"$exists": True}}) == 0


async def test_user_of_deleted_tenant_is_not_erased_by_itself(components: Components) -> None:
    """An erasure would insert a user whose name an entry has; nothing of it is recorded."""
    tenant_id = (await components.tenancy.tenants.create("Acme")).tenant_id
    await components.users.references.of_name(tenant_id, "Ann")
    await lifecycle(components).delete(ACTOR, tenant_id)
    with pytest.raises(TenantDeleted):
        await components.user_erasure.erase(ACTOR, tenant_id, "Ann")

    assert await components.database.collection("admin_changes").count({"tenant_id": tenant_id}) == 1


async def insert_provider_key(components: Components, tenant_id: str, key_id: str) -> None:
    """Insert a provider key of a tenant."""
    document = {"_id": f"pkey-{tenant_id}", "tenant_id": tenant_id, "key_id": key_id, "sealed": ""}
    await components.database.collection("provider_keys").insert_one(document)


@pytest.mark.parametrize("resolved", [True, False])
async def test_provider_key_remains_while_an_unresolved_call_may_need_it(
    components: Components, *, resolved: bool
) -> None:
    """A server that was out of reach may have its generation id: until it is resolved, or too old to be resolved."""
    tenant_id = (await components.tenancy.tenants.create("Acme")).tenant_id
    bill = Bill(components.database, components.accounting.ledger, Random(7))
    bill.tenant_id = tenant_id
    await insert_provider_key(components, tenant_id, "key")
    now = await components.database.now()
    call = await bill.open(now - timedelta(hours=2), **NO_USER)
    await lifecycle(components).delete(ACTOR, tenant_id)
    assert (await run_erasure(components, tenant_id)).erase_time is None
    call = await bill.close(call, now - timedelta(hours=1), state=CallState.UNRESOLVED)
    assert (await run_erasure(components, tenant_id)).erase_time is None
    assert await components.tenancy.provider_keys.key_ids(tenant_id) == {"key"}

    if resolved:
        await bill.adjust(call, now)
    else:
        past = {"$set": {"settle_time": now - PATIENCE - timedelta(minutes=1)}}
        await components.database.collection("ledger").update_one({"_id": call.call_id}, past)
    assert (await run_erasure(components, tenant_id)).erase_time is not None
    assert await components.tenancy.provider_keys.key_ids(tenant_id) == set()


async def test_unresolved_call_that_another_key_paid_delays_nothing(components: Components) -> None:
    """Nor does one of a tenant without a key of its own, or of another tenant with the same key."""
    ids = [(await components.tenancy.tenants.create("Acme")).tenant_id for _ in range(3)]
    now = await components.database.now()
    for tenant_id, key_id in zip(ids, ("another", None, "key"), strict=True):
        bill = Bill(components.database, components.accounting.ledger, Random(7))
        if key_id is not None:
            await insert_provider_key(components, tenant_id, key_id)
        bill.tenant_id = ids[0] if key_id == "key" else tenant_id
        await bill.close(await bill.open(now, **NO_USER), now, state=CallState.UNRESOLVED)
        await lifecycle(components).delete(ACTOR, tenant_id)
    await tenant_erasure(components, delay=-60, patience=PATIENCE).run_once()

    for tenant_id in ids:
        assert (await components.tenancy.tenants.require(tenant_id)).erase_time is not None
