"""Make a dump of a database of schema 0 with a build from before schema versions, and record what that build reports.

Run it in a worktree of that build, with the build's own packages first on the path (README.md has the command).
"""

import asyncio
import gzip
import importlib
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import bson
import grpc
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc, billing_service_pb2_grpc
from godoty.v1 import billing_service_pb2 as billing
from google.protobuf.json_format import MessageToDict

OLD: dict[str, Any] = {}  # what is used of the old build, by name
for _module, _names in (
    ("tests.faults.world", "ServerProcess"),
    ("tests.service.caller", "Caller"),
    ("tests.service.surroundings", "ACCOUNT Surroundings"),
    ("godoty_service.metering.rollups", "Rollups"),
    ("godoty_service.tenancy.policy", "Policy"),
    ("godoty_service.tenancy.principal", "Scope"),
    ("godoty_service.budget", "Budget BudgetWindow"),
):
    OLD |= {name: getattr(importlib.import_module(_module), name) for name in _names.split()}

log = logging.getLogger(__name__)
MINI, HAIKU = "openai/gpt-4o-mini", "anthropic/claude-haiku-4.5"
GROUPS = {"all": [], "model": ["USAGE_GROUP_MODEL"], "day": ["USAGE_GROUP_DAY"], "session": ["USAGE_GROUP_SESSION"]}
LEFT_OUT = {"catalogues", "api_keys"}  # large and refetched; secrets
LATE = 3_600_000  # milliseconds until a generation's record can be read


class Maker:
    """Drives servers of the old build."""

    def __init__(self, surroundings: Any, directory: Path) -> None:
        self.around = surroundings
        self.directory = directory
        self.database = surroundings.new_database()
        self.servers = 0

    async def server(self, database: str | None = None, **environment: str) -> Any:
        """Start a server of the old build."""
        self.servers += 1
        process = OLD["ServerProcess"](
            environment={
                "GODOTY_LISTEN": "127.0.0.1:0",
                "GODOTY_MONGODB_URI": self.around.mongodb_uri,
                "GODOTY_MONGODB_DATABASE": database or self.database,
                "GODOTY_OPENROUTER_BASE_URL": self.around.sandbox.base_url,
                "OPENROUTER_API_KEY": OLD["ACCOUNT"],
                "GODOTY_LEASE": "3",
                "GODOTY_HEARTBEAT": "0.3",
                "GODOTY_TURN_LOG_RETENTION": "31536000",
                **environment,
            },
            log=self.directory / f"server{self.servers}.log",
        )
        await process.start()
        return process

    def sandbox(self, **settings: Any) -> None:
        """Change the sandbox."""
        self.around.ask(lambda: self.around.sandbox.settings.change(settings))


async def main(target: Path) -> None:
    """Make the database, dump it, and record the old build's figures from a copy."""
    with tempfile.TemporaryDirectory() as folder, OLD["Surroundings"](Path(folder) / "mongo", None) as around:
        maker = Maker(around, Path(folder))
        tenants = await make(maker)
        content = dump(maker)
        (target / "dump.bson.gz").write_bytes(content)
        copy = around.new_database()
        restore(maker, copy)
        figures = await record(maker, copy, tenants)
        (target / "figures.json").write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")


async def make(maker: Maker) -> list[str]:
    """Make sessions, budgets, roll-ups, and interrupted turns; return the tenants' ids."""
    around = maker.around
    server = await maker.server(GODOTY_ROLLUP_INTERVAL="0.5", GODOTY_RECORD_PATIENCE="4")
    services = [around.service(server.address, maker.database) for _ in range(3)]
    await asyncio.to_thread(around.run, set_policy(maker, services[0].tenant_id))
    await asyncio.sleep(12)  # by then spending is counted call by call
    for service in services[:2]:
        await converse(server, service, "talk", "plain tokens=6", MINI)
        await converse(server, service, "talk", "plain tokens=9", HAIKU)
        await converse(server, service, "talk", "tool-loop calls=3", HAIKU)
        await converse(server, service, "talk", "cached", MINI)
        await converse(server, service, "think", "reasoning", MINI)
    maker.sandbox(generation_delay_ms=LATE, cancelled_generation_delay_ms=LATE)
    for service in services[:2]:  # no record comes in time
        await converse(server, service, "unknown", "error-mid n=3 usage=0", MINI)
        await converse(server, service, "resolved", "error-mid n=3 usage=0", MINI)
    await until(
        lambda: (
            around.mongo[maker.database]["ledger"].count_documents({"state": "UNRESOLVED"}) == 4
            or around.mongo[maker.database]["ledger"].count_documents({"state": "unresolved"}) == 4
        )
    )
    for service in services[:2]:
        await asyncio.to_thread(around.run, resolve(maker, service))
    await until(lambda: around.mongo[maker.database]["budgets"].count_documents({"stated": True}) == 1)
    await server.stop()
    await interrupt(maker, services)
    await asyncio.to_thread(around.run, leave_batch(maker, services[1].tenant_id))
    return [each.tenant_id for each in services]


async def interrupt(maker: Maker, services: list[Any]) -> None:
    """Leave calls to reconciliation and turns without an end; a session twice."""
    for number, session in enumerate(("cut", "twice", "twice")):
        server = await maker.server(GODOTY_ROLLUP_INTERVAL="3600", GODOTY_RECORD_PATIENCE="3600")
        await asyncio.sleep(4.0)  # the lease of the server before is over
        turns = [
            asyncio.create_task(
                converse(server, each, session, "slow tokens=200 first_delay_ms=20 delay_ms=100", HAIKU)
            )
            for each in services
        ]
        for each in services:
            await converse(server, each, f"more{number}", "plain tokens=4", MINI)
        await converse(server, services[number], "deferred", "error-mid n=3 usage=0", MINI)
        await asyncio.sleep(1.5)
        if number < 2:
            await usage(server, services[0], maker, "all")
        if number == 2:
            await usage(server, services[1], maker, "all")
            await converse(server, services[1], "talk", "plain tokens=5", MINI)
        await server.kill()
        await asyncio.gather(*turns, return_exceptions=True)


async def set_policy(maker: Maker, tenant_id: str) -> None:
    """Set budgets and limits; the first budget's alerts are reached by the first turns."""
    rooms = await maker.around._open(maker.database)
    budgets = (
        OLD["Budget"](window=OLD["BudgetWindow"].DAY, limit=decimal("0.0001"), hard=False),
        OLD["Budget"](window=OLD["BudgetWindow"].TOTAL, limit=decimal("1000"), hard=True),
    )
    policy = OLD["Policy"](budgets=budgets, turns_per_minute=600, concurrent_turns=50)
    await rooms.administration.set_policy("maker", tenant_id, policy)


async def resolve(maker: Maker, service: Any) -> None:
    """Resolve an unresolved call, as `godoty ledger resolve` does."""
    rooms = await maker.around._open(maker.database)
    call = next(each for each in service.entries("resolved"))
    await rooms.accounting.adjustments.resolve(call, cost=decimal("0.000001"), why="the invoice", by="maker")


async def leave_batch(maker: Maker, tenant_id: str) -> None:
    """Begin a roll-up and fail before it is finished, as a server does that is killed in between."""
    rooms = await maker.around._open(maker.database)

    async def fail(*_: object) -> None:
        raise TimeoutError("killed")

    kept, OLD["Rollups"].fold = OLD["Rollups"].fold, fail
    try:
        await rooms.usage.rollup_job.take_up(tenant_id)
    except TimeoutError:
        pass
    else:
        raise AssertionError("there was nothing to roll up")
    finally:
        OLD["Rollups"].fold = kept


async def record(maker: Maker, database: str, tenants: list[str]) -> dict[str, Any]:
    """Return what a server of the old build reports."""
    server = await maker.server(
        database, GODOTY_ROLLUP_INTERVAL="3600", GODOTY_RECORD_PATIENCE="3600", GODOTY_RECONCILE_INTERVAL="3600"
    )
    figures: dict[str, Any] = {"tenants": {}, "verify": await verify(maker, database)}
    for tenant_id in tenants:
        key = maker.around.issue_key(
            database, tenant_id, scopes=frozenset({OLD["Scope"].CONVERSE, OLD["Scope"].BILLING})
        )
        sessions = maker.around.mongo[database]["sessions"].distinct("session_id", {"tenant_id": tenant_id})
        async with grpc.aio.insecure_channel(server.address) as channel:
            metadata = (("authorization", f"Bearer {key}"),)
            figures["tenants"][tenant_id] = await read(channel, metadata, sorted(sessions))
    await server.kill()
    return figures


async def read(channel: grpc.aio.Channel, metadata: Any, sessions: list[str]) -> dict[str, Any]:
    """Read a tenant's sessions and usage."""
    agent = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated
    money = billing_service_pb2_grpc.BillingServiceStub(channel)  # type: ignore[no-untyped-call] # generated
    found: dict[str, Any] = {"sessions": {}, "messages": {}, "usage": {}}
    as_of = None
    for name, groups in GROUPS.items():
        request = billing.GetUsageRequest(group_by=groups)
        request.start_time.FromJsonString("2026-01-01T00:00:00Z")
        request.end_time.FromJsonString("2027-01-01T00:00:00Z")
        if as_of is not None:
            request.as_of.CopyFrom(as_of)
        answer = await money.GetUsage(request, metadata=metadata)
        as_of = answer.as_of
        found["usage"][name] = MessageToDict(answer, preserving_proto_field_name=True)
    for session in sessions:
        metrics = await agent.GetSessionMetrics(pb.GetSessionMetricsRequest(session_id=session), metadata=metadata)
        found["sessions"][session] = MessageToDict(metrics, preserving_proto_field_name=True)
        page = await agent.ListMessages(pb.ListMessagesRequest(session_id=session, page_size=500), metadata=metadata)
        found["messages"][session] = len(page.messages)
    return found


async def verify(maker: Maker, database: str) -> str:
    """Run `godoty ledger verify`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "godoty_service.cli",
        "ledger",
        "verify",
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join(sys.path),
            "GODOTY_MONGODB_URI": maker.around.mongodb_uri,
            "GODOTY_MONGODB_DATABASE": database,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode()


async def converse(server: Any, service: Any, session: str, scenario: str, model: str) -> None:
    """Take a turn."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        turn = await OLD["Caller"](service, channel).converse(
            f"go @sandbox {scenario}", session_id=session, model=model
        )
        log.info("turn: %s %s %s", session, scenario, turn.failure)


async def usage(server: Any, service: Any, maker: Maker, name: str) -> None:
    """Ask for a tenant's usage: this closes its roll-ups and marks its pending calls."""
    key = maker.around.issue_key(maker.database, service.tenant_id, scopes=frozenset({OLD["Scope"].BILLING}))
    request = billing.GetUsageRequest(group_by=GROUPS[name])
    request.start_time.FromJsonString("2026-01-01T00:00:00Z")
    request.end_time.FromJsonString("2027-01-01T00:00:00Z")
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = billing_service_pb2_grpc.BillingServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        await stub.GetUsage(request, metadata=(("authorization", f"Bearer {key}"),))


async def until(condition: Any) -> None:
    """Wait for a condition, for a minute."""
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise TimeoutError


def decimal(text: str) -> Any:
    """Read an amount."""
    return Decimal(text)


def dump(maker: Maker) -> bytes:
    """Return a database's collections, with their indexes, as compressed BSON: a document each."""
    return gzip.compress(b"".join(map(bson.encode, parts(maker))), mtime=0)


def parts(maker: Maker) -> Iterator[dict[str, Any]]:
    """Read each collection."""
    database = maker.around.mongo[maker.database]
    for name in sorted(database.list_collection_names()):
        documents = [] if name in LEFT_OUT else list(database[name].find())
        yield {"collection": name, "indexes": list(database[name].list_indexes()), "documents": documents}


def restore(maker: Maker, copy: str) -> None:
    """Copy the database."""
    source, target = maker.around.mongo[maker.database], maker.around.mongo[copy]
    for name in source.list_collection_names():
        documents = list(source[name].find())
        if documents:
            target[name].insert_many(documents)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
