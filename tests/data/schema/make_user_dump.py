"""Make a dump of a database of schema 1 with end users, by that build's own servers, and record their usage.

Run it in a worktree of the last build of schema 1 (e7c6548), with its packages first on the path (README.md has the
command).
"""

import asyncio
import gzip
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import bson
import grpc
from godoty.v1 import billing_service_pb2 as billing
from godoty.v1 import billing_service_pb2_grpc

from godoty_service.tenancy.auth import Scope
from tests.conftest import server_environment
from tests.faults.cluster import ServerProcess
from tests.support.backends import Backends
from tests.support.caller import Caller, read
from tests.support.service import Service

ANN, BOB = "Ann Lövelace", "Bob Lövelace"
LEFT_OUT = {"catalogues", "api_keys"}  # large and refetched; secrets
ENVIRONMENT = {
    "GODOTY_LEASE": "3",
    "GODOTY_HEARTBEAT": "0.3",
    "GODOTY_TURN_LOG_RETENTION": "31536000",
    "GODOTY_RECORD_PATIENCE": "604800",
}


async def main(target: Path) -> None:
    """Make the database, dump it, and record what it has of each end user."""
    with tempfile.TemporaryDirectory() as folder, Backends(Path(folder) / "mongo", None) as backends:
        name = backends.new_database()
        environment = server_environment(backends, name) | ENVIRONMENT
        servers = [ServerProcess(environment=environment, log=Path(folder) / f"{each}.log") for each in range(3)]
        await servers[0].start()
        services = [await asyncio.to_thread(backends.service, servers[0].address, name) for _ in range(2)]
        for service in services:
            await converse(service)
        await servers[0].stop()
        for server in servers[1:]:  # a session is taken over from a killed server, whose turn names the user first
            await server.start()
            await asyncio.sleep(4)  # the lease of the server before is over
            turns = [asyncio.create_task(interrupted(each.at(server.address))) for each in services]
            await asyncio.sleep(2)
            await server.kill()
            await asyncio.gather(*turns)
        content = b"".join(bson.encode(each) for each in parts(backends.mongo[name]))
        last = ServerProcess(environment=environment, log=Path(folder) / "last.log")
        await last.start()
        figures = {each.tenant_id: await asyncio.to_thread(usage, each.at(last.address)) for each in services}
        await last.kill()
    await asyncio.to_thread(target.mkdir, exist_ok=True)
    (target / "dump.bson.gz").write_bytes(gzip.compress(content, mtime=0))
    (target / "figures.json").write_text(json.dumps(figures, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


async def converse(service: Service) -> None:
    """Take turns of two users, and of none, in several sessions."""
    async with grpc.aio.insecure_channel(service.target) as channel:
        caller = Caller(service, channel)
        for session_id, text, user in (
            ("talk", "@sandbox plain tokens=6", ANN),
            ("talk", "@sandbox tool-loop calls=3 tool=calculator", ANN),
            ("talk", "@sandbox plain tokens=6", ""),
            ("think", "@sandbox reasoning", ANN),
            ("bobs", "@sandbox plain tokens=4", BOB),
            ("late", "@sandbox plain tokens=4", ""),
            ("none", "@sandbox plain tokens=4", ""),
        ):
            turn = await caller.converse(text, session_id=session_id, user=user)
            assert turn.finished


async def interrupted(service: Service) -> None:
    """Take a turn that does not end before its server is killed."""
    async with grpc.aio.insecure_channel(service.target) as channel:
        await read(Caller(service, channel).start("@sandbox slow tokens=200 delay_ms=100", session_id="late", user=BOB))


def usage(service: Service) -> dict[str, int]:
    """Return the number of model calls by end user."""
    key = service.backends.issue_key(service.database.name, service.tenant_id, scopes=frozenset({Scope.BILLING}))
    request = billing.GetUsageRequest(group_by=["USAGE_GROUP_USER"])
    request.start_time.FromJsonString("2026-01-01T00:00:00Z")
    request.end_time.FromJsonString("2027-01-01T00:00:00Z")
    with grpc.insecure_channel(service.target) as channel:
        stub = billing_service_pb2_grpc.BillingServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        answer = stub.GetUsage(request, metadata=(("authorization", f"Bearer {key}"),))
    return {row.keys[0].user: row.totals.model_calls for row in answer.rows}


def parts(database: Any) -> list[dict[str, Any]]:
    """Return a database's collections with their indexes."""
    return [
        {
            "collection": name,
            "indexes": list(database[name].list_indexes()),
            "documents": [] if name in LEFT_OUT else list(database[name].find()),
        }
        for name in sorted(database.list_collection_names())
    ]


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
