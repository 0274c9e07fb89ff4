"""Migrations that are killed: a process of its own ends itself by SIGKILL within or after a step."""

import asyncio
import os
import signal
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from godoty_service.migrations.migrator import Migrator
from godoty_service.migrations.registry import MIGRATIONS
from godoty_service.migrations.schema import Migration, Schema
from godoty_service.migrations.steps import Progress, Step, UpdateDocuments
from godoty_service.mongo.client import Database, open_database

LEASE = timedelta(seconds=0.5)


def small_batches() -> Migration:
    """Return the first migration with three documents in a batch."""
    migration = MIGRATIONS[0]
    steps = tuple(replace(each, batch=3) if isinstance(each, UpdateDocuments) else each for each in migration.steps)
    return replace(migration, steps=steps)


@dataclass(frozen=True)
class KilledAfter:
    """A step whose process is killed when it is done, or after some of its batches.

    Attributes:
        step: What it does.
        batches: The batch before whose record it is killed; 0: after the step.
    """

    step: Step
    batches: int = 0

    @property
    def name(self) -> str:
        """The step's name."""
        return self.step.name

    async def run(self, database: Database, progress: Progress) -> None:
        """Run the step, and end the process."""
        await self.step.run(database, _KillingProgress(progress, self.batches) if self.batches else progress)
        os.kill(os.getpid(), signal.SIGKILL)


class _KillingProgress:
    def __init__(self, progress: Progress, batches: int) -> None:
        self._progress = progress
        self._batches = batches
        self.after = progress.after

    async def advance(self, after: Any) -> None:
        self._batches -= 1
        if not self._batches:
            os.kill(os.getpid(), signal.SIGKILL)
        await self._progress.advance(after)
        self.after = after


async def migrate(database: Database, migration: Migration) -> None:
    """Migrate."""
    await Migrator(database, Schema(database, [migration]), server_lease=LEASE, lease=LEASE).run()


def migrate_and_die(uri: str, name: str, step: int, batches: int) -> None:
    """Migrate in a process of its own, which is killed in or after a step."""
    migration = small_batches()
    steps = list(migration.steps)
    steps[step] = KilledAfter(steps[step], batches)
    asyncio.run(migrate(open_database(uri=uri, name=name), replace(migration, steps=tuple(steps))))
