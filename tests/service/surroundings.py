"""What the service stands on, once for all tests: a real MongoDB, and the sandbox OpenRouter with its invoice."""

import asyncio
import secrets
import shutil
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

from pymongo import MongoClient

from godoty_service.rooms import Rooms, open_rooms
from godoty_service.sandbox.replica_set import LocalMongo
from godoty_service.sandbox.server import Sandbox
from godoty_service.sandbox.settings import SandboxSettings
from godoty_service.settings import Settings
from godoty_service.tenancy.principal import Scope
from tests.service.service import Place, Service

T = TypeVar("T")

ACCOUNT = "sandbox-tests"  # the provider key of servers that name no other
_RECORDED = Path(__file__).parents[1] / "data" / "recorded"
_PATIENCE = 60.0


class Surroundings:
    """MongoDB and the sandbox in a thread of their own, so that tests, blocking or not, and processes reach them.

    Attributes:
        mongodb_uri: Where MongoDB is.
        mongo: A blocking client for it.
        sandbox: The provider. It lives in the thread: ask it by `ask`.
    """

    def __init__(self, directory: Path, mongodb_uri: str | None) -> None:
        """Prepare them.

        Args:
            directory: Where a MongoDB of our own keeps its data.
            mongodb_uri: One that runs already.
        """
        self._directory = directory
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="surroundings", daemon=True)
        self._stack = AsyncExitStack()
        self._databases: list[str] = []
        self._opened = ""  # the database that was asked for last
        self._rooms = AsyncExitStack()  # what keeps its rooms open
        self._last: Rooms | None = None
        self._borrowed = mongodb_uri is not None
        self.mongodb_uri = mongodb_uri or ""
        # Whatever a test's session keeps must be what strict providers take.
        self.sandbox = Sandbox(recorded=_RECORDED, settings=SandboxSettings(strict="openai,anthropic"))

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._start())
        self.mongo: MongoClient[dict[str, Any]] = MongoClient(self.mongodb_uri, tz_aware=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._borrowed:
            for name in self._databases:
                self.mongo.drop_database(name)
        self.mongo.close()
        self.run(self._rooms.aclose())
        self.run(self._stack.aclose())
        shutil.rmtree(self._directory)  # all databases of a MongoDB of our own at once
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)

    def ask(self, question: Callable[[], T]) -> T:
        """Ask the sandbox something, in its own thread."""

        async def answer() -> T:
            return question()

        return self.run(answer())

    def allow(self, hold: str, tokens: int | None = None) -> None:
        """Let the provider's answers that wait at a hold go on: by so many tokens, or to their end."""
        self.ask(lambda: self.sandbox.holds.allow(hold, tokens))

    def new_database(self) -> str:
        """Name a database that nobody else uses, and that is dropped in the end."""
        name = f"godoty_test_{secrets.token_hex(6)}"
        self._databases.append(name)
        return name

    def settings(self, database: str, **others: Any) -> Settings:
        """Build settings that name these surroundings."""
        return Settings(
            **{
                "listen": "127.0.0.1:0",
                "mongodb_uri": self.mongodb_uri,
                "mongodb_database": database,
                "openrouter_base_url": self.sandbox.base_url,
                "OPENROUTER_API_KEY": ACCOUNT,
                "drain_grace": 2.0,
                "wrong_key_lookups": 1_000_000.0,  # all tests call from one address
                **others,
            }
        )

    def service(self, target: str, database: str) -> Service:
        """Make a new tenant in a server's database, and a key to call it with."""
        tenant_id, api_key, key_id = self.run(self._issue(database, frozenset({Scope.CONVERSE})))
        place = Place(target=target, database=self.mongo[database], surroundings=self)
        return Service(place=place, tenant_id=tenant_id, api_key=api_key, key_id=key_id)

    def issue_key(self, database: str, tenant_id: str, *, scopes: frozenset[Scope], **others: Any) -> str:
        """Make a key of a tenant that there is."""

        async def issue() -> str:
            rooms = await self._open(database)
            return (await rooms.keys.issue(tenant_id, scopes=scopes, **others))[1]

        return self.run(issue())

    async def _start(self) -> None:
        if not self._borrowed:
            mongo = await self._stack.enter_async_context(LocalMongo(self._directory))
            self.mongodb_uri = mongo.uri
        await self._stack.enter_async_context(self.sandbox)

    async def _issue(self, database: str, scopes: frozenset[Scope]) -> tuple[str, str, str]:
        rooms = await self._open(database)
        tenant = await rooms.tenants.create("test")
        key, text = await rooms.keys.issue(tenant.tenant_id, scopes=scopes)
        return tenant.tenant_id, text, key.key_id

    async def _open(self, database: str) -> Rooms:
        """Open a database's rooms, and keep them for the tests that follow on the same."""
        if self._last is None or self._opened != database:
            await self._rooms.aclose()
            self._last = await self._rooms.enter_async_context(open_rooms(self.settings(database), indexes=False))
            self._opened = database
        return self._last
