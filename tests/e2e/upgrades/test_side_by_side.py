"""Servers of schema 2 and of a made-up schema 3 run side by side on one database during a rolling upgrade."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
from bson import Decimal128
from godoty.v1 import billing_service_pb2 as billing
from godoty.v1 import billing_service_pb2_grpc
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.tenancy.auth import Scope
from tests.conftest import StartProcess
from tests.faults.cluster import ServerProcess
from tests.support.caller import Caller, Failure, read
from tests.support.invoking import invoke
from tests.support.later_schema import LATER_SCHEMA
from tests.support.service import Service

_CLIENTS = 4
_PAUSE = 0.2  # seconds between two turns of a client: the servers that start need the cores
_SCENARIOS = ("plain tokens=6", "tool-loop calls=2", "slow tokens=20 first_delay_ms=20 delay_ms=20", "reasoning")
_DRAIN = {"GODOTY_DRAIN_GRACE": "30"}


@dataclass
class Load:
    """Clients that take turns, each in a session of its own, at any of the servers that a balancer names.

    Attributes:
        targets: The addresses of the servers.
        served: The turns that have ended, by address.
        starting: The turns that were sent and have not started, by address.
        failures: The others.
    """

    service: Service
    targets: list[str]
    served: Counter[str] = field(default_factory=Counter)
    starting: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    stopping: bool = False

    async def run(self, number: int) -> None:
        """Take turns until the load stops."""
        dice = random.Random(number)
        while not self.stopping:
            target = dice.choice(self.targets)
            self.starting[target] += 1
            async with grpc.aio.insecure_channel(target) as channel:
                text = f"go @sandbox {dice.choice(_SCENARIOS)}"
                caller = Caller(self.service, channel)
                call = caller.start(text, session_id=f"s{number}", on_busy=turn_pb.ON_BUSY_WAIT, timeout=120.0)
                try:
                    await anext(aiter(call))
                except grpc.aio.AioRpcError as error:
                    self.failures.append(Failure.of(error))
                finally:
                    self.starting[target] -= 1
                turn = await read(call)
            if turn.failure is not None:
                self.failures.append(turn.failure)
            self.served[target] += 1
            await asyncio.sleep(_PAUSE)

    async def retire(self, server: ServerProcess) -> None:
        """Stop a server once the turns that were sent to it have started there: they are drained."""
        self.targets.remove(server.address)
        while self.starting[server.address]:
            await asyncio.sleep(0.01)
        await server.stop()

    async def reaches(self, target: str, turns: int = 3) -> None:
        """Wait until a server has served some more turns."""
        wanted = self.served[target] + turns
        async with asyncio.timeout(180):
            while self.served[target] < wanted:
                await asyncio.sleep(0.05)


async def test_rolling_upgrade_fails_no_turn(serve_process: StartProcess, new_database: str) -> None:
    """One server after the other is replaced; sessions go on at servers of both schemas, also after a way back."""
    first, service = await serve_process(database=new_database, **_DRAIN)
    second, _ = await serve_process(database=new_database, **_DRAIN)
    load = Load(service, [first.address, second.address])
    schemas = service.database["schema"]
    clients = [asyncio.create_task(load.run(number)) for number in range(_CLIENTS)]
    await load.reaches(first.address)

    await load.retire(first)
    third, _ = await serve_process(database=new_database, **_DRAIN, **{LATER_SCHEMA: "1"})
    load.targets.append(third.address)
    assert schemas.find_one({"_id": "schema"}) == {"_id": "schema", "version": 3}
    await load.reaches(third.address)
    await load.reaches(second.address)
    again, _ = await serve_process(database=new_database, **_DRAIN)  # a server of schema 2 starts on version 3
    load.targets.append(again.address)
    await load.reaches(again.address)
    for old in (second, again):
        await load.retire(old)
    await load.reaches(third.address)
    load.stopping = True
    await asyncio.gather(*clients)

    assert load.failures == []
    entries = service.database["ledger"]
    for written in ({"tier": "flex"}, {"cost_source": "contract"}, {"tier": "standard"}, {"tier": None}):
        assert entries.count_documents(written), written
    assert " 0 differences" in await asyncio.to_thread(invoke, service, "ledger", "verify")


async def test_entry_in_a_later_state_counts_as_unresolved(
    serve_process: StartProcess, connect: Callable[[Service], Caller], new_database: str
) -> None:
    """In the session's totals, in usage, rolled up or not, and in the proof."""
    process, service = await serve_process(database=new_database, GODOTY_ROLLUP_INTERVAL="3600")
    key = service.backends.issue_key(new_database, service.tenant_id, scopes=frozenset({Scope.BILLING}))
    caller = connect(service)
    await caller.converse("hello")
    entry = service.entry_documents("talk")[0]
    later = {"_id": "call_later", "number": 2, "state": "disputed", "rollup_state": "ready", "tier": "flex"}
    service.database["ledger"].insert_one(entry | later | {"upper_bound": Decimal128("0.5"), "generation_id": "gen-2"})
    service.database["sessions"].update_one(
        {"_id": entry["session_uid"]}, {"$set": {"totals_stale": True}, "$inc": {"totals_revision": 1}}
    )

    async def usage() -> tuple[int, int, str]:
        request = billing.GetUsageRequest()
        request.start_time.FromDatetime(entry["start_time"].replace(hour=0))
        request.end_time.seconds = request.start_time.seconds + 2 * 86_400
        stub = billing_service_pb2_grpc.BillingServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
        totals = (await stub.GetUsage(request, metadata=(("authorization", f"Bearer {key}"),))).totals
        return totals.model_calls, totals.unresolved_calls, totals.unresolved_bound_usd

    totals = (await caller.metrics()).totals
    expected = (2, 1, "0.5")
    assert (totals.model_calls, totals.unresolved_calls, totals.unresolved_bound_usd) == expected
    assert await usage() == expected
    assert " 0 differences" in await asyncio.to_thread(invoke, service, "ledger", "verify")
    await process.stop()
