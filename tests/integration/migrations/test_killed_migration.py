"""A migration that is killed anywhere goes on where it was, and two processes do not migrate at once."""

import asyncio
import multiprocessing
import signal
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from godoty_service.migrations.migrator import Migrator
from godoty_service.migrations.registry import MIGRATIONS
from godoty_service.migrations.schema import Migration, Schema
from godoty_service.migrations.steps import Progress, Rename, UpdateDocuments
from godoty_service.mongo.client import Database, open_database
from tests.integration.migrations.dumps import BUILDS, write
from tests.integration.migrations.killing import LEASE, migrate, migrate_and_die, small_batches
from tests.support.backends import Backends

_FORKS = multiprocessing.get_context("forkserver")
_STEPS = len(MIGRATIONS[0].steps)
Document = dict[str, Any]
one_build = pytest.mark.parametrize("old_database", BUILDS[-1:], indirect=True)


async def kill_in(backends: Backends, database: Database, step: int, batches: int = 0) -> None:
    """Have a migration killed."""
    process = _FORKS.Process(target=migrate_and_die, args=(backends.mongodb_uri, database.name, step, batches))
    process.start()
    await asyncio.to_thread(process.join)
    assert process.exitcode == -signal.SIGKILL


def content(backends: Backends, database: Database) -> Document:
    """Return all documents and indexes."""
    found = backends.mongo[database.name]
    return {
        name: (
            sorted(found[name].find(), key=lambda each: str(each["_id"])),
            sorted(each["name"] for each in found[name].list_indexes()),
        )
        for name in found.list_collection_names()
    }


@one_build
async def test_migration_killed_after_each_step_goes_on(backends: Backends, old_database: Database) -> None:
    """Killed after every step, and within each update, it ends with the documents of one that is not killed."""
    reference = open_database(uri=backends.mongodb_uri, name=backends.new_database())
    for name, (documents, _) in content(backends, old_database).items():
        collection = backends.mongo[reference.name].create_collection(name)
        write(collection, documents, backends.mongo[old_database.name][name].list_indexes())
    await migrate(reference, MIGRATIONS[0])

    for number, step in enumerate(MIGRATIONS[0].steps):
        if isinstance(step, UpdateDocuments) and step.collection in ("ledger", "sessions"):
            await kill_in(backends, old_database, number, batches=2)
        await kill_in(backends, old_database, number)
        assert (await Schema(old_database, MIGRATIONS).read()).version == 0
    await migrate(old_database, small_batches())

    assert content(backends, old_database) == content(backends, reference)
    await reference.close()


@one_build
async def test_two_processes_migrate_once(old_database: Database) -> None:
    """The other one waits, and runs no step."""
    lines: list[str] = []

    async def run() -> None:
        schema = Schema(old_database, MIGRATIONS)
        await Migrator(old_database, schema, server_lease=LEASE, report=lines.append).run()

    await asyncio.gather(run(), run(), run())

    assert (await Schema(old_database, MIGRATIONS).read()).version == 2
    assert len([each for each in lines if each.startswith("schema 1, step")]) == _STEPS


async def test_renewal_after_the_release_inserts_no_lease(database: Database) -> None:
    """A cancelled renewal may still run in the database: a lease that it inserted would hold up the next process."""
    migrator = Migrator(database, Schema(database, []), server_lease=LEASE, lease=timedelta(seconds=0.04))
    async with asyncio.timeout(180):
        await migrator._renew()

    assert not [each for each in await database.collection("schema").find({}) if each["_id"] == "lease"]


@one_build
async def test_migrator_that_lost_its_lease_stops(backends: Backends, old_database: Database) -> None:
    """A process that stood still for longer than its lease does not go on beside the one that replaced it."""
    stands = asyncio.Event()

    @dataclass(frozen=True)
    class Standing:
        name: str = "rename collection usage_books to usage_rollup_state"

        async def run(self, database: Database, progress: Progress) -> None:
            if stands.is_set():
                await MIGRATIONS[0].steps[0].run(database, progress)
                return
            stands.set()
            await asyncio.sleep(60)

    slow = replace(MIGRATIONS[0], steps=(Standing(), *MIGRATIONS[0].steps[1:]))
    first = asyncio.create_task(migrate(old_database, slow))
    await stands.wait()
    leases = backends.mongo[old_database.name]["schema"]
    leases.update_one({"_id": "lease"}, {"$set": {"owner": "another process"}})
    await asyncio.sleep(LEASE.total_seconds())
    leases.delete_one({"_id": "lease"})
    await migrate(old_database, MIGRATIONS[0])

    await asyncio.wait_for(first, 180)
    assert (await Schema(old_database, MIGRATIONS).read()).version == 1


@pytest.mark.parametrize("value", [{"old": None}, {"old": "open", "kept": 1}, {"old": "later"}, {}])
async def test_renamed_field_keeps_its_value(database: Database, value: Document) -> None:
    """Also null, a value that the table does not have, and a field that is missing."""
    await database.collection("ledger").insert_one({"_id": "a", **value})
    step = UpdateDocuments("ledger", (Rename("old", "new", {"open": "pending"}),))
    migration = Migration(version=1, steps=(step,))
    for _ in range(2):
        await migrate(database, migration)

    found = await database.collection("ledger").find_one({"_id": "a"})
    new = {"new": {"open": "pending"}.get(value["old"], value["old"])} if "old" in value else {}
    assert found == {"_id": "a", **{name: each for name, each in value.items() if name != "old"}, **new}
