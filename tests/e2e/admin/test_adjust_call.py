"""AdjustCall over gRPC: an administrator adjusts the cost of a call, once per request id."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import grpc
import pytest
from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import budget_pb2, tenant_pb2

from godoty_service.tenancy.auth import Scope
from tests.e2e.admin.conftest import Admin
from tests.support.caller import Caller, failure_of
from tests.support.service import format_amount

PRECONDITION, INVALID = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
async def call_id(caller: Caller) -> str:
    """Return a settled call of the administrator's own tenant."""
    turn = await caller.converse("hello")
    return str(turn.calls[0].call_id)


def _fields(admin: Admin, call_id: str, **changes: Any) -> dict[str, Any]:
    fields = {"tenant_id": admin.service.tenant_id, "call_id": call_id, "why": "the invoice", "request_id": "r1"}
    return fields | changes


async def test_adjustment_is_made_attributed_and_recorded(admin: Admin, caller: Caller, call_id: str) -> None:
    """The response has the entry and the call's total; totals follow; the audit log has author and details."""
    before = Decimal((await caller.metrics()).totals.cost_usd)

    answer = await admin.call("AdjustCall", **_fields(admin, call_id, add_usd="0.001"))

    total = format_amount(before + Decimal("0.001"))
    made = answer.adjustment
    assert (made.call_id, made.cost_usd, made.by, made.why) == (call_id, "0.001", admin.key_id, "the invoice")
    assert (made.number, made.request_id, made.resolves) == (2, "r1", False)
    assert answer.total_cost_usd == (await caller.metrics()).totals.cost_usd == total
    assert await admin.changes(admin.service.tenant_id) == [
        (
            admin.key_id,
            "AdjustCall",
            {
                "call_id": call_id,
                "adjustment_id": made.adjustment_id,
                "add_usd": "0.001",
                "why": "the invoice",
                "by": admin.key_id,
                "request_id": "r1",
                "above_bound": False,
            },
        )
    ]


async def test_same_request_returns_the_same_entry(admin: Admin, caller: Caller, call_id: str) -> None:
    """Concurrent and later repetitions: one entry and one record; other contents under the id are refused."""
    fields = _fields(admin, call_id, cost_usd="0.002")
    first = await admin.call("AdjustCall", **fields)
    answers = await asyncio.gather(*(admin.call("AdjustCall", **fields) for _ in range(3)))
    changed = await admin.refused("AdjustCall", **fields | {"cost_usd": "0.003"})
    added = await admin.refused("AdjustCall", **_fields(admin, call_id, add_usd="0.002"))

    assert all(each == first for each in answers)
    assert (changed.code, changed.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert added.reason == "REQUEST_ID_REUSED"
    assert (await caller.metrics()).totals.cost_usd == "0.002"
    assert len(await admin.changes(admin.service.tenant_id)) == 1


async def test_concurrent_new_costs_result_in_one_of_them(admin: Admin, caller: Caller, call_id: str) -> None:
    """Five requests that each set the call's cost: it is that of the last entry, not their sum."""
    costs = [f"0.00{number}" for number in range(1, 6)]

    answers = await asyncio.gather(
        *(admin.call("AdjustCall", **_fields(admin, call_id, cost_usd=each, request_id=each)) for each in costs)
    )

    last = max(answers, key=lambda each: each.adjustment.number)
    assert (await caller.metrics()).totals.cost_usd == last.adjustment.request_id
    assert sorted(each.adjustment.number for each in answers) == [2, 3, 4, 5, 6]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "change"),
    ({"cost_usd": "1e3"}, "cost_usd"),
    ({"cost_usd": "-1"}, "cost_usd"),
    ({"cost_usd": ""}, "cost_usd"),
    ({"cost_usd": "0.00000000000000000000000001"}, "cost_usd"),
    ({"add_usd": "1000001"}, "add_usd"),
    ({"add_usd": "0.0"}, "add_usd"),
    ({"add_usd": "NaN"}, "add_usd"),
    ({"add_usd": "1", "why": " "}, "why"),
    ({"add_usd": "1", "why": "a\nb"}, "why"),
    ({"add_usd": "1", "why": "x" * 1001}, "why"),
    ({"add_usd": "1", "request_id": ""}, "request_id"),
    ({"add_usd": "1", "request_id": "a b"}, "request_id"),
    ({"add_usd": "1", "call_id": ""}, "call_id"),
    ({"add_usd": "1", "call_id": "x" * 129}, "call_id"),
    ({"add_usd": "1", "tenant_id": ""}, "tenant_id"),
]


@pytest.mark.parametrize(("changes", "field"), REFUSED, ids=range(len(REFUSED)))
async def test_invalid_field_is_named(admin: Admin, changes: dict[str, Any], field: str) -> None:
    """INVALID_FIELD with the field; nothing is recorded."""
    failure = await admin.refused("AdjustCall", **{**_fields(admin, "call_none"), **changes})

    assert (failure.code, failure.reason, list(failure.fields)) == (INVALID, "INVALID_FIELD", [field])
    assert await admin.changes(admin.service.tenant_id) == []


async def test_impossible_cost_is_refused(admin: Admin, caller: Caller, call_id: str) -> None:
    """Below zero, or above the bound unless allowed; the error has the figures, and nothing is recorded."""
    cost = Decimal((await caller.metrics()).totals.cost_usd)
    below = await admin.refused("AdjustCall", **_fields(admin, call_id, add_usd="-1"))
    above = await admin.refused("AdjustCall", **_fields(admin, call_id, cost_usd="5"))

    assert (below.code, below.reason) == (PRECONDITION, "AMOUNT_REFUSED")
    assert below.metadata == {"call_id": call_id, "total_usd": format_amount(cost - 1)}
    assert (above.code, above.reason, above.metadata["total_usd"]) == (PRECONDITION, "AMOUNT_REFUSED", "5")
    assert Decimal(above.metadata["upper_bound_usd"]) < 5
    assert await admin.changes(admin.service.tenant_id) == []
    meant = await admin.call("AdjustCall", **_fields(admin, call_id, cost_usd="5", above_bound=True))
    assert meant.total_cost_usd == "5"


async def test_call_of_another_tenant_is_not_found(admin: Admin, other_tenant: Caller, call_id: str) -> None:
    """Even with an operator's key: the request must name the call's own tenant."""
    other = await admin.refused(
        "AdjustCall", **_fields(admin, call_id, add_usd="1", tenant_id=other_tenant.service.tenant_id)
    )

    assert (other.code, other.reason) == (grpc.StatusCode.NOT_FOUND, "CALL_NOT_FOUND")
    assert other.metadata == {"call_id": call_id}


async def test_pending_call_is_not_adjustable(admin: Admin, caller: Caller) -> None:
    """While its answer is streamed, a call has no cost: the error states the state."""
    streaming = caller.start("@sandbox slow tokens=400 first_delay_ms=0 delay_ms=20")
    async for response in streaming:
        if response.HasField("text_delta"):
            break
    (entry,) = caller.service.entries("talk")

    failure = await admin.refused("AdjustCall", **_fields(admin, entry.call_id, add_usd="0.001"))
    streaming.cancel()

    assert (failure.code, failure.reason) == (PRECONDITION, "CALL_NOT_ADJUSTABLE")
    assert failure.metadata == {"call_id": entry.call_id, "state": "pending"}


async def test_adjusting_needs_the_scope_admin(admin: Admin, call_id: str, issue: Callable[..., str]) -> None:
    """A key of the scope billing may read the cost of a call, not change it."""
    key = issue(admin.service, scopes=frozenset({Scope.BILLING}))
    request = pb.AdjustCallRequest(**_fields(admin, call_id, add_usd="1"))

    failure = await failure_of(
        admin.stub.AdjustCall(request, metadata=(("authorization", f"Bearer {key}"),), timeout=180)
    )

    assert failure.reason == "SCOPE_MISSING"


async def test_budget_follows_an_adjustment(admin: Admin, caller: Caller, call_id: str) -> None:
    """The remaining budget changes with the call's cost."""
    tenant_id = admin.service.tenant_id
    budget = budget_pb2.Budget(window=budget_pb2.BUDGET_WINDOW_TOTAL, limit_usd="1")
    await admin.set_policy(tenant_id, tenant_pb2.Policy(budgets=[budget]))

    await admin.call("AdjustCall", **_fields(admin, call_id, cost_usd="0.004"))

    stored = caller.service.database["budgets"].find_one({"_id": tenant_id})
    assert stored is not None
    assert stored["correction"] == {"revision": 1, "adjustment_id": None}
    assert caller.service.database["ledger"].find_one({"tenant_id": tenant_id, "unapplied": True}) is None
