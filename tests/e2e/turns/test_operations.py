"""Database operations of a turn: their number, and its write round trips before the request; needs no clock."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from godoty.v1 import admin_service_pb2 as admin_pb
from godoty.v1 import admin_service_pb2_grpc, budget_pb2, tenant_pb2
from godoty.v1 import agent_definition_service_pb2 as definitions_pb
from godoty.v1 import agent_definition_service_pb2_grpc as definitions_pb_grpc
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb
from godoty.v1.budget_pb2 import BUDGET_WINDOW_DAY

from godoty_service import reporting
from godoty_service.attachments import attachments
from godoty_service.metering.open_call import OpenCall
from godoty_service.mongo.collection import Collection
from godoty_service.tenancy.auth import Scope
from godoty_service.webhooks.dispatch import dispatcher
from godoty_service.webhooks.outbox import sweep
from tests.conftest import Start
from tests.e2e.turns.streams import CONTINUE, insert_messages, until_text
from tests.support.caller import Caller
from tests.support.service import Service, soon

WRITES = frozenset(
    {
        *("insert_one", "insert_many", "insert_each", "delete_one"),
        *("update_one", "update_once", "update_many", "update_each", "find_one_and_update"),
    }
)
METHODS = ("find_one", "find", "count", "aggregate", *WRITES, "delete_many")
SLOWLY = 0.3  # seconds added to each write: operations that do not wait for it overtake it
LOG_INTERVAL = 0.2  # seconds
# Background tasks do not interfere.
QUIET: dict[str, Any] = {"heartbeat": 600.0, "lease": 6000.0, "reconcile_interval": 600.0, "turn_watch_interval": 600.0}
QUIET |= {"rollup_interval": 600.0, "key_use_interval": 600.0, "turn_log_interval": LOG_INTERVAL}
QUIET |= {"action_interval": 600.0, "erasure_interval": 600.0}


@dataclass
class Operations:
    """The operations of a turn, in the order of their starts and ends."""

    done: list[tuple[str, str]] = field(default_factory=list)
    steps: list[tuple[str, int]] = field(default_factory=list)  # started or ended, and the operation's index
    sent: int | None = None  # the step at which the first request was sent
    seconds: float = 0.0  # until the turn's log was stored
    pause: float = 0.0  # seconds that each write takes longer

    @property
    def counted(self) -> Counter[str]:
        """The number of operations, by collection and method."""
        return Counter(f"{name}.{method}" for name, method in self.done)

    @property
    def own(self) -> Counter[str]:
        """The turn's own operations: keys, policies, agents and time zones are cached, logs are written for all turns.

        Each second the server reads which users were erased (`users.find`).
        """
        shared = ("api_keys.", "provider_keys.", "policies.", "agents.", "tenants.", "turn_logs.")
        others = {name: count for name, count in self.counted.items() if not name.startswith(shared)}
        return Counter({name: count for name, count in others.items() if name != "users.find"})

    @property
    def write_round_trips_before_the_request(self) -> int:
        """The longest chain of writes before the request, each started after the one before had ended."""
        chain = waited = 0
        depth: dict[int, int] = {}
        for what, which in self.steps[: self.sent]:
            name, method = self.done[which]
            if method not in WRITES or name == "turn_logs":  # no turn waits for its log
                continue
            if what == "begun":
                depth[which] = waited + 1
                chain = max(chain, depth[which])
            else:
                waited = max(waited, depth[which])
        return chain


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> Operations:
    """Record the database operations from now on, without those of tasks that run each minute or more often."""
    for module in (attachments, dispatcher, reporting, sweep):
        monkeypatch.setattr(module, "run_every", _never)
    found = Operations()

    def wrapped(method: str) -> Callable[..., Any]:
        original = getattr(Collection, method)

        async def call(collection: Collection, *given: Any, **named: Any) -> Any:
            done, steps = found.done, found.steps
            which = len(done)
            done.append((collection.name, method))
            steps.append(("begun", which))
            try:
                return await original(collection, *given, **named)
            finally:
                if method in WRITES:
                    await asyncio.sleep(found.pause)
                steps.append(("ended", which))

        return call

    for method in METHODS:
        monkeypatch.setattr(Collection, method, wrapped(method))
    sending = OpenCall.sending

    def send(call: OpenCall) -> None:
        found.sent = found.sent or len(found.steps)
        sending(call)

    monkeypatch.setattr(OpenCall, "sending", send)
    return found


async def _never(*_: object, **__: object) -> None:
    await asyncio.Event().wait()


async def turn(caller: Caller, operations: Operations, text: str, session_id: str, **fields: Any) -> Operations:
    """Run a turn, and return its operations once its log is stored."""
    database = caller.service.database
    operations.done, operations.steps, operations.sent = [], [], None
    begun = time.monotonic()
    taken = await caller.converse(text, session_id=session_id, **fields)
    assert taken.finished
    ended = {"turn_id": taken.responses[0].turn_id, "ended": True}
    await soon(lambda: database["turn_logs"].count_documents(ended) == 1)
    return Operations(operations.done, operations.steps, operations.sent, time.monotonic() - begun)


async def test_turn_with_one_model_call_is_bounded(
    serve: Start, connect: Callable[[Service], Caller], operations: Operations
) -> None:
    """At most twelve operations, and at most two write round trips before the request, in new and old sessions."""
    caller = connect(await serve(**QUIET))
    await caller.converse("hi", session_id="old")
    await caller.converse("hi", session_id="earlier", user="ada")  # from now on the reference is cached
    operations.pause = SLOWLY
    cases: tuple[tuple[str, dict[str, Any], int], ...] = (
        ("old", {}, 9),
        ("old", {"request_id": "one"}, 10),  # its id is looked up before anything is acquired
        ("new", {"user": "ada"}, 8),  # it has no history to read
    )
    for session_id, fields, expected in cases:
        found = await turn(caller, operations, "hello", session_id, **fields)

        assert sum(found.own.values()) == expected, found.counted
        flushes = 1 + found.seconds / LOG_INTERVAL  # one each interval, for all turns together
        assert found.counted["turn_logs.insert_each"] <= flushes
        assert found.write_round_trips_before_the_request <= 2, found


async def test_turn_of_a_tenants_agent_has_the_same_operations(
    serve: Start,
    connect: Callable[[Service], Caller],
    operations: Operations,
    issue: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its definition is cached, and what the cache needs to be current is read once in two seconds for all turns."""
    monkeypatch.setattr("godoty_service.agents.store._CACHED_FOR", 600.0)
    service = await serve(**QUIET)
    caller = connect(service)
    stub = definitions_pb_grpc.AgentDefinitionServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
    for description in ("one", "two"):
        await stub.ApplyAgent(
            definitions_pb.ApplyAgentRequest(definition={"name": "support", "description": description}),
            metadata=(("authorization", f"Bearer {issue(service, scopes=frozenset({Scope.AGENTS}))}"),),
        )
    counted = {}
    for session_id, fields in {"plain": {}, "named": {"agent": "support"}, "pinned": {"agent": "support@1"}}.items():
        await caller.converse("hi", session_id=session_id, **fields)
        found = await turn(caller, operations, "hello", session_id)
        assert not [name for name in found.counted if name.startswith("agent")]
        counted[session_id] = found.own

    assert counted["named"] == counted["pinned"] == counted["plain"]


async def test_long_session_has_same_operations_as_short_one(
    serve: Start, connect: Callable[[Service], Caller], operations: Operations
) -> None:
    """A turn after 4,000 messages has the same operations as one after ten."""
    caller = connect(await serve(**QUIET))
    counted = {}
    for session_id, messages in (("short", 8), ("long", 3_998)):
        await caller.converse("hi", session_id=session_id)
        insert_messages(caller.service, session_id, messages)
        counted[session_id] = (await turn(caller, operations, "hello", session_id)).own
        assert (caller.service.session(session_id) or {})["message_count"] == messages + 4

    assert counted["short"] == counted["long"]


async def test_further_call_of_loop_has_only_writes(
    serve: Start, connect: Callable[[Service], Caller], operations: Operations
) -> None:
    """A loop's call writes its entry, its id, its end and two messages, and reads nothing."""
    caller = connect(await serve(**QUIET))
    await caller.converse("hi", session_id="warm")
    one, four = [
        await turn(caller, operations, f"@sandbox tool-loop calls={calls} tool=calculator", "warm") for calls in (1, 4)
    ]
    more = four.own - one.own

    assert more.total() == 3 * 5, more
    assert all(name.split(".")[1] in WRITES for name in more)


async def test_hard_budget_costs_two_writes_and_no_read(
    serve: Start, connect: Callable[[Service], Caller], operations: Operations, issue: Callable[..., str]
) -> None:
    """A call reserves and settles its bound; the budget is read once, unless a call may exceed what remains of it."""
    service = await serve(**QUIET)
    caller = connect(service)
    await caller.converse("hi", session_id="warm")
    plain = (await turn(caller, operations, "hello", "warm")).own
    budget = budget_pb2.Budget(window=BUDGET_WINDOW_DAY, limit_usd="0.05", hard=True)
    async with grpc.aio.insecure_channel(service.target) as channel:
        stub = admin_service_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        await stub.UpdatePolicy(
            admin_pb.UpdatePolicyRequest(tenant_id=service.tenant_id, policy=tenant_pb2.Policy(budgets=[budget])),
            metadata=(("authorization", f"Bearer {issue(service, scopes=frozenset({Scope.ADMIN}))}"),),
        )
    operations.pause = SLOWLY
    first, second = [await turn(caller, operations, "hello", "warm") for _ in range(2)]

    assert first.own - second.own == Counter({"budgets.find_one": 1})
    assert second.own - plain == Counter({"budgets.update_one": 1, "budgets.find_one_and_update": 1})
    assert second.write_round_trips_before_the_request <= 2


async def test_turns_are_read_without_a_write(
    serve: Start, connect: Callable[[Service], Caller], operations: Operations
) -> None:
    """GetTurn and a page of turns cost the same few reads, for one turn and for several, ended or running."""
    caller = connect(await serve(**QUIET))
    for number in range(4):
        await turn(caller, operations, "hello", f"s{number}")
    call = caller.start("@sandbox plain tokens=9 hold_after=2 hold=reads", session_id="runs", on_disconnect=CONTINUE)
    running = (await until_text(call, "t1 "))[0]
    stored = {"turn_id": running.turn_id, "generation_id": {"$type": "string"}}
    await soon(lambda: caller.service.database["ledger"].count_documents(stored) == 1)
    await soon(lambda: caller.service.database["messages"].count_documents({"turn_id": running.turn_id}) == 1)
    costs = {}
    for method, request in (
        ("GetTurn", pb.GetTurnRequest(turn_id=running.turn_id)),
        ("ListTurns", pb.ListTurnsRequest()),
        ("ListTurns", pb.ListTurnsRequest(state=turn_pb.TURN_STATE_RUNNING)),
    ):
        operations.done, operations.steps = [], []
        await caller.call(method, request)
        costs[str(request)] = operations.own
    caller.service.backends.allow("reads")
    await soon(lambda: caller.service.database["turn_logs"].count_documents({"ended": True}) == 5)

    reads = Counter({"turns.find": 1, "sessions.find": 1, "ledger.find": 1})
    assert list(costs.values()) == [reads, reads, reads + Counter({"sessions.find": 1})]
