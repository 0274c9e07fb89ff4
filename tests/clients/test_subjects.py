"""Sessions, agents, billing and administration by both kinds of clients, against the real service."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from godoty import (
    AgentDefinition,
    AgentNotFound,
    AgentTool,
    AttachmentRejected,
    Budget,
    BudgetSpent,
    BudgetWindow,
    DeliveryNotFound,
    EtagMismatch,
    McpServer,
    Policy,
    Role,
    ScopeMissing,
    SessionNotFound,
    StopReason,
    TenantState,
    TurnLimits,
    TurnState,
    Webhook,
)
from godoty.frames import columns, rows, to_pandas, to_parquet
from godoty.v1 import (
    admin_service_pb2,
    agent_definition_service_pb2,
    agent_service_pb2,
    billing_service_pb2,
)

from godoty_service.tenancy.auth import Scope
from tests.clients.conftest import REPOSITORY
from tests.clients.cutting_proxy import CuttingProxy
from tests.clients.kinds import KINDS, Driver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Start
    from tests.support.service import Service

EVERYTHING = timedelta(days=1)
PACKAGE = REPOSITORY / "clients" / "python" / "godoty"


@pytest.fixture
def with_scope(
    service: Service, connect_to: Callable[..., Driver], issue: Callable[..., str]
) -> Callable[[Scope], Driver]:
    """Connects clients whose keys have a scope."""

    def connect(scope: Scope) -> Driver:
        return connect_to(service.target, issue(service, scopes=frozenset({scope})))

    return connect


async def test_sessions_are_paged_to_the_end(driver: Driver, session_id: str) -> None:
    """All of an end user's sessions come, the last used first, however small the pages are."""
    ids = [f"{session_id}.{number}" for number in range(3)]
    for each in ids:
        await driver.turn("hi", session=each, user=session_id)

    sessions = await driver.all(driver.client.sessions.list(user=session_id, page_size=1))

    assert [session.session_id for session in sessions] == ids[::-1]
    assert all(session.user == session_id and session.cost_usd > 0 for session in sessions)
    assert abs(datetime.now(UTC) - sessions[0].create_time) < EVERYTHING


async def test_messages_are_paged_to_the_end(driver: Driver, session_id: str) -> None:
    """All messages come, the oldest first, however small the pages are; one can be read whole."""
    turn = await driver.turn("@sandbox plain text=hello", session=session_id)

    messages = await driver.all(driver.client.sessions.messages(session_id, page_size=1))
    pieces = await driver.all(driver.client.sessions.read_message(session_id, 2))

    assert [(message.role, message.number) for message in messages] == [(Role.USER, 1), (Role.ASSISTANT, 2)]
    assert messages[1].content[-1].text == "".join(block.text for _, block in pieces) == turn.text
    assert {message.turn_id for message in messages} == {turn.turn_id}


async def test_deleted_session_is_not_found(driver: Driver, session_id: str) -> None:
    """Reading a session after its deletion fails with the reason and the id."""
    await driver.turn("hi", session=session_id)
    assert (await driver.do(driver.client.sessions.get, session_id)).message_count == 2

    await driver.do(driver.client.sessions.delete, session_id)

    with pytest.raises(SessionNotFound) as caught:
        await driver.do(driver.client.sessions.get, session_id)
    assert (caught.value.reason, caught.value.metadata) == ("SESSION_NOT_FOUND", {"session_id": session_id})


async def test_turns_are_listed_newest_first(driver: Driver, session_id: str) -> None:
    """By session and state, with what became of them."""
    turns = [await driver.turn("hi", session=session_id, request_id=f"{session_id}-{each}") for each in range(3)]

    found = await driver.all(driver.client.turns.list(session_id=session_id, state="ended", page_size=1))
    running = await driver.all(driver.client.turns.list(session_id=session_id, state=TurnState.RUNNING))

    assert [each.turn_id for each in found] == [each.turn_id for each in turns[::-1]]
    assert [each.totals.cost_usd for each in found] == [each.cost for each in turns[::-1]]
    assert running == []
    with pytest.raises(ValueError, match="'over' is no TurnState: WAITING, RUNNING, ENDED"):
        await driver.all(driver.client.turns.list(state="over"))


async def test_damaged_attachment_is_refused(driver: Driver) -> None:
    """With its problem."""
    with pytest.raises(AttachmentRejected) as caught:
        await driver.do(driver.client.attachments.upload, b"no image")

    assert caught.value.metadata["problem"] == "type"


async def test_metrics_usage_and_ledger_are_the_same_amounts(
    driver: Driver, with_scope: Callable[[Scope], Driver], service: Service, session_id: str
) -> None:
    """To the last decimal: what turns said, metrics, usage, ledger entries and the invoice."""
    turns = [await driver.turn(f"@sandbox tool-loop calls={calls}", session=session_id) for calls in (1, 3)]
    billing = with_scope(Scope.BILLING)
    metrics = await driver.do(driver.client.sessions.metrics, session_id)
    now = datetime.now(UTC)
    span = (now - EVERYTHING, now + EVERYTHING)
    report = await billing.do(billing.client.billing.usage, *span, group_by=["day", "model"])
    by_session = await billing.all(billing.client.billing.usage_rows(*span, group_by=["session"], page_size=1))
    entries = await billing.all(billing.client.billing.entries(session_id=session_id, page_size=1))

    total = sum((turn.cost for turn in turns), Decimal(0))
    assert total == metrics.totals.cost_usd == report.totals.cost_usd == service.invoiced(session_id)
    assert sum((row.totals.cost_usd for row in report.rows), Decimal(0)) == total
    assert [(row.keys[0].session_id, row.totals.cost_usd) for row in by_session] == [(session_id, total)]
    assert sum((entry.call.cost_usd for entry in entries), Decimal(0)) == total
    assert [entry.call.number for entry in entries] == [1, 2, 3, 4]
    assert metrics.totals == turns[-1].session_totals
    assert metrics.totals.usage == report.totals.usage
    assert entries[0].call.start_time <= entries[0].call.settle_time
    assert report.rows[0].keys[0].time.tzinfo is UTC


async def test_times_need_a_zone_and_amounts_are_exact(with_scope: Callable[[Scope], Driver]) -> None:
    """What is not exact is refused before it is sent."""
    billing = with_scope(Scope.BILLING)
    with pytest.raises(ValueError, match="no time zone"):
        await billing.do(billing.client.billing.usage, datetime(2026, 1, 1), datetime(2026, 2, 1))  # noqa: DTZ001 - so
    with pytest.raises(TypeError, match="exact"):
        await billing.turn("hi", limits=TurnLimits(max_cost_usd=0.1))  # type: ignore[arg-type] # that is the case


async def test_ledger_is_a_table(
    driver: Driver, with_scope: Callable[[Scope], Driver], session_id: str, tmp_path: Path
) -> None:
    """For pandas and as a Parquet file, with exact amounts."""
    turn = await driver.turn("@sandbox tool-loop calls=3", session=session_id)
    billing = with_scope(Scope.BILLING)
    entries = await billing.all(billing.client.billing.export())
    now = datetime.now(UTC)
    usage = await billing.all(
        billing.client.billing.usage_rows(now - EVERYTHING, now + EVERYTHING, group_by=["model", "day"])
    )
    count = to_parquet(entries, tmp_path / "ledger.parquet")
    table = pq.read_table(tmp_path / "ledger.parquet")
    frame = to_pandas(usage)

    assert count == table.num_rows == 3
    assert table.schema.names == list(columns(type(entries[0]))) == list(next(rows(entries)))
    assert sum(table["call.cost_usd"].to_pylist()) == turn.cost
    assert [each.tzinfo is not None for each in table["call.start_time"].to_pylist()] == [True] * 3
    assert frame["totals.cost_usd"].sum() == turn.cost
    assert set(frame["model"]) == {entries[0].call.served_model}
    with pytest.raises(ValueError, match="nothing to write"):
        to_parquet([], tmp_path / "empty.parquet")


async def test_agents_are_applied_listed_and_used(
    driver: Driver, with_scope: Callable[[Scope], Driver], session_id: str
) -> None:
    """A definition is a dataclass; a change of it is a version, and an old etag is refused."""
    agents = with_scope(Scope.AGENTS)
    definition = AgentDefinition(name="helper", system_prompt="Be brief.", tools=(AgentTool(builtin="calculator"),))
    applied = await agents.do(agents.client.agents.apply, definition)
    again = await agents.do(agents.client.agents.apply, definition)
    changed = await agents.do(agents.client.agents.apply, replace(definition, description="It helps."))
    with pytest.raises(EtagMismatch):
        await agents.do(agents.client.agents.apply, replace(definition, model="openai/gpt-4o"), etag=applied.etag)
    found = await agents.do(agents.client.agents.get, "helper@1")
    turn = await driver.turn("hi", session=session_id, agent="helper")

    assert (applied.changed, again.changed, changed.changed) == (True, False, True)
    assert found.agent_version.definition == definition
    versions = await agents.all(agents.client.agents.versions("helper", page_size=1))
    assert [each.version for each in versions] == [2, 1]
    assert "helper" in [each.definition.name for each in await agents.all(agents.client.agents.definitions())]
    assert [each.description for each in await driver.all(driver.client.agents.list()) if each.name == "helper"] == [
        "It helps."
    ]
    assert (turn.started.agent, turn.started.agent_version) == ("helper", 2)
    await agents.do(agents.client.agents.delete, "helper")
    assert isinstance(await driver.failure("hi", agent="helper"), AgentNotFound)


async def test_models_have_prices(driver: Driver) -> None:
    """As decimals, on several pages."""
    models = await driver.all(driver.client.models.list(page_size=50))

    assert len(models) > 50
    assert all(isinstance(each.prices.input_usd, Decimal | None) for each in models)


async def test_mcp_servers_are_managed(with_scope: Callable[[Scope], Driver]) -> None:
    """A time limit is a timedelta."""
    agents = with_scope(Scope.AGENTS)
    servers = agents.client.mcp_servers
    server = McpServer(name="crm", url="http://127.0.0.1:1/mcp", timeout=timedelta(seconds=1.5))
    applied = await agents.do(servers.apply, server)
    checked = await agents.do(servers.check, "crm")

    assert applied.changed
    assert (await agents.do(servers.get, "crm")).timeout == timedelta(seconds=1.5)
    assert [each.name for each in await agents.all(servers.list())] == ["crm"]
    assert checked.problem != ""
    await agents.do(servers.delete, "crm")
    assert await agents.all(servers.list()) == []


async def test_tenant_is_administered(
    with_scope: Callable[[Scope], Driver], connect_to: Callable[..., Driver], service: Service, session_id: str
) -> None:
    """Created with a budget and a key, which then refuses a turn; suspended, resumed and deleted."""
    operator = with_scope(Scope.ADMIN)
    admin = operator.client.admin
    tenant = await operator.do(admin.create_tenant, "Acme", time_zone="Europe/Berlin", request_id=session_id)
    budget = Budget(window=BudgetWindow.TOTAL, limit_usd=Decimal("0.000001"), hard=True)
    policy = await operator.do(admin.update_policy, tenant.tenant_id, Policy(budgets=(budget,), turns_per_minute=9))
    created = await operator.do(admin.create_api_key, tenant.tenant_id, ["converse", "billing"])
    member = connect_to(service.target, created.text)
    failure = await member.failure("hi")
    (status,) = await member.do(member.client.billing.budgets)

    assert isinstance(failure, BudgetSpent)
    assert (status.limit_usd, status.spent_usd) == (Decimal("0.000001"), Decimal(0))
    assert (policy.budgets, policy.turns_per_minute) == ((budget,), 9)
    assert created.text not in repr(created)
    renamed = await operator.do(admin.update_tenant, tenant.tenant_id, display_name="Acme & Co.", etag=tenant.etag)
    assert (renamed.display_name, renamed.time_zone) == ("Acme & Co.", "Europe/Berlin")
    keys = await operator.all(admin.list_api_keys(tenant.tenant_id))
    assert [each.api_key_id for each in keys] == [created.api_key.api_key_id]
    states = [
        (await operator.do(change, tenant.tenant_id)).state
        for change in (admin.suspend_tenant, admin.resume_tenant, admin.delete_tenant)
    ]
    assert states == [TenantState.SUSPENDED, TenantState.ACTIVE, TenantState.DELETED]
    changes: list[Any] = await operator.all(admin.list_changes(tenant_id=tenant.tenant_id, page_size=2))
    assert [each.method for each in changes][:2] == ["DeleteTenant", "ResumeTenant"]


async def test_call_is_adjusted(
    driver: Driver, with_scope: Callable[[Scope], Driver], service: Service, session_id: str
) -> None:
    """Once, however often the request is sent."""
    await driver.turn("hi", session=session_id)
    (call,) = service.entries(session_id)
    operator = with_scope(Scope.ADMIN)
    wanted = {"request_id": session_id, "why": "a test", "cost_usd": "0.0000025"}
    made = [
        await operator.do(operator.client.admin.adjust_call, service.tenant_id, call.call_id, **wanted)
        for _ in range(2)
    ]
    metrics = await driver.do(driver.client.sessions.metrics, session_id)

    assert made[0] == made[1]
    assert made[0].total_cost_usd == metrics.totals.cost_usd == Decimal("0.0000025")


async def test_missing_scope_is_an_error(driver: Driver) -> None:
    """With the scope that is missing."""
    with pytest.raises(ScopeMissing) as caught:
        await driver.do(driver.client.billing.budgets)

    assert caught.value.metadata == {"scope": "billing"}


async def test_turn_without_a_reader_runs_to_its_end(driver: Driver, service: Service, session_id: str) -> None:
    """It is started once for an id, waited for, and read afterwards."""
    turns = driver.client.turns
    text = f"@sandbox plain tokens=4 hold_after=2 hold={session_id}"
    options = {"session": session_id, "request_id": session_id}
    started = await driver.do(turns.start, text, **options)
    again = await driver.do(turns.start, text, **options)
    early = await driver.do(turns.wait, started.turn_id, timeout=0)
    service.backends.allow(session_id)
    turn = await driver.do(turns.wait, started.turn_id, timeout=60)
    read = driver.client.resume(started.turn_id)
    await driver.do(read.wait)

    assert started == again
    assert early.state is TurnState.RUNNING
    assert (turn.state, turn.stop_reason) == (TurnState.ENDED, StopReason.END_TURN)
    assert (started.session_id, read.text, read.cost) == (session_id, "t0 t1 t2 t3 ", turn.totals.cost_usd)
    with pytest.raises(ValueError, match="1 MiB"):
        await driver.do(turns.start, "look", attachments=[b"x" * 1_100_000])


async def test_start_is_repeated_until_a_server_takes_it(
    service: Service, connect_to: Callable[..., Driver], session_id: str
) -> None:
    """With its request id: there is one turn."""
    async with CuttingProxy(service.target) as proxy:
        driver = connect_to(proxy.address, service.api_key)
        await driver.all(driver.client.turns.list())
        proxy.cut_after(1)
        started = await driver.do(driver.client.turns.start, "hi", session=session_id)
        await driver.do(driver.client.turns.wait, started.turn_id, timeout=60)
        turns = await driver.all(driver.client.turns.list(session_id=session_id))

    assert proxy.cuts == 1
    assert [each.turn_id for each in turns] == [started.turn_id]


async def test_session_is_exported_and_imported(driver: Driver, session_id: str) -> None:
    """As lines, also if they are more than one request takes; what they make has the same messages and no cost."""
    await driver.turn("@sandbox plain tokens=3", session=session_id)
    for _ in range(2):
        await driver.turn("x" * 200_000 + " @sandbox plain tokens=1", session=session_id)
    lines = await driver.all(driver.client.sessions.export(session_id))
    made = await driver.do(
        driver.client.sessions.import_, (f"{line}\n" for line in lines), session_id=f"{session_id}-2"
    )
    copied = await driver.all(driver.client.sessions.messages(made.session_id))
    messages = await driver.all(driver.client.sessions.messages(session_id))

    assert sum(map(len, lines)) > 400_000
    assert all("\n" not in line for line in lines)
    assert (made.session_id, made.message_count, made.cost_usd) == (f"{session_id}-2", 6, Decimal(0))
    assert [[block.text for block in each.content] for each in copied] == [
        [block.text for block in each.content] for each in messages
    ]


async def test_webhooks_are_managed(serve: Start, issue: Callable[..., str]) -> None:
    """By both kinds of clients, at one server: the secret is shown once; there are no deliveries without events."""
    service = await serve(encryption_keys=base64.b64encode(b"k" * 32).decode())
    key = issue(service, scopes=frozenset({Scope.AGENTS}))
    for name, kind in KINDS.items():
        editor = Driver(kind(service.target, key))
        await _manage_webhook(editor, Webhook(name=name, url="https://1.1.1.1/godoty", event_types=("turn.finished",)))
        await editor.do(editor.client.close)


async def _manage_webhook(editor: Driver, webhook: Webhook) -> None:
    webhooks = editor.client.webhooks
    applied = await editor.do(webhooks.apply, webhook)
    again = await editor.do(webhooks.apply, webhook)
    rotated = await editor.do(webhooks.apply, webhook, rotate_secret=True, rotation_overlap=timedelta(hours=1))

    assert (applied.changed, again.changed) == (True, False)
    assert applied.secret.startswith("whsec_")
    assert (again.secret, applied.secret in repr(applied)) == ("", False)
    assert rotated.secret not in ("", applied.secret)
    assert [each.name for each in await editor.all(webhooks.list())] == [webhook.name]
    assert await editor.all(webhooks.deliveries(webhook.name, state="failed")) == []
    with pytest.raises(DeliveryNotFound):
        await editor.do(webhooks.redeliver, webhook.name, f"evt_{0:032x}")
    await editor.do(webhooks.delete, webhook.name)
    assert await editor.all(webhooks.list()) == []


def test_every_rpc_is_a_method() -> None:
    """No part of the contract is left out of the client."""
    sources = "".join(
        path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")) if "v1" not in path.parts
    )
    services = [
        *(agent_service_pb2, agent_definition_service_pb2, billing_service_pb2, admin_service_pb2),
    ]
    methods = [
        f"{service.name}.{method.name}"
        for module in services
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]

    assert len(methods) > 50
    assert [each for each in methods if f'"{each}"' not in sources] == []
