"""A hard budget is never exceeded (I4): not by parallel turns, not by several servers, not by a killed one."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from godoty.v1 import admin_service_pb2 as admin_pb
from godoty.v1 import admin_service_pb2_grpc, budget_pb2, tenant_pb2
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb
from godoty.v1.budget_pb2 import BUDGET_WINDOW_DAY

from godoty_service.bootstrap.components import Components, open_components
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.budgets.store import BudgetStatus
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.policies import Policy, PolicyChange
from tests.faults.cluster import Cluster, open_cluster
from tests.support.backends import ME
from tests.support.caller import Caller, Failure, stub_of
from tests.support.service import Service, eventually, soon

DAY = BudgetWindow.DAY


@pytest.fixture
async def cluster(mongodb_uri: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster of its own."""
    name = f"godoty_test_budget_{secrets.token_hex(4)}"
    async with open_cluster(mongodb_uri=mongodb_uri, name=name, directory=tmp_path) as opened:
        yield opened


async def set_policy(cluster: Cluster, policy: Policy) -> None:
    """Set the tenant's policy, as AdminService does."""
    await cluster.components.administration.update_policy(ME, cluster.tenant_id, PolicyChange(policy=policy))


async def converse(cluster: Cluster, address: str, text: str, **fields: Any) -> tuple[str, list[turn_pb.TurnEvent]]:
    """Run a turn; return its failure reason (empty: none) and its responses."""
    responses: list[turn_pb.TurnEvent] = []
    async with grpc.aio.insecure_channel(address) as channel:
        call = stub_of(channel).Converse(
            pb.ConverseRequest(text=text, **fields), metadata=cluster.metadata, timeout=180
        )
        try:
            async for response in call:
                responses.append(response.event)  # noqa: PERF401 - what came before an error counts
        except grpc.aio.AioRpcError as error:
            return Failure.of(error).reason or error.code().name, responses
    return "", responses


async def calls_of(cluster: Cluster) -> list[ModelCall]:
    """Return all calls of the ledger."""
    return [
        entry async for entry in cluster.components.accounting.ledger.by_session(None) if isinstance(entry, ModelCall)
    ]


async def one_bound(cluster: Cluster, address: str) -> Decimal:
    """Return the upper bound of the tests' turn, from the ledger."""
    reason, _ = await converse(cluster, address, "@sandbox slow tokens=4 first_delay_ms=150 delay_ms=20")
    assert reason == ""
    bounds = [call.upper_bound for call in await calls_of(cluster)]
    assert bounds[0] is not None
    return bounds[0]


async def test_parallel_turns_on_three_servers_stay_below_the_limit(cluster: Cluster) -> None:
    """40 turns at once do not exceed a limit of 10 upper bounds; all reservations are released."""
    servers = [cluster.server(GODOTY_LEASE="60", GODOTY_HEARTBEAT="2", GODOTY_STORAGE_TIMEOUT="60") for _ in range(3)]
    await asyncio.gather(*(server.start() for server in servers))
    try:
        await set_policy(cluster, Policy(max_output_tokens=20))
        bound = await one_bound(cluster, servers[0].address)
        limit = bound * 10
        await set_policy(cluster, Policy(max_output_tokens=20, budgets=(Budget(window=DAY, limit=limit, hard=True),)))
        await asyncio.sleep(3.1)  # until the servers know of it

        async def watch() -> Decimal:
            highest = Decimal(0)
            while True:
                (status,) = await cluster.components.budgets.service.status(cluster.tenant_id)
                highest = max(highest, status.spent + status.reserved)
                assert highest <= limit
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        outcomes = await asyncio.gather(
            *(
                converse(cluster, servers[n % 3].address, "@sandbox slow tokens=4 first_delay_ms=150 delay_ms=20")
                for n in range(40)
            )
        )
        assert not watching.done()
        watching.cancel()
        reasons = Counter(reason for reason, _ in outcomes)
        (status,) = await cluster.components.budgets.service.status(cluster.tenant_id)
        settled = sum((call.cost or Decimal(0) for call in await calls_of(cluster)), Decimal(0))

        assert set(reasons) <= {"", "BUDGET_RESERVED", "BUDGET_SPENT"}, reasons
        assert reasons[""] >= 9
        assert reasons["BUDGET_RESERVED"] + reasons["BUDGET_SPENT"] > 0
        assert (status.reserved, status.spent) == (Decimal(0), settled)
        assert settled <= limit
        assert (await cluster.compare_with_invoice()).faults == []
    finally:
        for server in servers:
            await server.stop()


async def test_killed_server_reservations_are_settled_by_reconciliation(cluster: Cluster) -> None:
    """The cost or upper bound of a dead server's calls is spent; their reservations are gone."""
    victim, other = cluster.server(), cluster.server(GODOTY_RECORD_PATIENCE="3")
    await asyncio.gather(victim.start(), other.start())
    try:
        budget = Budget(window=DAY, limit=Decimal(1), hard=True)
        await set_policy(cluster, Policy(max_output_tokens=200, budgets=(budget,)))
        await asyncio.sleep(3.1)
        turns = [
            asyncio.create_task(converse(cluster, victim.address, "@sandbox plain tokens=50 hold_after=5 hold=victim"))
            for _ in range(5)
        ]
        async with asyncio.timeout(180):
            while [bool(call.generation_id) for call in await calls_of(cluster)] != [True] * 5:
                await asyncio.sleep(0.05)
        (during,) = await cluster.components.budgets.service.status(cluster.tenant_id)
        await victim.kill()
        await asyncio.gather(*turns)
        await cluster.settled(within=120)
        async with asyncio.timeout(180):
            while True:
                (after,) = await cluster.components.budgets.service.status(cluster.tenant_id)
                if after.reserved == 0:
                    break
                await asyncio.sleep(0.1)

        calls = await calls_of(cluster)
        charged = sum(
            ((call.cost if call.state is CallState.SETTLED else call.upper_bound) or Decimal(0) for call in calls),
            Decimal(0),
        )
        assert during.reserved > 0
        assert after.spent == charged
        assert (await cluster.compare_with_invoice()).faults == []
    finally:
        await victim.stop()
        await other.stop()


@pytest.fixture
async def components(service: Service) -> AsyncIterator[Components]:
    """The components of another server on the shared server's database."""
    settings = service.backends.settings(service.database.name)
    async with open_components(settings, indexes=False) as opened:
        yield opened


@pytest.fixture
def budget_setter(caller: Caller, components: Components) -> "BudgetSetter":
    """Sets the policy of a tenant of the shared server, on the other one."""
    return BudgetSetter(caller, components)


class BudgetSetter:
    """Sets a tenant's policy by another server than the one that its turns run on."""

    def __init__(self, caller: Caller, components: Components) -> None:
        self.caller = caller
        self._components = components

    async def set(self, *budgets: Budget, **others: Any) -> None:
        """Set it."""
        change = PolicyChange(policy=Policy(budgets=budgets, **others))
        await self._components.administration.update_policy(ME, self.caller.service.tenant_id, change)

    async def statuses(self) -> list[BudgetStatus]:
        """Return the charges of each budget."""
        return await self._components.budgets.service.status(self.caller.service.tenant_id)

    def settled(self) -> Decimal:
        """Return the cost of the session's calls; each of them is on the invoice."""
        entries = self.caller.service.entries("talk")
        cost = sum((each.cost or Decimal(0) for each in entries), Decimal(0))
        assert self.caller.service.invoiced("talk") == cost
        assert len(self.caller.service.invoice("talk")) == len(entries)
        return cost


async def test_turn_with_an_answer_ends_at_its_budget(caller: Caller, budget_setter: BudgetSetter) -> None:
    """A loop whose next call would not fit ends with stop reason BUDGET, not with an error; the next turn works."""
    await budget_setter.set(max_output_tokens=400)
    turn = await caller.converse("@sandbox tool-loop calls=8", limits=turn_pb.TurnLimits(max_cost_usd="0.0015"))

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_BUDGET
    assert 1 <= turn.finished.turn_totals.model_calls < 8
    assert Decimal(turn.finished.turn_totals.cost_usd) <= Decimal("0.0015")
    assert (await caller.converse("and now?")).finished


async def test_call_without_finite_bound_is_refused_under_a_hard_budget(
    caller: Caller, budget_setter: BudgetSetter
) -> None:
    """A router's price depends on its choice: under a hard limit nothing is sent to it."""
    await budget_setter.set(Budget(window=DAY, limit=Decimal(1), hard=True))
    refused = await caller.converse("hello", model="openrouter/auto")
    too_low = await caller.converse("hello", limits=turn_pb.TurnLimits(max_cost_usd="0.0000001"))

    assert [each.failure and each.failure.reason for each in (refused, too_low)] == [
        "COST_UNBOUNDED",
        "MAX_COST_TOO_LOW",
    ]
    assert caller.service.requests("talk") == []


async def test_alerts_of_a_budget_are_sent_once(caller: Caller, budget_setter: BudgetSetter) -> None:
    """At 50, 80 and 100 per cent the turn gets an alert, also from a soft budget, which refuses nothing."""
    await budget_setter.set(Budget(window=BudgetWindow.TOTAL, limit=Decimal("0.0003"), hard=False))
    alerted: list[int] = []
    for _ in range(8):
        turn = await caller.converse("hello")
        assert turn.finished
        alerted += [each.budget_alert.percent for each in turn.responses if each.HasField("budget_alert")]
    (status,) = await budget_setter.statuses()

    assert alerted == sorted(set(alerted))
    assert alerted[-1] == 100
    assert status.spent > status.limit


async def test_budget_set_during_a_turn_applies_to_its_next_call(caller: Caller, issue: Callable[..., str]) -> None:
    """A loop of eight calls stops after the first, with stop reason BUDGET."""
    hold = caller.service.tenant_id
    turn = caller.start(f"@sandbox tool-loop calls=8 hold_after=1 hold={hold}")
    await soon(lambda: caller.service.requests("talk"))
    admin = admin_service_pb2_grpc.AdminServiceStub(caller.channel)  # type: ignore[no-untyped-call] # generated
    key = issue(caller.service, scopes=frozenset({Scope.ADMIN}))
    budget = budget_pb2.Budget(window=BUDGET_WINDOW_DAY, limit_usd="0.00006", hard=True)
    policy = admin_pb.UpdatePolicyRequest(
        tenant_id=caller.service.tenant_id, policy=tenant_pb2.Policy(budgets=[budget])
    )
    await admin.UpdatePolicy(policy, metadata=(("authorization", f"Bearer {key}"),))
    caller.service.backends.allow(hold)
    finished = [each async for each in turn][-1].turn_finished

    assert finished.stop_reason == turn_pb.STOP_REASON_BUDGET
    assert 1 <= finished.turn_totals.model_calls < 8


async def test_calls_of_a_server_that_does_not_know_the_budget_yet_count(
    caller: Caller, budget_setter: BudgetSetter
) -> None:
    """Another server has just set it: nothing is reserved here, but all of it is charged in the end."""
    hold = caller.service.tenant_id
    assert (await caller.converse("hello")).finished
    turn = asyncio.create_task(caller.converse(f"@sandbox tool-loop calls=4 hold_after=1 hold={hold}"))
    await soon(lambda: len(caller.service.requests("talk")) == 2)
    await budget_setter.set(*(Budget(window=window, limit=Decimal(1), hard=True) for window in BudgetWindow))
    before = await budget_setter.statuses()
    caller.service.backends.allow(hold)
    assert (await turn).finished.turn_totals.model_calls == 4
    settled = budget_setter.settled()

    async def all_charged() -> bool:
        return [status.spent for status in await budget_setter.statuses()] == [settled] * 3

    assert all(status.spent < settled for status in before)
    await eventually(all_charged)


async def test_spending_before_a_budget_was_set_counts(caller: Caller, budget_setter: BudgetSetter) -> None:
    """A budget set in mid-month starts with the charges of the ledger."""
    assert (await caller.converse("hello")).finished
    assert (await caller.converse("hello again")).finished
    await budget_setter.set(Budget(window=BudgetWindow.MONTH, limit=Decimal(1), hard=True))
    (status,) = await budget_setter.statuses()

    assert status.spent == budget_setter.settled() > 0
