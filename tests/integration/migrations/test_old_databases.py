"""Databases of builds from before schema versions are migrated: every figure is as that build reported it."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from godoty.v1 import billing_service_pb2 as billing
from godoty.v1 import billing_service_pb2_grpc
from google.protobuf.json_format import MessageToDict

from godoty_service.tenancy.auth import Scope
from tests.conftest import StartProcess
from tests.integration.migrations.dumps import BUILDS, figures, known_part, restore
from tests.support.backends import Backends
from tests.support.caller import Caller
from tests.support.invoking import invoke
from tests.support.service import Deployment, Service, soon

_AS_RECORDED = {  # nothing is settled, rolled up or taken over meanwhile
    "GODOTY_RECONCILE_INTERVAL": "3600",
    "GODOTY_ROLLUP_INTERVAL": "3600",
    "GODOTY_RECORD_PATIENCE": "604800",
}
_FIGURE = re.compile(r"\d+")
_GROUPS = {"all": [], "model": ["USAGE_GROUP_MODEL"], "day": ["USAGE_GROUP_DAY"], "session": ["USAGE_GROUP_SESSION"]}


def tenant_of(backends: Backends, target: str, database: str, tenant_id: str) -> Service:
    """Return a tenant of a restored database, with a new key."""
    key = backends.issue_key(database, tenant_id, scopes=frozenset({Scope.CONVERSE, Scope.BILLING}))
    deployment = Deployment(target=target, database=backends.mongo[database], backends=backends)
    return Service(deployment=deployment, tenant_id=tenant_id, api_key=key, key_id="")


async def usage(caller: Caller, groups: list[str], as_of: str = "") -> Any:
    """Return a tenant's usage."""
    request = billing.GetUsageRequest(group_by=groups)
    request.start_time.FromJsonString("2026-01-01T00:00:00Z")
    request.end_time.FromJsonString("2027-01-01T00:00:00Z")
    if as_of:
        request.as_of.FromJsonString(as_of)
    stub = billing_service_pb2_grpc.BillingServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
    answer = await stub.GetUsage(request, metadata=caller.service.metadata)
    found = MessageToDict(answer, preserving_proto_field_name=True)
    for row in found.get("rows", []):
        if "keys" in row:
            row["keys"] = [_text_of(key) for key in row["keys"]]
    return found


def _text_of(key: dict[str, str]) -> str:
    """Return a group's key as the contract had it when the figures were recorded."""
    ((name, value),) = key.items() if key else (("", ""),)
    return value.replace("Z", "+00:00") if name == "time" else value


@pytest.mark.parametrize("build", BUILDS)
async def test_totals_and_proofs_are_as_before_the_migration(
    build: str, backends: Backends, serve_process: StartProcess, connect: Callable[[Service], Caller]
) -> None:
    """Sessions, usage and `godoty ledger verify`; then interrupted sessions take another turn, and verify holds."""
    name = backends.new_database()
    await asyncio.to_thread(restore, build, backends.mongo[name])
    recorded = figures(build)
    process, service = await serve_process(database=name, **_AS_RECORDED)

    assert backends.mongo[name]["schema"].find_one({"_id": "schema"}) == {"_id": "schema", "version": 2}
    proof = await asyncio.to_thread(invoke, service, "ledger", "verify")
    assert _FIGURE.findall(proof) == _FIGURE.findall(recorded["verify"])  # sessions, entries, differences
    for tenant_id, before in recorded["tenants"].items():
        caller = connect(tenant_of(backends, process.address, name, tenant_id))
        for session_id, metrics in before["sessions"].items():
            now = MessageToDict(await caller.metrics(session_id), preserving_proto_field_name=True)

            assert known_part(now, metrics) == metrics, session_id
            assert len(await caller.messages(session_id)) == before["messages"][session_id]
        as_of = before["usage"]["all"]["as_of"]
        for group, rows in before["usage"].items():
            assert known_part(await usage(caller, _GROUPS[group], as_of), rows) == rows

    for tenant_id, before in recorded["tenants"].items():
        caller = connect(tenant_of(backends, process.address, name, tenant_id))
        for session_id in ("cut", "twice", "more0"):
            turn = await caller.converse("go on", session_id=session_id)
            turns = int(before["sessions"][session_id]["totals"]["turns"])
            assert turn.finished.session_totals.turns == turns + 1
    assert " 0 differences" in await asyncio.to_thread(invoke, service, "ledger", "verify")
    await process.stop()


@pytest.mark.parametrize("build", BUILDS)
async def test_open_calls_and_rollups_of_an_old_database_are_finished(
    build: str, backends: Backends, serve_process: StartProcess, connect: Callable[[Service], Caller]
) -> None:
    """Pending calls are given up, the unfinished roll-up is finished, reservations are settled, and verify holds."""
    name = backends.new_database()
    database = backends.mongo[name]
    await asyncio.to_thread(restore, build, database)
    quick = {"GODOTY_RECORD_PATIENCE": "1", "GODOTY_RECORD_PATIENCE_WITH_USAGE": "1", "GODOTY_ROLLUP_INTERVAL": "0.2"}
    process, service = await serve_process(database=name, **quick)

    await soon(
        lambda: (
            not (
                database["ledger"].count_documents({"$or": [{"state": "pending"}, {"rollup_state": {"$exists": True}}]})
                or database["usage_rollup_state"].count_documents({"batch": {"$exists": True}})
                or database["budgets"].count_documents({"open": {"$ne": {}}})
            )
        )
    )

    assert " 0 differences" in await asyncio.to_thread(invoke, service, "ledger", "verify")
    for tenant_id, before in figures(build)["tenants"].items():
        caller = connect(tenant_of(backends, process.address, name, tenant_id))
        totals = before["usage"]["all"]["totals"]
        found = (await usage(caller, []))["totals"]
        assert (found["cost_usd"], found["model_calls"], found["turns"]) == (
            totals["cost_usd"],
            totals["model_calls"],
            totals["turns"],
        )
    await process.stop()
