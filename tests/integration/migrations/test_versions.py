"""Which schema versions servers and commands work on, and what they print of others."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import structlog.testing

from godoty_service.cluster.heartbeats import ReplicaHeartbeats
from godoty_service.errors import SchemaError
from godoty_service.migrations import registry
from godoty_service.migrations.migrator import Migrator
from godoty_service.migrations.schema import Migration, Schema
from godoty_service.mongo.client import Database
from tests.conftest import Start, StartProcess
from tests.integration.migrations.dumps import BUILDS
from tests.support.backends import Backends
from tests.support.invoking import invoke, without_waiting
from tests.support.service import Deployment, Service, soon

LATER = (*registry.MIGRATIONS, Migration(version=3, steps=()), Migration(version=4, steps=()))
NOW = registry.MIGRATIONS  # of this build: schema 2
LEASE = timedelta(minutes=10)
one_build = pytest.mark.parametrize("old_database", BUILDS[-1:], indirect=True)
TOO_NEW = (
    "The database has schema version 4; this build supports versions 2 and 3. Use a build of schema version 3 or 4."
)


@pytest.fixture
def command(backends: Backends, new_database: str) -> Callable[..., str]:
    """Runs a command on the database."""
    deployment = Deployment(target="", database=backends.mongo[new_database], backends=backends)
    service = Service(deployment=deployment, tenant_id="", api_key="", key_id="")

    def run(*arguments: str) -> str:
        return invoke(service, *arguments)

    return run


def set_version(backends: Backends, database: str, version: int) -> None:
    """Write a version, as a migration to it would."""
    schemas = backends.mongo[database]["schema"]
    schemas.update_one({"_id": "schema"}, {"$set": {"version": version}}, upsert=True)


async def test_new_database_has_the_newest_version(database: Database) -> None:
    """Two processes that open it at the same time agree."""
    schema = Schema(database, LATER)

    assert (await schema.read()).version == 4
    assert (await Schema(database, NOW).read()).version == 4


async def test_server_refuses_a_newer_schema(
    backends: Backends, new_database: str, serve: Start, serve_process: StartProcess
) -> None:
    """A server of schema 2 works on version 3, and ends with one line on version 4."""
    set_version(backends, new_database, 3)
    await serve(database=new_database)
    set_version(backends, new_database, 4)

    with pytest.raises(RuntimeError) as refusal:
        await serve_process(database=new_database)

    assert without_waiting(str(refusal.value).removeprefix("the server exited: ")) == f"godoty: {TOO_NEW}\n"


def test_command_refuses_a_newer_schema(backends: Backends, new_database: str, command: Callable[..., str]) -> None:
    """Each command that opens the database does, `godoty migrate` included."""
    set_version(backends, new_database, 3)
    command("tenant", "create", "acme")
    set_version(backends, new_database, 4)

    for arguments in (["tenant", "list"], ["ledger", "verify"], ["migrate"], ["migrate", "--check"]):
        with pytest.raises(SchemaError) as refusal:
            command(*arguments)
        assert str(refusal.value) == TOO_NEW


@one_build
def test_command_refuses_an_older_schema(old_database: Database, command: Callable[..., str]) -> None:
    """It names `godoty migrate`, which has a check, migrates once, and then has nothing to do."""
    with pytest.raises(SchemaError) as refusal:
        command("ledger", "verify")

    assert str(refusal.value) == (
        "The database has schema version 0; this build needs version 2. Run `godoty migrate`."
    )
    with pytest.raises(SystemExit) as status:
        command("migrate", "--check")
    assert status.value.code == 1
    steps = command("migrate").splitlines()
    assert steps[0] == "schema version 0; this build writes version 2"
    assert steps[1] == "schema 1, step 1 of 12: rename collection usage_books to usage_rollup_state"
    assert steps[-2] == "schema 2, step 4 of 4: create indexes of turn_logs"
    assert steps[-1] == "migrated to schema version 2"
    assert command("migrate", "--check") == command("migrate") == "schema version 2; this build writes version 2\n"
    assert " 0 differences" in command("ledger", "verify")


@one_build
async def test_migration_refuses_while_an_old_server_runs(backends: Backends, old_database: Database) -> None:
    """A server of schema 0 has a heartbeat without a schema, in the field `beat`; the refusal changes nothing."""
    replicas = backends.mongo[old_database.name]["replicas"]
    replicas.update_one({"_id": "replica_old"}, [{"$set": {"beat": "$$NOW"}}], upsert=True)
    schema = Schema(old_database, registry.MIGRATIONS)

    with pytest.raises(SchemaError) as refusal:
        await Migrator(old_database, schema, server_lease=LEASE).run()

    assert str(refusal.value) == (
        "The database cannot be migrated to schema version 1 while servers of schemas older than 1 are running: "
        "replica_old. Stop them and try again; a server that was killed counts as running for 600 s."
    )
    assert "usage_books" in await old_database.structure.collections()
    replicas.delete_one({"_id": "replica_old"})
    await Migrator(old_database, schema, server_lease=LEASE).run()
    assert (await schema.read()).version == 2


async def test_migration_runs_beside_servers_of_the_version_before(database: Database) -> None:
    """Servers of schema 1 may run during the migration to 2, and must be stopped before the one to 3."""
    replicas = ReplicaHeartbeats(database.collection("replicas"), replica_id="one", lease=LEASE, schema=1)
    await replicas.heartbeat()
    await database.collection("schema").insert_one({"_id": "schema", "version": 1})
    await Migrator(database, Schema(database, NOW), server_lease=LEASE).run()

    with pytest.raises(SchemaError, match="servers of schemas older than 2 are running: one"):
        await Migrator(database, Schema(database, LATER[:3]), server_lease=LEASE).run()

    await Schema(database, LATER[:1]).require_current()
    await replicas.stop()
    await Migrator(database, Schema(database, LATER[:3]), server_lease=LEASE).run()
    with pytest.raises(SchemaError):
        await Schema(database, LATER[:1]).require_not_newer()


async def test_server_does_not_start_once_a_migration_to_a_newer_schema_has_begun(database: Database) -> None:
    """Such a migration looks for running servers once, after it has announced itself."""
    schema = Schema(database, LATER)
    await database.collection("schema").insert_one({"_id": "schema", "version": 3})
    await schema.begin(LATER[3])

    with pytest.raises(SchemaError, match="is being migrated to schema version 4"):
        await Schema(database, NOW).require_current()
    await schema.withdraw(LATER[3])
    await Schema(database, NOW).require_current()


@one_build
async def test_second_server_waits_for_the_migration(backends: Backends, old_database: Database) -> None:
    """It logs one line, and goes on when the other one is done."""
    leases = backends.mongo[old_database.name]["schema"]
    leases.insert_one({"_id": "lease", "owner": "another", "until": datetime.now(UTC) + timedelta(hours=1)})
    migrator = Migrator(
        old_database, Schema(old_database, registry.MIGRATIONS), server_lease=LEASE, lease=timedelta(seconds=2)
    )
    with structlog.testing.capture_logs() as logs:
        waiting = asyncio.create_task(migrator.run())
        await soon(lambda: "waiting_for_migration" in [each["event"] for each in logs])
        await asyncio.sleep(1.2)  # it looks several times
        assert not waiting.done()
        leases.delete_one({"_id": "lease"})
        await waiting

    assert [each["event"] for each in logs].count("waiting_for_migration") == 1
    assert logs[-1]["event"] == "migration_done"
