"""What webhooks are notified of, and what is written for it: nothing more for tenants without webhooks."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.bootstrap.components import open_components
from godoty_service.bootstrap.erasure import tenant_erasure
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.tenancy.policies import Policy
from tests.conftest import Start
from tests.e2e.actions.conftest import ALWAYS, REFUND, Asker, asked
from tests.e2e.turns.streams import until_text
from tests.e2e.webhooks.conftest import SETTINGS, Become, Tenant
from tests.support.backends import ME
from tests.support.caller import read
from tests.support.receiver import Receiver
from tests.support.service import soon

FAR = 60.0
UNRECORDED = "@sandbox slow tokens=200 first_delay_ms=0 delay_ms=5 hold_after=60 record_ms=-1"


async def test_finished_turn_is_reported_with_its_totals(tenant: Tenant, receiver: Receiver) -> None:
    """Signed, with the amounts of the turn's own end, and without a word of it."""
    secret = await tenant.apply(receiver.url("/hooks?of=me"))
    turn = await tenant.caller.converse("a secret question", user="ada")
    received = await receiver.first()

    finished = turn.finished
    assert received.is_signed_by(secret)
    assert received.path == "/hooks?of=me"
    assert received.headers["content-type"] == "application/json"
    assert received.event["id"] == received.event_id
    assert {name: received.data[name] for name in ("tenant_id", "turn_id", "session_id", "stop_reason")} == {
        "tenant_id": tenant.service.tenant_id,
        "turn_id": turn.responses[0].turn_id,
        "session_id": "talk",
        "stop_reason": "END_TURN",
    }
    assert (received.data["agent"], received.data["error_reason"]) == (turn.started.agent, None)
    assert received.data["turn_totals"]["cost_usd"] == finished.turn_totals.cost_usd
    assert received.data["session_totals"]["cost_usd"] == finished.session_totals.cost_usd
    assert received.data["turn_totals"]["total_tokens"] == finished.turn_totals.usage.total_tokens
    body = received.body.decode()
    assert all(text not in body for text in ("secret question", turn.text, "ada"))


async def test_failed_turn_is_reported_with_its_reason(tenant: Tenant, receiver: Receiver) -> None:
    """And with what the ledger has of it."""
    await tenant.apply(receiver.url())
    turn = await tenant.caller.converse("@sandbox error-mid n=3 usage=1")
    received = await receiver.first()

    assert turn.failure is not None
    assert received.data["error_reason"] == turn.failure.reason
    assert received.data["stop_reason"] is None
    assert received.data["turn_totals"]["model_calls"] == 1


async def test_refused_turn_is_no_event(tenant: Tenant, receiver: Receiver) -> None:
    """It never began; the one after it is reported alone."""
    await tenant.apply(receiver.url())
    refused = await tenant.caller.converse("hello", agent="no-such-agent")
    assert refused.failure is not None
    turn = await tenant.caller.converse("hello")

    await tenant.delivered(1)

    assert [each.data["turn_id"] for each in receiver.received] == [turn.responses[0].turn_id]


async def test_only_events_of_the_chosen_types_come(tenant: Tenant, receiver: Receiver) -> None:
    """Those of other types are no deliveries."""
    await tenant.apply(receiver.url("/other"), name="other", event_types=["call.unresolved"])
    await tenant.apply(receiver.url("/all"))
    await tenant.caller.converse("hello")

    await tenant.delivered(1)

    assert await tenant.deliveries("other") == []
    assert [each.path for each in receiver.received] == ["/all"]


async def test_unresolved_call_is_reported_with_its_bound(serve: Start, become: Become, receiver: Receiver) -> None:
    """Beside the turn, which was cancelled and is reported as well."""
    tenant = become(await serve(**SETTINGS, record_patience=0.2, reconcile_interval=0.05))
    await tenant.apply(receiver.url())
    stream = tenant.caller.start(UNRECORDED)
    await until_text(stream, "t2 ")
    stream.cancel()
    received = await receiver.first("call.unresolved")

    (entry,) = tenant.service.entries("talk")
    assert entry.upper_bound is not None
    assert (received.data["call_id"], received.data["turn_id"]) == (entry.call_id, entry.turn_id)
    assert Decimal(received.data["upper_bound_usd"]) == entry.upper_bound
    await receiver.first("turn.finished")
    assert sorted(receiver.types) == ["call.unresolved", "turn.finished"]
    await soon(lambda: "outbox" not in tenant.service.entry_documents("talk")[0])


async def give_budget(tenant: Tenant, limit: str) -> None:
    """Give a tenant a soft budget for the month."""
    service = tenant.service
    budgets = (Budget(window=BudgetWindow.MONTH, limit=Decimal(limit), hard=False),)
    async with open_components(service.backends.settings(service.database.name)) as components:
        await components.tenancy.policies.set(service.tenant_id, Policy(budgets=budgets))


async def test_reached_budget_is_reported_once(tenant: Tenant, receiver: Receiver) -> None:
    """With the largest share; a further turn above it is no further event."""
    await tenant.apply(receiver.url(), event_types=["budget.threshold"])
    await give_budget(tenant, "0.000001")
    await tenant.caller.converse("hello")
    received = await receiver.first("budget.threshold")
    await tenant.caller.converse("hello")
    await tenant.apply(receiver.url("/finished"), name="finished", event_types=["turn.finished"])
    await tenant.caller.converse("hello")
    await tenant.delivered(1, name="finished")

    data = received.data
    assert (data["window"], data["percent"], data["limit_usd"], data["hard"]) == ("MONTH", 100, "0.000001", False)
    assert Decimal(data["spent_usd"]) >= Decimal("0.000001")
    await tenant.delivered(1)


async def test_share_that_was_reached_before_is_no_event(tenant: Tenant, receiver: Receiver) -> None:
    """A new webhook is notified of what happens from then on."""
    await give_budget(tenant, "0.000001")
    turn = await tenant.caller.converse("hello")
    assert turn.finished
    budgets, tenant_id = tenant.service.database["budgets"], tenant.service.tenant_id
    await soon(lambda: (budgets.find_one({"_id": tenant_id}) or {"alerted": {"month": {}}})["alerted"]["month"])
    await tenant.apply(receiver.url())
    await tenant.caller.converse("hello")

    await tenant.delivered(1)

    assert receiver.types == ["turn.finished"]


async def test_share_is_reported_though_the_server_died_before_its_alert(tenant: Tenant, receiver: Receiver) -> None:
    """It follows from what is spent, not from the alert that a turn got."""
    await tenant.apply(receiver.url(), event_types=["budget.threshold"])
    await give_budget(tenant, "1000")
    turn = await tenant.caller.converse("hello")
    budgets = tenant.service.database["budgets"]
    document = budgets.find_one({"_id": tenant.service.tenant_id})
    assert document is not None
    (month,) = {*document["spent"]["month"], *document["before"]["month"]}

    budgets.update_one({"_id": tenant.service.tenant_id}, {"$inc": {f"spent.month.{month}": 600}})
    received = await receiver.first("budget.threshold")

    charge = Decimal(turn.finished.turn_totals.cost_usd)
    assert (received.data["percent"], Decimal(received.data["spent_usd"])) == (50, 600 + charge)


async def test_turns_without_webhooks_are_not_marked(
    serve: Start, become: Become, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a tenant without webhooks have no mark, beside a tenant that has one."""
    monkeypatch.setattr("godoty_service.webhooks.subscribers._FRESH", 600.0)  # a busy machine may read them late
    tenant = become(await serve(**SETTINGS))
    other = become(tenant.service.another_tenant())
    await tenant.apply(receiver.url())
    names: set[str] = set()

    def look() -> None:
        names.update(name for each in ("turns", "turn_logs") for found in other.documents(each) for name in found)

    stream = other.caller.start("@sandbox plain tokens=9 hold_after=3 hold=unmarked")
    await until_text(stream, "t2 ")
    look()
    other.service.backends.allow("unmarked")
    await read(stream)
    await soon(lambda: any(each["ended"] for each in other.documents("turn_logs")))
    look()

    assert "replica_id" in names
    assert "outbox" not in names
    assert other.documents("webhook_deliveries") == []


async def test_marks_are_removed_once_deliveries_are_stored(tenant: Tenant, receiver: Receiver) -> None:
    """Of the turn's record and of its log."""
    await tenant.apply(receiver.url())
    await tenant.caller.converse("hello")
    await tenant.delivered(1)

    def marked() -> int:
        documents = [*tenant.documents("turns"), *tenant.documents("turn_logs")]
        return sum("outbox" in each for each in documents)

    await soon(lambda: marked() == 0)


async def test_turn_of_a_deleted_session_is_reported(serve: Start, become: Become, receiver: Receiver) -> None:
    """Though its log is deleted before the outbox was read."""
    service = await serve(**SETTINGS | {"webhook_interval": FAR}, drain_grace=0.0)
    tenant = become(service)
    await tenant.apply(receiver.url())
    turn = await tenant.caller.converse("hello")
    await tenant.caller.call("DeleteSession", pb.DeleteSessionRequest(session_id="talk"))
    await serve(database=service.database.name, **SETTINGS)

    received = await receiver.first()

    assert received.data["turn_id"] == turn.responses[0].turn_id
    assert received.data["turn_totals"]["cost_usd"] == turn.finished.turn_totals.cost_usd


async def test_erased_user_has_no_deliveries(tenant: Tenant, receiver: Receiver) -> None:
    """Those of other users remain."""
    await tenant.apply(receiver.url())
    await tenant.caller.converse("hello", session_id="adas", user="ada")
    await tenant.caller.converse("hello", session_id="bobs", user="bob")
    await tenant.delivered(2)
    service = tenant.service

    async with open_components(service.backends.settings(service.database.name)) as components:
        await components.user_erasure.erase(ME, service.tenant_id, "ada")

    assert [each.session_id for each in await tenant.deliveries()] == ["bobs"]


async def test_erased_tenant_has_neither_webhooks_nor_deliveries(tenant: Tenant, receiver: Receiver) -> None:
    """Secrets are gone with them."""
    service = tenant.service
    await tenant.apply(receiver.url())
    await tenant.caller.converse("hello")
    await tenant.delivered(1)

    async with open_components(service.backends.settings(service.database.name)) as components:
        await components.administration.lifecycle.delete(ME, service.tenant_id)
        for _ in range(3):
            await tenant_erasure(components, delay=-60, patience=timedelta()).run_once()

    names = ("webhooks", "webhook_deliveries")
    assert [tenant.documents(name) for name in names] == [[], []]


async def test_open_actions_are_named(tenant: Tenant, receiver: Receiver, issue: Callable[..., str]) -> None:
    """A turn that waits is reported with the ids of its actions, and without their inputs."""
    asker = Asker(tenant.caller, issue)
    await asker.agent({"builtin": "calculator", **ALWAYS}, {"client": REFUND})
    await tenant.apply(receiver.url())
    turn = await asker.ask('@sandbox tool-loop calls=2 parallel=2 input=\'{"expression": "6 * 7"}\'')
    received = await receiver.first("turn.action_required")

    assert received.data["action_ids"] == [each.action_id for each in asked(turn)]
    assert len(received.data["action_ids"]) == 2
    assert received.data["stop_reason"] == "ACTION_REQUIRED"
    assert "6 * 7" not in received.body.decode()
    assert "action_ids" not in (await receiver.first("turn.finished")).data
