"""Runs migrations, in one process at a time. Keeps its lease in the document `lease` of the collection `schema`."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from godoty_service.errors import DuplicateKey, SchemaError, StorageError
from godoty_service.ids import new_id
from godoty_service.migrations.schema import Migration, Schema
from godoty_service.mongo.client import Database

log = structlog.get_logger(__name__)

_LEASE = timedelta(seconds=30)
_RETRY = 1.0  # seconds between two tries to acquire the lease

Report = Callable[[str], None]


def _silent(_: str) -> None:
    """Print nothing."""


@dataclass(slots=True)
class _StepProgress:
    schema: Schema
    migration: Migration
    step: str
    after: Any

    async def advance(self, after: Any) -> None:
        await self.schema.note_after(self.migration, self.step, after)
        self.after = after


class Migrator:
    """Brings a database to the version of this build.

    A process that is killed leaves the lease until it expires; the next one goes on after the last batch.
    """

    def __init__(
        self,
        database: Database,
        schema: Schema,
        *,
        server_lease: timedelta,
        lease: timedelta = _LEASE,
        report: Report = _silent,
    ) -> None:
        """Build it.

        Args:
            database: What is migrated.
            schema: Its schema.
            server_lease: How long after its last heartbeat a server counts as running.
            lease: How long after its last sign of life another process migrates in place of one.
            report: Called with a line for each step.
        """
        self._database = database
        self._schema = schema
        self._server_lease = server_lease
        self._lease = lease
        self._report = report
        self._owner = new_id("migrator")
        self._leases = database.collection("schema")

    async def run(self) -> None:
        """Migrate, or wait until another process has; do nothing if the version is this build's or the next.

        Raises:
            SchemaError: The database is too new, or servers are running that are too old.
        """
        waiting = False
        while (await self._schema.require_not_newer()).version < self._schema.supported:
            if await self._acquire():
                await self._while_leased(self._migrate)
                waiting = False
            elif not waiting:
                waiting = True
                log.info("waiting_for_migration", schema=self._schema.supported)
                self._report("another process is migrating the database; waiting for it")
            if waiting:
                await asyncio.sleep(min(_RETRY, self._lease.total_seconds() / 4))

    async def require_servers_stopped(self, migration: Migration) -> None:
        """Refuse a migration while servers are running that cannot work on its version.

        Raises:
            SchemaError: There are such servers.
        """
        running = await self._schema.old_servers(migration.oldest, self._server_lease)
        if running:
            raise SchemaError(
                f"The database cannot be migrated to schema version {migration.version} while servers of schemas older "
                f"than {migration.oldest} are running: {', '.join(running)}. Stop them and try again; a server that "
                f"was killed counts as running for {self._server_lease.total_seconds():g} s."
            )

    async def _migrate(self) -> None:
        for migration in self._schema.migrations:
            state = await self._schema.read()
            if migration.version > state.version:
                await self._run(migration)

    async def _run(self, migration: Migration) -> None:
        await self._schema.begin(migration)
        try:
            await self.require_servers_stopped(migration)
        except SchemaError:
            await self._schema.withdraw(migration)
            raise
        log.info("migration_started", schema=migration.version)
        for number, step in enumerate(migration.steps, 1):
            state = await self._schema.read()
            if step.name in state.steps:
                continue
            self._report(f"schema {migration.version}, step {number} of {len(migration.steps)}: {step.name}")
            progress = _StepProgress(self._schema, migration, step.name, state.after)
            await step.run(self._database, progress)
            await self._schema.note_step(migration, step.name)
            log.info("migration_step_done", schema=migration.version, step=step.name)
        await self._schema.complete(migration)
        log.info("migration_done", schema=migration.version)

    async def _while_leased(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Work until it is done or the lease is lost, and release it."""
        tasks = working, renewing = asyncio.create_task(work()), asyncio.create_task(self._renew())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await (working if working.done() else renewing)
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(StorageError):
                await self._release()

    async def _renew(self) -> None:
        """Renew the lease until another process has it."""
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 4)
            # Never inserted: the database may run a renewal that was cancelled after the release.
            own = {"_id": "lease", "owner": self._owner}
            if not await self._leases.find_one_and_update(own, [{"$set": {"until": self._until}}]):
                return

    async def _acquire(self) -> bool:
        """Acquire the lease, by the database's clock; return False if another process has it."""
        free = {"$or": [{"$eq": ["$owner", self._owner]}, {"$lt": ["$until", "$$NOW"]}]}  # `until` may be missing
        taken = {"_id": "lease", "owner": self._owner, "until": self._until}
        try:
            found = await self._leases.find_one_and_update(
                {"_id": "lease"}, [{"$replaceWith": {"$cond": [free, taken, "$$ROOT"]}}], upsert=True
            )
        except DuplicateKey:  # another process inserted it
            return False
        return found is not None and found["owner"] == self._owner

    @property
    def _until(self) -> dict[str, Any]:
        """When the lease expires, as MongoDB computes it."""
        return {"$add": ["$$NOW", self._lease // timedelta(milliseconds=1)]}

    async def _release(self) -> None:
        await self._leases.delete_one({"_id": "lease", "owner": self._owner})
