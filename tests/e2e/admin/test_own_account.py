"""A tenant with its own OpenRouter key pays itself: calls, records and failures use that key."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest
from godoty.v1 import budget_pb2, tenant_pb2
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ids import key_id_of, new_id
from godoty_service.ledger.entries import CostSource, ModelCall
from godoty_service.ledger.states import CallState
from openrouter_sandbox.mongodb.mongod import free_port
from tests.conftest import Start
from tests.e2e.admin.conftest import ENCRYPTION_KEY, Admin
from tests.e2e.turns.streams import until_text
from tests.support.backends import ACCOUNT
from tests.support.caller import Caller, read
from tests.support.service import Service, soon

OWN = "sandbox-of-a-tenant-itself"


async def settled(service: Service, session_id: str) -> ModelCall:
    """Wait until the session's only call is settled."""
    async with asyncio.timeout(180):
        while True:
            (call,) = service.entries(session_id)
            if call.state is not CallState.PENDING:
                return call
            await asyncio.sleep(0.1)


async def test_calls_are_billed_to_the_tenants_own_account(
    service: Service, admin_of: Callable[[Service], Admin], connect: Callable[[Service], Caller]
) -> None:
    """Within 5 seconds after the change; and back again. The ledger has the key id of each call."""
    admin, caller = admin_of(service), connect(service)
    await caller.converse("hi", session_id="before")
    await admin.call("SetProviderKey", tenant_id=service.tenant_id, provider_key=OWN)
    await caller.converse("hi", session_id="own")
    await admin.call("SetProviderKey", tenant_id=service.tenant_id, provider_key="")
    await caller.converse("hi", session_id="after")

    paid = {session_id: [line.key for line in service.invoice(session_id)] for session_id in ("before", "own", "after")}
    assert paid == {"before": [ACCOUNT], "own": [OWN], "after": [ACCOUNT]}
    ids = [service.entries(session_id)[0].provider_key_id for session_id in ("before", "own", "after")]
    assert ids == [key_id_of(ACCOUNT), key_id_of(OWN), key_id_of(ACCOUNT)]


async def test_waiting_turn_is_billed_to_the_account_of_its_start(
    service: Service, admin_of: Callable[[Service], Admin], connect: Callable[[Service], Caller]
) -> None:
    """A provider key that is set while a turn waits for its session pays for the turn."""
    admin, caller, hold = admin_of(service), connect(service), new_id("hold")
    call = caller.start(f"@sandbox plain tokens=4 hold_after=1 hold={hold}")
    await until_text(call, "t0 ")
    waiting = asyncio.create_task(caller.converse("hi", on_busy=turn_pb.ON_BUSY_WAIT))
    turns = service.database["turns"]
    await soon(lambda: turns.count_documents({"tenant_id": service.tenant_id}) == 2)
    await admin.call("SetProviderKey", tenant_id=service.tenant_id, provider_key=OWN)
    service.backends.allow(hold)

    assert (await read(call)).finished
    assert (await waiting).finished
    assert [line.key for line in service.invoice("talk")] == [ACCOUNT, OWN]
    assert [each.provider_key_id for each in service.entries("talk")] == [key_id_of(ACCOUNT), key_id_of(OWN)]


async def test_record_is_read_with_the_key_that_made_the_call(
    service: Service, admin_of: Callable[[Service], Admin], connect: Callable[[Service], Caller]
) -> None:
    """A cancelled call is settled from its record, even after the tenant replaced that key."""
    admin, caller = admin_of(service), connect(service)
    await admin.call("SetProviderKey", tenant_id=service.tenant_id, provider_key=OWN)
    call = caller.start("@sandbox slow tokens=200 delay_ms=20", session_id="cut")
    async for response in call:
        if response.HasField("text_delta"):
            break
    call.cancel()
    await admin.call("SetProviderKey", tenant_id=service.tenant_id, provider_key=f"{OWN}-2")

    entry = await settled(service, "cut")
    (line,) = service.invoice("cut")
    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.RECONCILED)
    assert (entry.cost, line.key) == (line.cost, OWN)


async def test_refused_key_of_a_tenant_fails_its_turns(
    serve: Start, admin_of: Callable[[Service], Admin], connect: Callable[[Service], Caller]
) -> None:
    """The service does not pay instead, and the operator is not alerted."""
    page = free_port()
    service = await serve(encryption_keys=ENCRYPTION_KEY, metrics_listen=f"127.0.0.1:{page}")
    admin, caller = admin_of(service), connect(service)
    await admin.call("SetProviderKey", tenant_id=service.tenant_id, provider_key="no-key-of-openrouter")
    turn = await caller.converse("hi")

    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_ACCOUNT_REFUSED")
    assert service.invoice("talk") == []
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{page}/metrics")).text
    assert "godoty_provider_account_refused 0.0" in text.splitlines()
    other = connect(service.another_tenant())
    assert (await other.converse("hi")).finished


async def test_undecryptable_key_stops_its_tenant_only(
    service: Service, admin_of: Callable[[Service], Admin], connect: Callable[[Service], Caller], serve: Start
) -> None:
    """A server that lost the encryption key refuses the tenant's turns, and never bills the service for them."""
    await admin_of(service).call("SetProviderKey", tenant_id=service.tenant_id, provider_key=OWN)
    other = await serve(database=service.database.name)
    turn = await connect(service.at(other.target)).converse("hi")

    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROVIDER_KEYS_OFF")
    assert service.entries("talk") == []
    assert (await connect(other).converse("hi")).finished
    assert (await connect(service).converse("hi")).finished


@pytest.mark.parametrize(("own", "stays"), [("1000", False), ("0.000001", True)])
async def test_price_limit_of_a_tenant_never_raises_that_of_a_hard_budget(
    admin: Admin, caller: Caller, *, own: str, stays: bool
) -> None:
    """Under a hard budget, the request carries the lower of the two."""
    budget = budget_pb2.Budget(window=budget_pb2.BUDGET_WINDOW_TOTAL, limit_usd="10", hard=True)
    policy = tenant_pb2.Policy(provider_json=f'{{"max_price": {{"completion": {own}}}}}', budgets=[budget])
    await admin.set_policy(caller.service.tenant_id, policy)
    turn = await caller.converse("hi", model="openai/gpt-4o-mini")

    # Where no provider is that cheap, the request is sent again without what the service has added to it.
    sent: dict[str, Any]
    sent, *again = [each["provider"]["max_price"] for each in caller.service.requests("talk")]
    assert again == ([sent] if stays else [])
    assert (sent["completion"] == own) is stays
    assert float(sent["completion"]) < 100
    assert turn.responses
