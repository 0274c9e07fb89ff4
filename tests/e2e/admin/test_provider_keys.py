"""Tenants' own OpenRouter keys: encrypted, bound to their tenant, never shown, readable after a rotation."""

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import grpc
import pytest

from godoty_service.errors import ProviderKeysOff
from godoty_service.mongo.client import Database, open_database
from godoty_service.tenancy.encryption import SecretBox
from godoty_service.tenancy.provider_keys import ProviderKey, ProviderKeys
from tests.conftest import Start, StartProcess
from tests.e2e.admin.conftest import ENCRYPTION_KEY, Admin

SECRET = "sk-or-v1-planted-secret-of-a-tenant"
OTHER = "sk-or-v1-another-secret"
FIRST, SECOND = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))


@pytest.fixture
async def database(mongodb_uri: str, new_database: str) -> AsyncIterator[Database]:
    opened = open_database(uri=mongodb_uri, name=new_database)
    yield opened
    await opened.close()


def keys_with(database: Database, encryption_keys: str) -> ProviderKeys:
    return ProviderKeys(database.collection("provider_keys"), sealer=SecretBox.of(encryption_keys))


async def keep(keys: ProviderKeys, tenant_id: str, secret: str) -> str:
    sealed = keys.seal(tenant_id, secret)
    await keys.insert(sealed)
    return str(sealed["key_id"])


async def test_key_is_stored_encrypted_and_never_shown(
    admin_of: Callable[..., Admin], serve: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    """Database, responses, audit log and log do not contain it; whether there is one is shown."""
    admin = admin_of(await serve(encryption_keys=ENCRYPTION_KEY))
    tenant_id = await admin.tenant()
    answer = await admin.call("SetProviderKey", tenant_id=tenant_id, provider_key=SECRET)
    policy = await admin.call("GetPolicy", tenant_id=tenant_id)

    assert policy.has_provider_key
    assert not (await admin.call("GetPolicy", tenant_id=admin.service.tenant_id)).has_provider_key
    database = admin.service.database
    kept = str([list(database[name].find()) for name in database.list_collection_names()])
    output = f"{answer}{policy}{await admin.changes(tenant_id)}{capfd.readouterr()}"
    for text in (SECRET, SECRET[9:], base64.b64encode(SECRET.encode()).decode()[:20]):
        assert text not in kept
        assert text not in output
    await admin.call("SetProviderKey", tenant_id=tenant_id, provider_key="")
    assert not (await admin.call("GetPolicy", tenant_id=tenant_id)).has_provider_key


async def test_key_is_refused_without_an_encryption_key(admin_of: Callable[..., Admin], serve: Start) -> None:
    """FAILED_PRECONDITION with what the operator must do; removing a key always works."""
    admin = admin_of(await serve())
    failure = await admin.refused("SetProviderKey", tenant_id=admin.service.tenant_id, provider_key=SECRET)

    assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_KEYS_OFF")
    assert "GODOTY_ENCRYPTION_KEYS" in failure.text
    assert await admin.changes(admin.service.tenant_id) == []
    await admin.call("SetProviderKey", tenant_id=admin.service.tenant_id, provider_key="")


@pytest.mark.parametrize("secret", ["short", "with a space in it", "x" * 257, "ключ-ключ-ключ", "line\nbreak-in-it"])
async def test_malformed_key_is_refused_without_repeating_it(admin: Admin, secret: str) -> None:
    """The error names the field, not its text."""
    failure = await admin.refused("SetProviderKey", tenant_id=admin.service.tenant_id, provider_key=secret)

    assert list(failure.fields) == ["provider_key"]
    assert secret not in str(failure)


async def test_key_is_read_by_tenant_and_by_id(database: Database) -> None:
    """By its tenant; and by its id, which the records of its calls have."""
    keys = keys_with(database, FIRST)
    key_id = await keep(keys, "tenant", SECRET)

    assert key_id == hashlib.sha256(SECRET.encode()).hexdigest()[:16]
    assert await keys.get("tenant") == ProviderKey(key_id=key_id, secret=SECRET)
    assert await keys.get("else") is None
    assert await keys.by_key_id(key_id) == SECRET
    assert await keys.by_key_id("0" * 16) is None
    assert SECRET not in repr(await keys.get("tenant"))


async def test_replaced_key_still_reads_its_records(database: Database) -> None:
    """New calls use the new one; the old one is found by its id until its delete time."""
    keys = keys_with(database, FIRST)
    old, new = await keep(keys, "tenant", SECRET), await keep(keys, "tenant", OTHER)

    assert (await keys.get("tenant") or ProviderKey(key_id="", secret="")).key_id == new
    assert await keys.by_key_id(old) == SECRET
    await keys.remove("tenant")
    assert await keys.get("tenant") is None
    assert await keys.by_key_id(new) == OTHER
    collection = database.collection("provider_keys")
    assert await collection.count({"delete_time": {"$type": "date"}}) == await collection.count({}) == 2


async def test_one_of_two_keys_set_concurrently_remains(database: Database) -> None:
    """In any order of their writes, the tenant has a key in the end."""
    keys = keys_with(database, FIRST)
    for number in range(10):
        tenant = f"tenant{number}"
        await asyncio.gather(keep(keys, tenant, SECRET), keep(keys, tenant, OTHER), keep(keys, tenant, SECRET))
        assert await keys.get(tenant) is not None


async def test_encrypted_key_is_bound_to_its_tenant(database: Database) -> None:
    """Write access to the database does not allow moving a key to another tenant, or changing one."""
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


async def test_encryption_keys_are_rotated(database: Database) -> None:
    """The first encrypts, all decrypt; after `reseal` the old one can be removed. Without it, reading is an error."""
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


async def test_encryption_keys_are_rotated_while_servers_run(database: Database) -> None:
    """The new one is appended, then moved first, then alone: a server one step behind reads all keys."""
    steps = [FIRST, f"{FIRST},{SECOND}", f"{SECOND},{FIRST}", SECOND]
    for behind, ahead in pairwise(steps):
        for writes, reads in ((behind, ahead), (ahead, behind)):
            await keep(keys_with(database, writes), "tenant", SECRET)
            assert await keys_with(database, reads).get("tenant") is not None

    await keep(keys_with(database, f"{SECOND},{FIRST}"), "tenant", SECRET)
    with pytest.raises(ProviderKeysOff):  # the new one first at once: a server that lacks it cannot decrypt any more
        await keys_with(database, FIRST).get("tenant")


async def test_key_change_is_in_force_on_another_server_within_5_seconds(database: Database) -> None:
    """Another server uses a key that is at most 3 seconds old."""
    now = [0.0]
    collection = database.collection("provider_keys")
    here = keys_with(database, FIRST)
    there = ProviderKeys(collection, sealer=SecretBox.of(FIRST), tick=lambda: now[0])
    assert await there.get("tenant") is None

    await keep(here, "tenant", SECRET)
    now[0] = 3.1
    assert await there.get("tenant") is not None


@pytest.mark.parametrize(
    "text",
    ["hunter2", FIRST[:-6], f"{FIRST},hunter2", "0" * 64],
    ids=["no Base64", "cut", "one of two", "hexadecimal"],
)
def test_malformed_encryption_key_is_refused_without_repeating_it(text: str) -> None:
    """The error names the setting, not its value."""
    with pytest.raises(ValueError, match="GODOTY_ENCRYPTION_KEYS") as caught:
        SecretBox.of(text)
    assert text not in str(caught.value)


async def test_server_with_a_malformed_encryption_key_does_not_start(serve_process: StartProcess) -> None:
    """One line names the setting."""
    with pytest.raises(RuntimeError, match="GODOTY_ENCRYPTION_KEYS: each must be Base64") as caught:
        await serve_process(GODOTY_ENCRYPTION_KEYS="hunter2")
    assert "hunter2" not in str(caught.value)
