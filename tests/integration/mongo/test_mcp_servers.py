"""The store of MCP servers: by tenant, with sealed secrets, changed by one caller at a time."""

import asyncio
import os
from datetime import UTC, datetime
from typing import Any

import pytest

from godoty_service.agents.mcp.changes import McpServerChanges, ServerTerms, Values
from godoty_service.agents.mcp.errors import McpServerChanged, McpServerNotFound, TooManyMcpServers
from godoty_service.agents.mcp.server import Credentials, OAuthClient
from godoty_service.agents.mcp.store import MAX_SERVERS, McpServers
from godoty_service.errors import InvalidRequest, ProviderKeysOff
from godoty_service.mongo.client import Database
from godoty_service.tenancy.encryption import SecretBox

SECRET = "the secret of the server"
KEYS = [os.urandom(32), os.urandom(32)]
OAUTH = OAuthClient(token_url="https://login.example/token", client_id="me")


class Store:
    """A store, its changes, and what was recorded of them."""

    def __init__(self, database: Database, keys: list[bytes]) -> None:
        self.collection = database.collection(McpServers.COLLECTION)
        self.servers = McpServers(self.collection, secret_box=SecretBox(keys))
        self.changes = McpServerChanges(self.servers, clock=lambda: datetime(2026, 11, 29, tzinfo=UTC))
        self.recorded: list[tuple[Values | None, Values | None]] = []

    async def apply(self, tenant_id: str = "acme", etag: str = "", **fields: Any) -> Any:
        """Apply a server; return it, and whether it was changed."""
        values = {"name": "crm", "url": "https://mcp.example/mcp", "prefix": "crm"} | fields
        return await self.changes.apply(tenant_id, ServerTerms(**values), etag=etag, record=self._record)

    async def delete(self, tenant_id: str = "acme", name: str = "crm", etag: str = "") -> None:
        """Delete a server."""
        await self.changes.delete(tenant_id, name, etag=etag, record=self._record)

    async def _record(self, old: Values | None, new: Values | None) -> None:
        self.recorded.append((old, new))


@pytest.fixture
async def store(database: Database) -> Store:
    """A store."""
    made = Store(database, KEYS[:1])
    await made.collection.ensure(McpServers.INDEXES)
    return made


async def test_server_is_created_and_read(store: Store) -> None:
    """As it was applied, by its tenant alone."""
    server, changed = await store.apply(allow=("a*",), headers={"X-Key": SECRET}, oauth=OAUTH, client_secret="s")

    assert changed
    assert await store.servers.read("acme", "crm") == server
    assert await store.servers.all("acme") == {"crm": server}
    assert await store.servers.page("acme", after="", limit=5) == [server]
    assert store.servers.unseal(server) == Credentials(headers=(("X-Key", SECRET),), client_secret="s")
    assert await store.servers.read("other", "crm") is None
    assert await store.servers.all("other") == {}


async def test_no_secret_is_stored_or_recorded_or_shown(store: Store) -> None:
    """Neither in the document, nor in the audit log, nor in the text of a value."""
    server, _ = await store.apply(headers={"X-Key": SECRET}, oauth=OAUTH, client_secret=SECRET)

    (document,) = await store.collection.find({})
    shown = [document, store.recorded, server, store.servers.unseal(server), ServerTerms(
        name="crm", url="https://a", prefix="crm", headers={"X-Key": SECRET}, client_secret=SECRET
    )]  # fmt: skip
    assert SECRET not in str(shown)
    assert SECRET.encode() not in document["sealed"]


async def test_same_terms_change_nothing(store: Store) -> None:
    """A retry is harmless: nothing is recorded or written."""
    first, _ = await store.apply(headers={"X-Key": SECRET})

    again, changed = await store.apply(headers={"X-Key": SECRET})
    with_old_etag = await store.apply(headers={"X-Key": SECRET}, etag="that of before the first")

    assert (again, changed) == with_old_etag == (first, False)
    assert len(store.recorded) == 1


async def test_each_change_has_another_etag(store: Store) -> None:
    """Also one of a secret alone, and a server that is created anew."""
    etags = {(await store.apply(headers={"X-Key": key}))[0].etag for key in ("a", "b")}
    etags.add((await store.apply(deny=("x",)))[0].etag)

    assert len(etags) == 3


async def test_change_of_another_version_is_refused(store: Store) -> None:
    """With the present etag; so is a deletion."""
    first, _ = await store.apply()
    second, _ = await store.apply(deny=("x",))

    with pytest.raises(McpServerChanged) as refused:
        await store.apply(etag=first.etag, deny=("y",))
    assert refused.value.metadata == {"etag": second.etag}
    with pytest.raises(McpServerChanged):
        await store.delete(etag=first.etag)
    await store.delete(etag=second.etag)
    assert await store.servers.read("acme", "crm") is None


async def test_secret_that_is_left_out_is_the_stored_one(store: Store) -> None:
    """What a reader of the server sends back changes nothing."""
    server, _ = await store.apply(headers={"X-Key": SECRET}, oauth=OAUTH, client_secret="s")

    again, changed = await store.apply(headers={"X-Key": None}, oauth=OAUTH)

    assert not changed
    assert store.servers.unseal(again) == store.servers.unseal(server)


async def test_stored_secret_is_not_sent_to_another_address(store: Store) -> None:
    """Who may change a server must not be able to read its secrets; another path of it is the same address."""
    await store.apply(headers={"X-Key": SECRET}, oauth=OAUTH, client_secret="s")
    other = OAuthClient(token_url="https://evil.example/token", client_id="me")

    assert (await store.apply(url="https://mcp.example/v2", headers={"X-Key": None}, oauth=OAUTH))[1]
    for fields, path in (
        ({"url": "https://evil.example/mcp", "headers": {"X-Key": None}}, "server.headers[0].secret"),
        ({"url": "http://mcp.example/mcp", "headers": {"X-Key": None}}, "server.headers[0].secret"),
        ({"headers": {"X-Other": None}}, "server.headers[0].secret"),
        ({"oauth": other}, "server.oauth.client_secret"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await store.apply(**fields)
        assert [each.field for each in refused.value.violations] == [path]


async def test_sealed_secret_of_another_server_cannot_be_used(store: Store) -> None:
    """Copied in the database, it cannot be decrypted."""
    await store.apply(headers={"X-Key": SECRET})
    await store.apply("other", headers={"X-Key": "b"})
    (mine,) = await store.collection.find({"tenant_id": "acme"})
    await store.collection.update_one({"tenant_id": "other"}, {"$set": {"sealed": mine["sealed"]}})

    found = await store.servers.read("other", "crm")

    assert found is not None
    with pytest.raises(ProviderKeysOff):
        store.servers.unseal(found)


async def test_secret_needs_an_encryption_key(database: Database) -> None:
    """Without one, a server without secrets can be applied, and no other."""
    store = Store(database, [])
    await store.apply()

    with pytest.raises(ProviderKeysOff, match="MCP"):
        await store.apply(headers={"X-Key": SECRET})


async def test_secrets_are_resealed_with_the_first_key(store: Store, database: Database) -> None:
    """So that another key can be removed."""
    await store.apply(headers={"X-Key": SECRET})
    await store.apply("other")

    assert await Store(database, [KEYS[1], KEYS[0]]).servers.reseal() == 1
    found = await store.servers.read("acme", "crm")
    assert found is not None
    assert Store(database, KEYS[1:]).servers.unseal(found).headers == (("X-Key", SECRET),)


async def test_number_of_servers_is_limited(store: Store) -> None:
    """One that exists can still be changed."""
    for number in range(MAX_SERVERS):
        await store.apply(name=f"s{number}")

    with pytest.raises(TooManyMcpServers):
        await store.apply(name="one-more")
    assert (await store.apply(name="s1", deny=("x",)))[1]
    assert (await store.apply("other"))[1]


async def test_deletion_and_erasure(store: Store) -> None:
    """Of one server, and of all of a tenant; others remain."""
    for tenant_id, name in (("acme", "crm"), ("acme", "wiki"), ("other", "crm")):
        await store.apply(tenant_id, name=name)
    await store.delete()
    with pytest.raises(McpServerNotFound):
        await store.delete()

    assert list(await store.servers.all("acme")) == ["wiki"]
    await store.servers.erase("acme")
    assert await store.servers.all("acme") == {}
    assert list(await store.servers.all("other")) == ["crm"]


async def test_changes_at_the_same_time_follow_each_other(store: Store, database: Database) -> None:
    """Each is made on what the other has written."""
    other = Store(database, KEYS[:1])
    await store.apply(deny=("a",))

    changes = [
        each.apply(deny=(f"b{number}{index}",)) for number in range(5) for index, each in enumerate((store, other))
    ]
    await asyncio.gather(*changes)

    found = await store.servers.read("acme", "crm")
    assert found is not None
    assert found.revision == 11
