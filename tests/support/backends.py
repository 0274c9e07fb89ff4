"""The backends of the service, shared by all tests: a real MongoDB, and the sandbox OpenRouter with its invoice."""

import asyncio
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from pymongo import MongoClient
from pymongo.read_concern import ReadConcern

from godoty_service.bootstrap.components import open_components
from godoty_service.migrations.registry import MIGRATIONS
from godoty_service.mongo.client import Database, open_database
from godoty_service.settings.settings import Settings
from godoty_service.tenancy.api_keys import ApiKeys
from godoty_service.tenancy.audit import Actor, ActorKind
from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.policies import Policies, Policy
from godoty_service.tenancy.tenants import Tenants
from openrouter_sandbox.mongodb.replica_set import LocalMongo
from openrouter_sandbox.server import Sandbox
from openrouter_sandbox.settings import SandboxSettings
from tests.support.service import Deployment, Service
from tests.support.shared_mongo import PARAMETERS

T = TypeVar("T")

ME = Actor(kind=ActorKind.CLI, id="me")  # the author of the changes that tests make without a server
ACCOUNT = "sandbox-tests"  # the default provider key of servers
_RECORDED = Path(__file__).parents[1] / "data" / "recorded"
_MAX_WAIT = 180.0
_LATE_WRITES = 15.0  # seconds after which nothing is written of a server that was killed


class _GivenSettings(Settings):
    """Settings that do not look for each of their fields in the environment, which takes 20 ms: it has none of them."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return what was given as the only source."""
        return (init_settings,)


async def _cancel_others() -> None:
    """Cancel what libraries still run in this loop: asyncio would complain of it when the loop is closed."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class Backends:
    """MongoDB and the sandbox in a thread, so that blocking and asynchronous tests and other processes can use them.

    Attributes:
        mongodb_uri: The URI of MongoDB.
        mongo: A blocking client.
        sandbox: The provider. It runs in the thread: call it by `ask`.
        probe_timeout: After how many seconds without an answer its servers count MongoDB as unavailable.
    """

    def __init__(self, directory: Path | None, mongodb_uri: str | None, *, drops: bool = True) -> None:
        """Prepare the backends; entering them starts the servers.

        Args:
            directory: The data directory of a MongoDB that is started, which is deleted with it; None: none is started.
            mongodb_uri: A MongoDB that runs already; None: one is started.
            drops: Whether databases are dropped from it in the end.
        """
        self._directory = directory
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="backends", daemon=True)
        self._stack = AsyncExitStack()
        self._databases: list[str] = []
        self._reusable: set[str] = set()
        self._prepared: set[str] = set()
        self._released: list[tuple[float, str]] = []  # by when a database may be used again
        self._client: Any = None  # of the thread, for all databases
        self._borrowed = mongodb_uri is not None
        self._drops = self._borrowed and drops
        # Servers do not give up the MongoDB of all tests for a moment in which a busy machine is slow.
        self.probe_timeout = 3.0 if self._drops else 60.0
        self.mongodb_uri = mongodb_uri or ""
        # All histories of the tests must be ones that strict providers accept.
        self.sandbox = Sandbox(recorded=_RECORDED, settings=SandboxSettings(strict="openai,anthropic"))

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._start())
        # Tests see what the service sees: a write that a majority does not have yet is in no list.
        self.mongo: MongoClient[dict[str, Any]] = MongoClient(
            self.mongodb_uri, tz_aware=True, readConcernLevel="majority"
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._drops:
            for name in (*self._databases, *(name for _, name in self._released)):
                self.mongo.drop_database(name)
        self.mongo.close()
        self.run(self._stack.aclose())
        self.run(_cancel_others())
        if self._directory is not None:
            shutil.rmtree(self._directory)  # deletes all databases of the MongoDB that was started
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_MAX_WAIT)

    def ask(self, question: Callable[[], T]) -> T:
        """Run a function of the sandbox in its thread."""

        async def answer() -> T:
            return question()

        return self.run(answer())

    def allow(self, hold: str, tokens: int | None = None) -> None:
        """Let the answers that wait at a hold continue, by `tokens` tokens or to their end."""
        self.ask(lambda: self.sandbox.holds.allow(hold, tokens))

    def new_database(self) -> str:
        """Return the name of a new database, which is dropped in the end."""
        name = f"godoty_test_{secrets.token_hex(6)}"
        self._databases.append(name)
        return name

    def empty_database(self) -> str:
        """Return the name of an empty database for servers that have ended in the end.

        It may have the indexes of an earlier test's server: to create them takes MongoDB a quarter of a second.
        """
        return self._reused(prepared=False)

    def prepared_database(self) -> str:
        """Return the name of an empty database of this build's schema that has all indexes, for parts of the service.

        Its tests drop no index, and make no collection with indexes of its own: later tests have the same database.
        """
        name = self._reused(prepared=True)
        if name not in self._prepared:
            self.run(self._prepare(name))
            self._prepared.add(name)
        return name

    def release(self, name: str, *, killed: bool) -> None:
        """Drop a database, or let other tests use it if it was an empty one; `killed` as for `dropping_databases`."""
        self._databases.remove(name)
        if name in self._reusable:
            self._released.append((time.monotonic() + (_LATE_WRITES if killed else 0.0), name))
        else:
            self.mongo.drop_database(name)

    @contextmanager
    def dropping_databases(self, *, killed: bool) -> Iterator[None]:
        """Drop the databases whose names were taken within the block, or release them for other tests.

        Each has some ninety files, which MongoDB keeps open, and the system allows a process 20,000.

        Args:
            killed: Servers on them may have been killed: what they wrote last may be applied some seconds later.
        """
        known = len(self._databases)
        try:
            yield
        finally:
            for name in self._databases[known:]:
                self.release(name, killed=killed)

    def _reused(self, *, prepared: bool) -> str:
        """Return a database that was released and emptied, else a new one that can be released."""
        now = time.monotonic()
        for each in [one for one in self._released if one[0] <= now and (one[1] in self._prepared) == prepared]:
            self._released.remove(each)
            name = each[1]
            if self._empty(name):
                self._databases.append(name)
                return name
            self.mongo.drop_database(name)
        self._reusable.add(name := self.new_database())
        return name

    def _empty(self, name: str) -> bool:
        """Delete all documents of a database; return False if that does not make it like a new one.

        The schema's version stays: without it the database would be taken for one from before versions, and migrated.
        """
        database = self.mongo.get_database(name, read_concern=ReadConcern("local"))
        collections = database.list_collection_names()
        if "system.profile" in collections:  # a test has profiled it
            database.command("profile", 0)
            database.drop_collection("system.profile")
            collections.remove("system.profile")
        version = {"_id": "schema", "version": MIGRATIONS[-1].version}
        if database["schema"].find_one({"_id": "schema"}) != version:
            return False
        for each in _with_documents(database, collections):
            database[each].delete_many({"_id": {"$ne": "schema"}} if each == "schema" else {})
        return True

    def settings(self, database: str, **others: Any) -> Settings:
        """Return settings of a server on these backends."""
        return _GivenSettings(
            **{
                "listen": "127.0.0.1:0",
                "mongodb_uri": self.mongodb_uri,
                "mongodb_database": database,
                "openrouter_base_url": self.sandbox.base_url,
                "OPENROUTER_API_KEY": ACCOUNT,
                "drain_grace": 2.0,
                "wrong_key_lookups": 1_000_000.0,  # all tests call from one address
                "storage_probe_timeout": self.probe_timeout,
                **others,
            }
        )

    def service(self, target: str, database: str) -> Service:
        """Create a tenant in a server's database, and an API key of it."""
        tenant_id, api_key, key_id = self.run(self._issue(database, frozenset({Scope.CONVERSE})))
        deployment = Deployment(target=target, database=self.mongo[database], backends=self)
        return Service(deployment=deployment, tenant_id=tenant_id, api_key=api_key, key_id=key_id)

    def issue_key(self, database: str, tenant_id: str, *, scopes: frozenset[Scope], **others: Any) -> str:
        """Create a key of an existing tenant."""

        async def issue() -> str:
            return (await self._api_keys(database).issue(tenant_id, scopes=scopes, **others))[1]

        return self.run(issue())

    def set_policy(self, database: str, tenant_id: str, policy: Policy) -> None:
        """Set the policy of a tenant, which no server has read yet: it is in force at once."""
        self.run(Policies(Database(self._client, database).collection(Policies.COLLECTION)).set(tenant_id, policy))

    async def _start(self) -> None:
        if self._directory is not None:
            local = LocalMongo(self._directory, parameters=PARAMETERS)
            mongo = await self._stack.enter_async_context(local)
            self.mongodb_uri = mongo.uri
        opened = open_database(uri=self.mongodb_uri, name="godoty_tests")
        self._stack.push_async_callback(opened.close)
        self._client = opened._client
        await self._stack.enter_async_context(self.sandbox)

    async def _prepare(self, name: str) -> None:
        async with open_components(self.settings(name), migrate=True):
            pass

    async def _issue(self, database: str, scopes: frozenset[Scope]) -> tuple[str, str, str]:
        tenants = Database(self._client, database).collection(Tenants.COLLECTION)
        tenant = await Tenants(tenants).create("test")
        key, text = await self._api_keys(database).issue(tenant.tenant_id, scopes=scopes)
        return tenant.tenant_id, text, key.key_id

    def _api_keys(self, database: str) -> ApiKeys:
        return ApiKeys(Database(self._client, database).collection(ApiKeys.COLLECTION))


def _with_documents(database: Any, collections: list[str]) -> list[str]:
    """Return those of some collections that have documents, by one operation."""
    looks = [[{"$limit": 1}, {"$project": {"_id": {"$literal": each}}}] for each in collections]
    unions = [{"$unionWith": {"coll": each, "pipeline": look}} for each, look in zip(collections, looks, strict=True)]
    return [each["_id"] for each in database[collections[0]].aggregate([*looks[0], *unions[1:]])]
