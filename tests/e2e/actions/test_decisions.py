"""Answers without a conversation at hand: who may give them, and how the session goes on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from godoty.v1 import action_pb2
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.actions.action import Answer, Decider, Verdict
from godoty_service.bootstrap.components import open_components
from godoty_service.tenancy.auth import Scope
from tests.conftest import Start
from tests.e2e.actions.conftest import ALWAYS, APPROVE, END_TURN, Asker, asked, calls, goes_on
from tests.support.caller import Caller, read
from tests.support.service import Service

CALCULATE = '{"expression": "6 * 7"}'
REVIEWED: dict[str, Any] = {"approval": {"decider": "ACTION_DECIDER_REVIEWER"}}


async def test_session_goes_on_by_itself_once_all_is_decided(asker: Asker) -> None:
    """With the key that asked; who decided is kept; a reader can follow by the turn that the action names."""
    await asker.agent({"builtin": "calculator", **ALWAYS}, {"builtin": "current_time", **ALWAYS})
    first, other = asked(await asker.ask("@sandbox tool-loop calls=2 parallel=2"))
    office = asker.issue(asker.service, scopes=frozenset({Scope.APPROVE}))

    decided = await asker.decide(first, APPROVE, user="carol", key=office)
    assert decided.state == action_pb2.ACTION_STATE_DECIDED
    assert decided.decision.user == "carol"
    assert decided.decision.api_key_id == office.split("_")[1]
    assert len(asker.service.entries("talk")) == 1
    await asker.decide(other, {"deny": {"why": "no"}}, key=office)

    turn_id = await goes_on(asker, other.action_id)
    turn = await read(asker.caller.resume(turn_id))
    assert turn.finished.stop_reason == END_TURN
    asking, going = asker.service.entries("talk")
    assert going.turn_id == turn_id
    assert asking.api_key_id == going.api_key_id == asker.service.key_id


async def test_reviewers_action_needs_the_scope_approve_by_either_door(asker: Asker) -> None:
    """A key of the scope converse is refused, and nothing is decided; one with both scopes answers in the chat."""
    await asker.agent({"builtin": "calculator", **REVIEWED})
    (action,) = asked(await asker.ask(calls("calculator", arguments=CALCULATE)))
    assert action.decider == action_pb2.ACTION_DECIDER_REVIEWER

    failure = await asker.refused(action, APPROVE)
    assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "REVIEWER_ONLY")
    turn = await asker.answer((action, APPROVE))
    assert turn.failure is not None
    assert turn.failure.reason == "REVIEWER_ONLY"
    both = asker.issue(asker.service, scopes=frozenset({Scope.CONVERSE, Scope.APPROVE}))
    assert (await asker.answer((action, APPROVE), key=both)).finished.stop_reason == END_TURN


async def test_key_of_the_scope_approve_lists_and_decides_and_does_no_more(asker: Asker) -> None:
    """It begins no turn and reads no session."""
    office = asker.issue(asker.service, scopes=frozenset({Scope.APPROVE}))
    assert await asker.actions(key=office) == []
    request = pb.ConverseRequest(text="hi")
    turn = await read(asker.caller.stub.Converse(request, metadata=(("authorization", f"Bearer {office}"),)))
    assert turn.failure is not None
    assert turn.failure.reason == "SCOPE_MISSING"


async def test_of_two_who_decide_at_once_one_wins(asker: Asker) -> None:
    """The other gets an error that names the key of the first; the winner may repeat the answer."""
    await asker.agent({"builtin": "calculator", **ALWAYS})
    (action,) = asked(await asker.ask(calls("calculator", arguments=CALCULATE)))
    keys = [asker.issue(asker.service, scopes=frozenset({Scope.APPROVE})) for _ in range(2)]
    attempts = await asyncio.gather(*(asker.decide(action, APPROVE, key=key) for key in keys), return_exceptions=True)

    failed = [each for each in attempts if isinstance(each, BaseException)]
    (won,) = [each for each in attempts if isinstance(each, action_pb2.Action)]
    assert len(failed) == 1
    winner = next(key for key in keys if key.split("_")[1] == won.decision.api_key_id)
    loser = next(key for key in keys if key != winner)
    failure = await asker.refused(action, APPROVE, key=loser)
    assert failure.reason == "ACTION_DECIDED"
    assert failure.metadata["api_key_id"] == won.decision.api_key_id
    await goes_on(asker, action.action_id)
    assert (await asker.decide(action, APPROVE, key=winner)).action_id == action.action_id
    assert len(asker.service.entries("talk")) == 2


async def test_actions_of_a_revoked_key_are_closed(asker: Asker) -> None:
    """No other key pays for what would go on."""
    await asker.agent({"builtin": "calculator", **ALWAYS})
    other = asker.issue(asker.service, scopes=frozenset({Scope.CONVERSE}))
    request = pb.ConverseRequest(text=calls("calculator", arguments=CALCULATE), agent="support", session_id="talk")
    metadata = (("authorization", f"Bearer {other}"),)
    stream = asker.caller.stub.Converse(request, metadata=metadata)
    events = [each.event async for each in stream]
    (action,) = [each.action_required for each in events if each.HasField("action_required")]
    asker.service.database["api_keys"].update_one({"_id": other.split("_")[1]}, [{"$set": {"revoke_time": "$$NOW"}}])

    failure = await asker.refused(action, APPROVE)
    assert failure.reason == "ACTION_CLOSED"
    (listed,) = await asker.actions()
    assert listed.state == action_pb2.ACTION_STATE_CLOSED
    assert len(asker.service.entries("talk")) == 1


async def test_answer_of_a_server_that_dies_is_found_by_another(
    serve: Start, become: Callable[[Service], Asker], connect: Callable[[Service], Caller]
) -> None:
    """A decision that was stored, and nothing more, is gone on with."""
    asker = become(await serve(action_interval=0.1))
    await asker.agent({"builtin": "calculator", **ALWAYS})
    (action,) = asked(await asker.ask(calls("calculator", arguments=CALCULATE)))
    service = asker.service
    async with open_components(service.backends.settings(service.database.name)) as components:
        stores = components.conversations.actions
        found = await stores.calls.get(service.tenant_id, action.action_id)
        await stores.steps.look_soon(found.step_id, service.tenant_id)
        answer = Answer(action_id=action.action_id, verdict=Verdict.APPROVE)
        await stores.calls.decide(found, answer, Decider(key_id="another"))

    await goes_on(asker, action.action_id)
    assert [each["role"] for each in asker.requests()[-1]["messages"]][-1] == "tool"


async def test_lists_are_by_session_and_state(asker: Asker) -> None:
    """Newest first, page by page; another session's are apart."""
    await asker.agent({"builtin": "calculator", **ALWAYS})
    found = []
    for session_id in ("one", "two"):
        text = calls("calculator", arguments=CALCULATE)
        found += asked(await asker.ask(text, session_id=session_id))
    ids = [each.action_id for each in found]

    assert [each.action_id for each in await asker.actions()] == ids[::-1]
    assert [each.action_id for each in await asker.actions(session_id="one")] == ids[:1]
    assert await asker.actions(state=action_pb2.ACTION_STATE_DECIDED) == []
    page = await asker.caller.call("ListActions", pb.ListActionsRequest(page_size=1))
    rest = await asker.caller.call("ListActions", pb.ListActionsRequest(page_size=1, page_token=page.next_page_token))
    assert [each.action_id for each in (*page.actions, *rest.actions)] == ids[::-1]
    assert rest.next_page_token == ""
