"""The clients in other languages, against the real service: tools, costs, refusals, keys and TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from godoty.v1 import admin_service_pb2 as admin_pb
from godoty.v1 import admin_service_pb2_grpc, budget_pb2, tenant_pb2

from godoty_service.ids import new_id
from godoty_service.tenancy.auth import Scope
from tests.clients.polyglot.conformance import Conformance
from tests.clients.polyglot.programs import Language
from tests.conftest import Start
from tests.e2e.admin.certificates import authority, signed
from tests.e2e.turns.streams import until_text
from tests.support.caller import Caller
from tests.support.service import Service, format_amount

_LOOP = "@sandbox tool-loop calls=3 tool=calculator"


async def test_tool_loop_and_its_cost_are_exact(language: Language, caller: Caller, issue: Callable[..., str]) -> None:
    """Turn, metrics, usage and the provider's invoice have the same cost and tokens."""
    billing = issue(caller.service, scopes=frozenset({Scope.BILLING}))
    async with Conformance.of(language, caller.service) as program:
        turn = await program.ask("converse", session_id="talk", text=_LOOP)
        metrics = await program.ask("metrics", session_id="talk")
        usage = await program.ask("usage", api_key=billing)

    kinds = [each["event"] for each in turn.events]
    assert (kinds[0], kinds[-1]) == ("turn_started", "turn_finished")
    assert [kinds.count(f"tool_call_{each}") for each in ("started", "finished")] == [2, 2]
    assert {each.get("name") for each in turn.events} == {None, "calculator"}
    assert turn.text == turn.done["text"] != ""
    assert turn.done["stop_reason"] == "STOP_REASON_END_TURN"
    entries = caller.service.entries("talk")
    cost = format_amount(sum((entry.cost or Decimal() for entry in entries), Decimal()))
    assert turn.done["cost_usd"] == cost == format_amount(caller.service.invoiced("talk"))
    assert metrics.done == turn.done["totals"]
    assert (metrics.done["cost_usd"], metrics.done["model_calls"], metrics.done["turns"]) == (cost, 3, 1)
    assert [row["totals"] for row in usage.done["rows"]] == [metrics.done]
    assert usage.done["rows"][0]["model"] == entries[0].served_model
    charged = [Decimal(each["cost_usd"]) for each in turn.events if each["event"] == "model_call_finished"]
    assert format_amount(sum(charged, Decimal())) == cost


async def test_refusals_have_reason_and_delay(language: Language, caller: Caller, issue: Callable[..., str]) -> None:
    """A busy session, a turn's own limit, a hard budget, a wrong key and a key of another scope."""
    hold = new_id("hold")
    running = caller.start(f"@sandbox plain tokens=9 hold_after=3 hold={hold}", session_id="busy")
    await until_text(running, "t2 ")
    async with Conformance.of(language, caller.service) as program:
        busy = (await program.ask("converse", session_id="busy", text="hi")).error
        caller.service.backends.allow(hold)
        low = (await program.ask("converse", session_id="talk", text="hi", max_cost_usd="0.0000001")).error
        await _set_budget(caller.service, issue)
        spent = (await program.ask("converse", session_id="talk", text="hi")).error
        wrong = (await program.ask("metrics", session_id="talk", api_key="gdt_no_such_key")).error
        scope = (await program.ask("usage")).error
        lost = (await program.ask("metrics", session_id="talk", target="127.0.0.1:1")).error

    assert (busy["code"], busy["reason"], busy["retry_delay"]) == (10, "SESSION_BUSY", 1.0)
    assert (low["code"], low["reason"], low["quotas"]) == (8, "MAX_COST_TOO_LOW", ["turn/max_cost_usd"])
    assert low["metadata"]["limit_usd"] == "0.0000001"
    assert (spent["code"], spent["reason"], spent["quotas"]) == (8, "BUDGET_SPENT", ["budget/day"])
    assert (wrong["code"], wrong["reason"]) == (16, "INVALID_API_KEY")
    assert "no_such_key" not in str(wrong)
    assert (scope["code"], scope["reason"], scope["metadata"]) == (7, "SCOPE_MISSING", {"scope": "billing"})
    assert (lost["code"], lost["reason"]) == (14, "")
    assert all(each["request_id"] for each in (busy, low, spent, wrong, scope))


async def _set_budget(service: Service, issue: Callable[..., str]) -> None:
    """Give the tenant a hard budget that no call fits."""
    budget = budget_pb2.Budget(window=budget_pb2.BUDGET_WINDOW_DAY, limit_usd="0.000001", hard=True)
    request = admin_pb.UpdatePolicyRequest(
        tenant_id=service.tenant_id, policy=tenant_pb2.Policy(budgets=[budget]), update_mask={"paths": ["budgets"]}
    )
    key = issue(service, scopes=frozenset({Scope.ADMIN}))
    async with grpc.aio.insecure_channel(service.target) as channel:
        stub: Any = admin_service_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        await stub.UpdatePolicy(request, metadata=(("authorization", f"Bearer {key}"),), timeout=180)


async def test_tls_by_environment(language: Language, serve: Start, tmp_path: Path) -> None:
    """GODOTY_TLS_CA names the authority of the server; without it, plain text to this machine fails."""
    issuer = authority("godoty tests")
    files: dict[str, Any] = dict(signed(issuer, "localhost", "127.0.0.1").write(tmp_path, "server"))
    authorities = tmp_path / "authority.pem"
    authorities.write_bytes(issuer.pem)
    service = await serve(**files)
    async with (
        Conformance.of(language, service, GODOTY_TLS_CA=str(authorities)) as trusting,
        Conformance.of(language, service) as plain,
    ):
        turn, refused = await asyncio.gather(
            trusting.ask("converse", session_id="talk", text="hi"), plain.ask("metrics", session_id="talk")
        )

    assert turn.done["stop_reason"] == "STOP_REASON_END_TURN"
    assert (refused.error["code"], refused.error["reason"]) == (14, "")


@pytest.mark.parametrize("missing", ["GODOTY_LISTEN", "GODOTY_API_KEY"])
async def test_missing_setting_is_named(language: Language, missing: str, service: Service) -> None:
    """A client without a server or a key says which variable sets it."""
    async with Conformance.of(language, service, **{missing: ""}) as program:
        assert missing in (await program.ask("metrics", session_id="talk")).error["text"]
