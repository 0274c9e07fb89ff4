"""Names of end users that servers of schema 1 stored are replaced in the background, and erased in either form.

The builds store a name in sessions, in ledger entries and in the calls of event logs (schema 1 also in leases). The
recorded databases have no end users: `name_users` gives them some, in these fields.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from bson import json_util
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import billing_service_pb2 as billing
from godoty.v1 import billing_service_pb2_grpc
from pymongo.database import Database as Mongo

from godoty_service.migrations.migrator import Migrator
from godoty_service.migrations.registry import MIGRATIONS
from godoty_service.migrations.schema import Schema
from godoty_service.mongo.client import Database
from godoty_service.users import stored_names
from godoty_service.users.references import UserReferences
from godoty_service.users.stored_names import StoredNames
from tests.conftest import StartProcess
from tests.integration.migrations.dumps import BUILDS, SCHEMA_1, figures, restore
from tests.integration.migrations.test_old_databases import tenant_of
from tests.support.backends import Backends
from tests.support.caller import Caller
from tests.support.invoking import invoke
from tests.support.service import Service, eventually, soon

Connect = Callable[[Service], Caller]
Document = dict[str, Any]
IDLE = {"GODOTY_RECONCILE_INTERVAL": "3600", "GODOTY_ROLLUP_INTERVAL": "3600", "GODOTY_RECORD_PATIENCE": "604800"}
BUSY = {**IDLE, "GODOTY_ROLLUP_INTERVAL": "0.2"}
_USERS = {"talk": "Ann", "think": "Ann", "cut": "Bob", "twice": "Bob"}  # by session id


def name_of(user: str, tenant_id: str) -> str:
    """Return a name that occurs nowhere else."""
    return f"{user} Lövelace of {tenant_id}"


def name_users(database: Mongo[Document]) -> list[str]:
    """Give some sessions end users, as the builds of the databases would have; return the tenants."""
    for session in list(database["sessions"].find({"session_id": {"$in": list(_USERS)}})):
        name = name_of(_USERS[session["session_id"]], session["tenant_id"])
        database["sessions"].update_one({"_id": session["_id"]}, {"$set": {"user": name}})
        entries = {"session_uid": session["_id"]}
        database["ledger"].update_many(entries, {"$set": {"user": name}})
        for chunk in list(
            database["turn_logs"].find({"turn_id": {"$in": database["ledger"].distinct("turn_id", entries)}})
        ):
            for event in chunk["events"]:
                if isinstance(event, dict) and "call" in event:
                    event["call"]["user"] = name
            database["turn_logs"].replace_one({"_id": chunk["_id"]}, chunk)
    return sorted(database["sessions"].distinct("tenant_id"))


def stored_user_names(database: Mongo[Document]) -> set[str]:
    """Return the names that sessions have."""
    return {each for each in database["sessions"].distinct("user") if each}


def places(database: Mongo[Document], text: str) -> set[str]:
    """Return the collections that have a text anywhere in a document."""
    return {
        name
        for name in database.list_collection_names()
        if any(text in json_util.dumps(each, ensure_ascii=False) for each in database[name].find())
    }


async def calls_by_user(caller: Caller) -> Counter[str]:
    """Return the number of a tenant's model calls by end user."""
    request = billing.GetUsageRequest(group_by=["USAGE_GROUP_USER"])
    request.start_time.FromJsonString("2026-01-01T00:00:00Z")
    request.end_time.FromJsonString("2027-01-01T00:00:00Z")
    stub = billing_service_pb2_grpc.BillingServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
    answer = await stub.GetUsage(request, metadata=caller.service.metadata)
    return Counter({row.keys[0].user or row.keys[0].user_reference: row.totals.model_calls for row in answer.rows})


async def sessions_of(caller: Caller, user: str) -> list[str]:
    """Return the ids of an end user's sessions."""
    found = (await caller.call("ListSessions", pb.ListSessionsRequest(user=user))).sessions
    assert all(each.user == user for each in found)
    return sorted(each.session_id for each in found)


@pytest.mark.parametrize("build", BUILDS)
async def test_names_are_replaced_in_the_background(
    build: str, backends: Backends, serve_process: StartProcess, connect: Connect
) -> None:
    """Before and after, each user has the same calls and sessions; then the names stand in one collection."""
    name = backends.new_database()
    database = backends.mongo[name]
    await asyncio.to_thread(restore, build, database)
    tenants = name_users(database)
    first, _ = await serve_process(database=name, **IDLE)
    before = {}
    for tenant_id in tenants:
        caller = connect(tenant_of(backends, first.address, name, tenant_id))
        users = [name_of(user, tenant_id) for user in ("Ann", "Bob")]
        before[tenant_id] = (await calls_by_user(caller), [await sessions_of(caller, user) for user in users])
    await first.stop()
    assert places(database, "Lövelace") == {"users", "sessions", "ledger", "turn_logs"}
    second, service = await serve_process(database=name, **BUSY)
    await soon(lambda: places(database, "Lövelace") == {"users"})

    for tenant_id in tenants:
        caller = connect(tenant_of(backends, second.address, name, tenant_id))
        users = [name_of(user, tenant_id) for user in ("Ann", "Bob")]
        now = (await calls_by_user(caller), [await sessions_of(caller, user) for user in users])
        assert now == before[tenant_id]
        assert now[0][users[1]] > 0
        refused = await caller.converse("hi", session_id="cut", user=users[0])
        assert refused.failure is not None
        assert refused.failure.fields == {"user": "the session belongs to another end user"}
        assert (await caller.converse("go on", session_id="cut", user=users[1])).finished
        assert (await caller.converse("go on", session_id="twice")).finished
        entries = database["ledger"].find({"tenant_id": tenant_id, "session_id": {"$in": ["cut", "twice"]}})
        assert len({each["user_reference"] for each in entries}) == 1
    assert places(database, "Lövelace") == {"users"}
    assert " 0 differences" in await asyncio.to_thread(invoke, service, "ledger", "verify")


@pytest.mark.parametrize("build", BUILDS)
async def test_user_is_erased_while_names_are_stored(
    build: str, backends: Backends, serve_process: StartProcess, connect: Connect
) -> None:
    """An erasure finds both forms; other users and tenants keep their names, and the ledger its totals."""
    name = backends.new_database()
    database = backends.mongo[name]
    await asyncio.to_thread(restore, build, database)
    tenant_id, *others = name_users(database)
    process, service = await serve_process(database=name, **IDLE)
    caller = connect(tenant_of(backends, process.address, name, tenant_id))
    bob = name_of("Bob", tenant_id)
    before = await calls_by_user(caller)
    await caller.converse("hi", session_id="later", user=bob)
    printed = await asyncio.to_thread(invoke, service, "user", "erase", tenant_id, bob)

    assert ": erased 3 sessions, " in printed
    assert places(database, bob) == set()
    after = await calls_by_user(caller)
    assert after[printed.split(":")[0]] == before[bob] + 1
    assert after[name_of("Ann", tenant_id)] == before[name_of("Ann", tenant_id)]
    assert "sessions" in places(database, name_of("Bob", others[0]))
    assert " 0 differences" in await asyncio.to_thread(invoke, service, "ledger", "verify")
    await process.stop()
    assert bob not in process.log.read_text()


async def test_sessions_keep_names_while_an_old_server_runs(
    backends: Backends, serve_process: StartProcess, connect: Connect
) -> None:
    """It reads them there. Entries that it writes are replaced meanwhile, sessions once it has stopped."""
    process, service = await serve_process(**BUSY)
    database, caller = service.database, connect(service)
    database["replicas"].insert_one(
        {"_id": "replica_old", "schema": 1, "heartbeat_time": datetime.now(UTC) + timedelta(hours=1)}
    )
    attempts = count()

    async def keeps_names() -> bool:
        session_id = f"probe-{next(attempts)}"
        await caller.converse("hi", session_id=session_id, user="Eve")
        return (service.session(session_id) or {}).get("user") == "Eve"

    await eventually(keeps_names)  # the server looks for others with each run
    await caller.converse("hi", user="Ann Lövelace")
    (entry,) = service.entry_documents("talk")
    database["ledger"].insert_one(
        {
            **{key: value for key, value in entry.items() if key != "user_reference"},
            "_id": "call_old",
            "number": 2,
            "user": "Ann Lövelace",
            "generation_id": "gen-old",
        }
    )
    lease = {
        "turn_id": "turn_old",
        "replica_id": "",
        "text": "hi",
        "model": None,
        "user": "Ann Lövelace",
        "predecessors": [{"turn_id": "turn_older", "replica_id": "", "text": "hi", "user": "Ann Lövelace"}],
    }
    session = service.session("talk") or {}
    old = {key: value for key, value in session.items() if key != "user_reference"}
    database["sessions"].insert_one({**old, "_id": "ses_old", "session_id": "old", "user": None, "lease": lease})
    await soon(lambda: places(database, "Lövelace") == {"users", "sessions"})

    assert {each["user_reference"] for each in service.entry_documents("talk")} == {entry["user_reference"]}
    assert (session["user"], session["user_reference"]) == ("Ann Lövelace", entry["user_reference"])
    database["replicas"].delete_one({"_id": "replica_old"})
    await soon(lambda: places(database, "Lövelace") == {"users"})
    assert (await caller.converse("hi", user="Bob", session_id="old")).failure is not None
    assert (await caller.converse("hi", user="Ann Lövelace", session_id="old")).finished
    assert await sessions_of(caller, "Ann Lövelace") == ["old", "talk"]
    await process.stop()


@pytest.mark.parametrize("old_database", BUILDS[:1], indirect=True)
async def test_replacement_goes_on_after_a_kill(
    backends: Backends, old_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bounded pieces, by any server, once the lease of the killed one has expired."""
    monkeypatch.setattr(stored_names, "BATCH", 3)
    database = backends.mongo[old_database.name]
    name_users(database)
    await Migrator(old_database, Schema(old_database, MIGRATIONS), server_lease=timedelta(seconds=1)).run()
    users = UserReferences(old_database.collection("users"))

    async def old_servers() -> list[str]:
        return []

    one, two = (StoredNames(old_database, users, old_servers=old_servers, owner=each) for each in ("one", "two"))
    acquire, left = one._acquire_lease, 3

    async def killed() -> bool:
        nonlocal left
        left -= 1
        if left < 0:
            raise TimeoutError("killed")
        return await acquire()

    monkeypatch.setattr(one, "_acquire_lease", killed)
    named, names = database["ledger"].count_documents({"user": {"$exists": True}}), sorted(stored_user_names(database))
    with pytest.raises(TimeoutError):
        await one.replace()

    assert database["ledger"].count_documents({"user": {"$exists": True}}) == named - 9
    assert await two.replace() == 0  # the lease is the other one's
    database["schema"].update_one({"_id": "user_names"}, {"$set": {"until": datetime(2026, 1, 1, tzinfo=UTC)}})
    assert await two.replace() > named - 9
    assert places(database, "Lövelace") == {"users"}
    assert sorted(each["name"] for each in database["users"].find()) == names


async def test_database_of_the_last_build_of_schema_1_is_replaced(
    backends: Backends, serve_process: StartProcess, connect: Connect
) -> None:
    """Its servers wrote the names, also in leases of killed turns; each user has the calls that they reported."""
    name = backends.new_database()
    database = backends.mongo[name]
    await asyncio.to_thread(restore, SCHEMA_1, database)
    database["replicas"].delete_many({})
    assert database["sessions"].count_documents({"lease.user": {"$gt": ""}}) == 2
    assert database["sessions"].count_documents({"lease.predecessors.user": {"$gt": ""}}) == 2
    process, service = await serve_process(database=name, **BUSY)
    await soon(lambda: places(database, "Lövelace") == {"users"})

    for tenant_id, before in figures(SCHEMA_1).items():
        caller = connect(tenant_of(backends, process.address, name, tenant_id))
        assert await calls_by_user(caller) == Counter(before)
        assert await sessions_of(caller, "Ann Lövelace") == ["talk", "think"]
        assert (await caller.converse("hi", session_id="late", user="Ann Lövelace")).failure is not None
        assert (await caller.converse("hi", session_id="late", user="Bob Lövelace")).finished
        assert await sessions_of(caller, "Bob Lövelace") == ["bobs", "late"]
        printed = await asyncio.to_thread(invoke, service, "user", "erase", tenant_id, "Bob Lövelace")
        assert ": erased 2 sessions, " in printed
        assert printed.split(":")[0] in await calls_by_user(caller)
    assert places(database, "Bob") == set()
    assert " 0 differences" in await asyncio.to_thread(invoke, service, "ledger", "verify")


async def test_database_of_the_last_build_of_schema_1_is_erased(
    backends: Backends, serve_process: StartProcess
) -> None:
    """Before any name was replaced: in sessions, leases, entries and event logs."""
    name = backends.new_database()
    database = backends.mongo[name]
    await asyncio.to_thread(restore, SCHEMA_1, database)
    database["replicas"].delete_many({})
    _, service = await serve_process(database=name, **IDLE)
    for tenant_id in figures(SCHEMA_1):
        for user, sessions in (("Ann Lövelace", 2), ("Bob Lövelace", 2)):
            printed = await asyncio.to_thread(invoke, service, "user", "erase", tenant_id, user)
            assert f": erased {sessions} sessions, " in printed

    assert places(database, "Lövelace") == set()
    assert database["sessions"].distinct("session_id") == ["none"]
    assert " 0 differences" in await asyncio.to_thread(invoke, service, "ledger", "verify")
