"""Answers whose turn is refused: what has run is kept, and the same answers go on later."""

from __future__ import annotations

from typing import Any

import pytest
from godoty.v1 import action_pb2, budget_pb2, tenant_pb2
from godoty.v1 import admin_service_pb2 as admin_pb
from godoty.v1 import admin_service_pb2_grpc as admin_stubs

from godoty_service.tenancy.auth import Scope
from tests.e2e.actions.conftest import ALWAYS, APPROVE, END_TURN, Asker, asked, calls, outputs
from tests.e2e.actions.test_client_tools import LOOK, upload
from tests.support.history import assert_valid_history
from tests.support.media import pdf

WRITE = '{"action": "write", "name": "note", "text": "remember this"}'


async def limit(asker: Asker, *amounts: str) -> None:
    """Set the tenant's budget; none: it has none."""
    budgets = [budget_pb2.Budget(window=budget_pb2.BUDGET_WINDOW_TOTAL, limit_usd=each, hard=True) for each in amounts]
    stub = admin_stubs.AdminServiceStub(asker.caller.channel)  # type: ignore[no-untyped-call] # generated
    key = asker.issue(asker.service, scopes=frozenset({Scope.ADMIN}))
    policy = tenant_pb2.Policy(budgets=budgets)
    request = admin_pb.UpdatePolicyRequest(
        tenant_id=asker.service.tenant_id, policy=policy, update_mask={"paths": ["budgets"]}
    )
    await stub.UpdatePolicy(request, metadata=(("authorization", f"Bearer {key}"),))


async def test_budget_that_is_spent_meanwhile_loses_nothing(asker: Asker) -> None:
    """The tool has run once, and what it did to the agent's state is kept; a later answer calls the model."""
    await asker.agent({"builtin": "notebook", **ALWAYS})
    (action,) = asked(await asker.ask(calls("notebook", arguments=WRITE)))
    await limit(asker, "0.0000001")
    refused = await asker.answer((action, APPROVE))

    assert refused.failure is not None
    assert refused.failure.reason == "BUDGET_SPENT"
    assert list(outputs(refused)) == ["notebook"]
    session = asker.service.session("talk")
    assert session is not None
    assert "remember this" in session["state"]
    await limit(asker)
    turn = await asker.answer((action, APPROVE))
    assert turn.finished.stop_reason == END_TURN
    assert outputs(turn) == {}
    session = asker.service.session("talk")
    assert session is not None
    assert session["state"].count("remember this") == 1
    assert_valid_history(await asker.caller.messages())


@pytest.mark.parametrize("door", ["chat", "office"])
async def test_document_is_no_image(asker: Asker, door: str) -> None:
    """The action stays open."""
    await asker.agent("calculator")
    (action,) = asked(await asker.ask(calls("look_up", arguments='{"number": 1}'), client_tools=[LOOK]))
    answer: dict[str, Any] = {"output": {"attachment_id": await upload(asker.caller, pdf())}}
    if door == "chat":
        failure = (await asker.answer((action, answer))).failure
    else:
        failure = await asker.refused(action, answer)

    assert failure is not None
    field = "action_results[0]" if door == "chat" else "action_result"
    assert failure.fields == {f"{field}.output.attachment_id": "must be that of an image"}
    (listed,) = await asker.actions()
    assert listed.state == action_pb2.ACTION_STATE_OPEN


async def test_answer_to_an_action_twice_in_a_request_is_refused(asker: Asker) -> None:
    """Nothing is decided."""
    await asker.agent({"builtin": "calculator", **ALWAYS})
    (action,) = asked(await asker.ask(calls("calculator", arguments='{"expression": "6 * 7"}')))
    turn = await asker.answer((action, APPROVE), (action, {"deny": {}}))

    assert turn.failure is not None
    assert turn.failure.fields.keys() == {"action_results"}
    (listed,) = await asker.actions()
    assert listed.state == action_pb2.ACTION_STATE_OPEN


async def test_changed_input_that_the_tool_does_not_take_is_an_error_for_the_model(asker: Asker) -> None:
    """The turn goes on, and the model sees which input it was."""
    await asker.agent({"builtin": "calculator", **ALWAYS})
    (action,) = asked(await asker.ask(calls("calculator", arguments='{"expression": "6 * 7"}')))
    turn = await asker.answer((action, {"approve": {"input_json": '{"sum": [1, 2]}'}}))

    assert turn.finished.stop_reason == END_TURN
    (finished,) = [each.tool_call_finished for each in turn.responses if each.HasField("tool_call_finished")]
    assert finished.status != 1
    assert '{"sum": [1, 2]}' in finished.output
