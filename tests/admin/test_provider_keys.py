"""Tenants' own OpenRouter keys: encrypted, bound to their tenant, never told, readable after a rotation."""

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import grpc
import pytest

from godoty_service.errors import ProviderKeysOff
from godoty_service.mongo import Database, open_database
from godoty_service.tenancy.provider_keys import ProviderKey, ProviderKeys
from godoty_service.tenancy.sealing import Sealer
from tests.admin.conftest import ENCRYPTION_KEY, Admin
from tests.conftest import Start, StartProcess

SECRET = "sk-or-v1-planted-secret-of-a-tenant"
OTHER = "sk-or-v1-another-secret"
FIRST, SECOND = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))


@pytest.fixture
async def database(mongodb_uri: str, new_database: str) -> AsyncIterator[Database]:
    opened = open_database(uri=mongodb_uri, name=new_database)
    yield opened
    await opened.close()


def keys_with(database: Database, encryption_keys: str) -> ProviderKeys:
    return ProviderKeys(database.collection("provider_keys"), sealer=Sealer.of(encryption_keys))


async def keep(keys: ProviderKeys, tenant_id: str, secret: str) -> str:
    sealed = keys.seal(tenant_id, secret)
    await keys.keep(sealed)
    return str(sealed["key_id"])


async def test_a_key_is_kept_encrypted_and_never_told(
    admin_of: Callable[..., Admin], serve: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    """The database, the answers, the record of changes and the log do not have it; whether there is one is told."""
    admin = admin_of(await serve(encryption_keys=ENCRYPTION_KEY))
    tenant_id = await admin.tenant()
    answer = await admin.call("SetProviderKey", tenant_id=tenant_id, provider_key=SECRET)
    policy = await admin.call("GetPolicy", tenant_id=tenant_id)

    assert policy.has_provider_key
    assert not (await admin.call("GetPolicy", tenant_id=admin.service.tenant_id)).has_provider_key
    database = admin.service.database
    kept = str([list(database[name].find()) for name in database.list_collection_names()])
    told = f"{answer}{policy}{await admin.changes(tenant_id)}{capfd.readouterr()}"
    for text in (SECRET, SECRET[9:], base64.b64encode(SECRET.encode()).decode()[:20]):
        assert text not in kept
        assert text not in told
    await admin.call("SetProviderKey", tenant_id=tenant_id, provider_key="")
    assert not (await admin.call("GetPolicy", tenant_id=tenant_id)).has_provider_key


async def test_without_an_encryption_key_none_is_taken(admin: Admin) -> None:
    """FAILED_PRECONDITION, and what the operator must do; removing one always works."""
    failure = await admin.refused("SetProviderKey", tenant_id=admin.service.tenant_id, provider_key=SECRET)

    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_KEYS_OFF")
    assert "GODOTY_ENCRYPTION_KEYS" in failure.text
    assert await admin.changes(admin.service.tenant_id) == []
    await admin.call("SetProviderKey", tenant_id=admin.service.tenant_id, provider_key="")


@pytest.mark.parametrize("secret", ["short", "with a space in it", "x" * 257, "ключ-ключ-ключ", "line\nbreak-in-it"])
async def test_what_is_no_key_is_refused_unrepeated(admin: Admin, secret: str) -> None:
    """The field is named, the text is not."""
    failure = await admin.refused("SetProviderKey", tenant_id=admin.service.tenant_id, provider_key=secret)

    assert list(failure.fields) == ["provider_key"]
    assert secret not in str(failure)


async def test_a_key_is_read_back_by_tenant_and_by_its_id(database: Database) -> None:
    """By its tenant; and by its id, as the records of its calls name it."""
    keys = keys_with(database, FIRST)
    key_id = await keep(keys, "tenant", SECRET)

    assert key_id == hashlib.sha256(SECRET.encode()).hexdigest()[:16]
    assert await keys.get("tenant") == ProviderKey(key_id=key_id, secret=SECRET)
    assert await keys.get("else") is None
    assert await keys.by_key_id(key_id) == SECRET
    assert await keys.by_key_id("0" * 16) is None
    assert SECRET not in repr(await keys.get("tenant"))


async def test_a_replaced_key_still_reads_its_records(database: Database) -> None:
    """New calls use the new one; the old one is there by its id, and has a time at which it goes."""
    keys = keys_with(database, FIRST)
    old, new = await keep(keys, "tenant", SECRET), await keep(keys, "tenant", OTHER)

    assert (await keys.get("tenant") or ProviderKey(key_id="", secret="")).key_id == new
    assert await keys.by_key_id(old) == SECRET
    await keys.remove("tenant")
    assert await keys.get("tenant") is None
    assert await keys.by_key_id(new) == OTHER
    collection = database.collection("provider_keys")
    assert await collection.count({"delete_time": {"$type": "date"}}) == await collection.count({}) == 2


async def test_of_two_that_are_set_at_once_one_stays(database: Database) -> None:
    """However they interleave, the tenant has a key in the end."""
    keys = keys_with(database, FIRST)
    for number in range(10):
        tenant = f"tenant{number}"
        await asyncio.gather(keep(keys, tenant, SECRET), keep(keys, tenant, OTHER), keep(keys, tenant, SECRET))
        assert await keys.get(tenant) is not None


async def test_a_sealed_key_of_one_tenant_is_none_of_another(database: Database) -> None:
    """Whoever can write to the database cannot give a tenant another's key, nor change one."""
    keys = keys_with(database, FIRST)
    await keep(keys, "tenant", SECRET)
    assert await keys_with(database, FIRST).get("tenant") is not None
    collection = database.collection("provider_keys")
    await collection.update_one({}, {"$set": {"tenant_id": "thief"}})
    with pytest.raises(ProviderKeysOff):
        await keys.get("thief")

    sealed = (await collection.find_one({}) or {})["sealed"]
    altered = bytes([*sealed[:-1], sealed[-1] ^ 1])
    await collection.update_one({}, {"$set": {"tenant_id": "other", "sealed": altered}})
    with pytest.raises(ProviderKeysOff):
        await keys.get("other")


async def test_encryption_keys_rotate(database: Database) -> None:
    """The first encrypts, all decrypt; after `reseal` the old one can go. Without it, a key is an error, not none."""
    await keep(keys_with(database, FIRST), "tenant", SECRET)
    both = keys_with(database, f"{SECOND}, {FIRST}")
    assert (await both.get("tenant") or ProviderKey(key_id="", secret="")).secret == SECRET
    with pytest.raises(ProviderKeysOff):
        await keys_with(database, SECOND).get("tenant")

    assert (await both.reseal(), await both.reseal()) == (1, 0)
    assert (await keys_with(database, SECOND).get("tenant") or ProviderKey(key_id="", secret="")).secret == SECRET
    for lost in (FIRST, ""):
        with pytest.raises(ProviderKeysOff):
            await keys_with(database, lost).get("tenant")


async def test_encryption_keys_rotate_while_servers_run(database: Database) -> None:
    """The new one is added last, then moved first, then alone: whichever server is a step behind reads all keys."""
    steps = [FIRST, f"{FIRST},{SECOND}", f"{SECOND},{FIRST}", SECOND]
    for behind, ahead in pairwise(steps):
        for writes, reads in ((behind, ahead), (ahead, behind)):
            await keep(keys_with(database, writes), "tenant", SECRET)
            assert await keys_with(database, reads).get("tenant") is not None

    await keep(keys_with(database, f"{SECOND},{FIRST}"), "tenant", SECRET)
    with pytest.raises(ProviderKeysOff):  # the new one first at once: who lacks it reads nothing any more
        await keys_with(database, FIRST).get("tenant")


async def test_a_change_holds_on_another_server_within_5_seconds(database: Database) -> None:
    """Another server reads a key at most 3 seconds old."""
    now = [0.0]
    collection = database.collection("provider_keys")
    here = keys_with(database, FIRST)
    there = ProviderKeys(collection, sealer=Sealer.of(FIRST), tick=lambda: now[0])
    assert await there.get("tenant") is None

    await keep(here, "tenant", SECRET)
    now[0] = 3.1
    assert await there.get("tenant") is not None


@pytest.mark.parametrize(
    "text",
    ["hunter2", FIRST[:-6], f"{FIRST},hunter2", "0" * 64],
    ids=["no Base64", "cut", "one of two", "hexadecimal"],
)
def test_an_encryption_key_that_is_none_is_told_unrepeated(text: str) -> None:
    """The setting is named, its value is not."""
    with pytest.raises(ValueError, match="GODOTY_ENCRYPTION_KEYS") as caught:
        Sealer.of(text)
    assert text not in str(caught.value)


async def test_a_server_with_a_wrong_encryption_key_does_not_start(serve_process: StartProcess) -> None:
    """One line says which setting is at fault."""
    with pytest.raises(RuntimeError, match="GODOTY_ENCRYPTION_KEYS: each must be Base64") as caught:
        await serve_process(GODOTY_ENCRYPTION_KEYS="hunter2")
    assert "hunter2" not in str(caught.value)
