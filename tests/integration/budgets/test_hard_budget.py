"""A hard budget is never exceeded (I4): not by parallel turns, not by several servers, not by a killed one."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator
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

from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.policies import Policy, PolicyChange
from tests.faults.cluster import Cluster, open_cluster
from tests.support.backends import ME
from tests.support.caller import Failure, stub_of

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
    """100 turns at once do not exceed a limit of 10 upper bounds; all reservations are released."""
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
                for n in range(100)
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
        async with asyncio.timeout(60):
            while [bool(call.generation_id) for call in await calls_of(cluster)] != [True] * 5:
                await asyncio.sleep(0.05)
        (during,) = await cluster.components.budgets.service.status(cluster.tenant_id)
        await victim.kill()
        await asyncio.gather(*turns)
        await cluster.settled(within=120)
        async with asyncio.timeout(60):
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


async def test_turn_with_an_answer_ends_at_its_budget(cluster: Cluster) -> None:
    """A loop whose next call would not fit ends with stop reason BUDGET, not with an error; the next turn works."""
    server = cluster.server()
    await server.start()
    try:
        await set_policy(cluster, Policy(max_output_tokens=400))
        reason, responses = await converse(
            cluster,
            server.address,
            "@sandbox tool-loop calls=8",
            session_id="loop",
            limits=turn_pb.TurnLimits(max_cost_usd="0.0015"),
        )
        finished = responses[-1].turn_finished
        again, _ = await converse(cluster, server.address, "and now?", session_id="loop")

        assert reason == again == ""
        assert finished.stop_reason == turn_pb.STOP_REASON_BUDGET
        assert 1 <= finished.turn_totals.model_calls < 8
        assert Decimal(finished.turn_totals.cost_usd) <= Decimal("0.0015")
    finally:
        await server.stop()


async def test_call_without_finite_bound_is_refused_under_a_hard_budget(cluster: Cluster) -> None:
    """A router's price depends on its choice: under a hard limit nothing is sent to it."""
    server = cluster.server()
    await server.start()
    try:
        await set_policy(cluster, Policy(budgets=(Budget(window=DAY, limit=Decimal(1), hard=True),)))
        refused, _ = await converse(cluster, server.address, "hello", model="openrouter/auto")
        too_low, _ = await converse(
            cluster, server.address, "hello", limits=turn_pb.TurnLimits(max_cost_usd="0.0000001")
        )

        assert (refused, too_low) == ("COST_UNBOUNDED", "MAX_COST_TOO_LOW")
        assert cluster.sandbox.invoice.lines() == []
    finally:
        await server.stop()


async def test_alerts_of_a_budget_are_sent_once(cluster: Cluster) -> None:
    """At 50, 80 and 100 per cent the turn gets an alert, also from a soft budget, which refuses nothing."""
    server = cluster.server()
    await server.start()
    try:
        budget = Budget(window=BudgetWindow.TOTAL, limit=Decimal("0.0003"), hard=False)
        await set_policy(cluster, Policy(budgets=(budget,)))
        alerted: list[int] = []
        for _ in range(8):
            reason, responses = await converse(cluster, server.address, "hello", session_id="s")
            assert reason == ""
            alerted += [each.budget_alert.percent for each in responses if each.HasField("budget_alert")]
        (status,) = await cluster.components.budgets.service.status(cluster.tenant_id)

        assert alerted == sorted(set(alerted))
        assert alerted[-1] == 100
        assert status.spent > status.limit
    finally:
        await server.stop()


async def test_budget_set_during_a_turn_applies_to_its_next_call(cluster: Cluster) -> None:
    """A loop of eight calls stops after the first, with stop reason BUDGET."""
    server = cluster.server()
    await server.start()
    try:
        _, key = await cluster.components.tenancy.api_keys.issue(cluster.tenant_id, scopes=frozenset({Scope.ADMIN}))
        async with grpc.aio.insecure_channel(server.address) as channel:
            admin = admin_service_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call] # generated
            request = pb.ConverseRequest(text="@sandbox tool-loop calls=8 first_delay_ms=1000")
            call = stub_of(channel).Converse(request, metadata=cluster.metadata, timeout=60)
            async for response in call:
                if response.event.HasField("model_call_finished"):
                    break
            budget = budget_pb2.Budget(window=BUDGET_WINDOW_DAY, limit_usd="0.00006", hard=True)
            policy = admin_pb.UpdatePolicyRequest(
                tenant_id=cluster.tenant_id, policy=tenant_pb2.Policy(budgets=[budget])
            )
            await admin.UpdatePolicy(policy, metadata=(("authorization", f"Bearer {key}"),))
            finished = [each async for each in call][-1].event.turn_finished

        assert finished.stop_reason == turn_pb.STOP_REASON_BUDGET
        assert 1 <= finished.turn_totals.model_calls < 8
        assert (await cluster.compare_with_invoice()).faults == []
    finally:
        await server.stop()


async def test_calls_of_a_server_that_does_not_know_the_budget_yet_count(cluster: Cluster) -> None:
    """Another server has just set it: nothing is reserved here, but all of it is charged in the end."""
    server = cluster.server()
    await server.start()
    try:
        turn = asyncio.create_task(converse(cluster, server.address, "@sandbox tool-loop calls=4 first_delay_ms=600"))
        while not [call for call in await calls_of(cluster) if call.state is CallState.SETTLED]:
            await asyncio.sleep(0.02)
        budgets = tuple(Budget(window=window, limit=Decimal(1), hard=True) for window in BudgetWindow)
        await set_policy(cluster, Policy(budgets=budgets))
        before = await cluster.components.budgets.service.status(cluster.tenant_id)
        reason, _ = await turn
        calls = await calls_of(cluster)

        assert (reason, len(calls)) == ("", 4)
        assert (await cluster.compare_with_invoice()).faults == []
        settled = sum((call.cost or Decimal(0) for call in calls), Decimal(0))
        assert all(status.spent < settled for status in before)
        assert [status.spent for status in await cluster.components.budgets.service.status(cluster.tenant_id)] == [
            settled
        ] * 3
    finally:
        await server.stop()


async def test_spending_before_a_budget_was_set_counts(cluster: Cluster) -> None:
    """A budget set in mid-month starts with the charges of the ledger."""
    server = cluster.server()
    await server.start()
    try:
        await converse(cluster, server.address, "hello")
        await converse(cluster, server.address, "hello again")
        await set_policy(cluster, Policy(budgets=(Budget(window=BudgetWindow.MONTH, limit=Decimal(1), hard=True),)))
        (status,) = await cluster.components.budgets.service.status(cluster.tenant_id)
        settled = sum((call.cost or Decimal(0) for call in await calls_of(cluster)), Decimal(0))

        assert status.spent == settled > 0
    finally:
        await server.stop()
