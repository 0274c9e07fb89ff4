"""Between the question and the answer: a restart, a later schema and the way back; two who answer at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from godoty.v1 import action_pb2

from godoty_service.tenancy.auth import Scope
from tests.conftest import StartProcess
from tests.e2e.actions.conftest import (
    ALWAYS,
    APPROVE,
    DONE,
    END_TURN,
    REFUND,
    Asker,
    asked,
    not_busy,
    outputs,
)
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.later_schema import LATER_SCHEMA
from tests.support.leases import LONG_LEASE_ENVIRONMENT, end_leases
from tests.support.service import Service

BOTH = '@sandbox tool-loop calls=2 parallel=2 input=\'{"expression": "6 * 7"}\''
LATER = {LATER_SCHEMA: "1"}


async def ask_both(asker: Asker) -> list[action_pb2.Action]:
    """Ask for an approval, and for the result of a tool of the caller's."""
    await asker.agent({"builtin": "calculator", **ALWAYS}, {"client": REFUND})
    actions = asked(await asker.ask(BOTH))
    assert {each.name for each in actions} == {"calculator", "refund"}
    return actions


def answers(actions: list[action_pb2.Action]) -> list[tuple[action_pb2.Action, dict[str, Any]]]:
    """Return the answers."""
    return [(each, DONE if each.name == "refund" else APPROVE) for each in actions]


@pytest.mark.parametrize(("before", "after"), [({}, LATER), (LATER, {}), ({}, {})], ids=["later", "back", "restart"])
async def test_answers_act_after_a_change_of_the_schema(
    serve_process: StartProcess,
    become: Callable[[Service], Asker],
    new_database: str,
    before: dict[str, str],
    after: dict[str, str],
) -> None:
    """One comes to the first server, which is killed; the other to one of another schema, or to a restarted one."""
    process, service = await serve_process(database=new_database, **LONG_LEASE_ENVIRONMENT, **before)
    asker = become(service)
    actions = await ask_both(asker)
    first = await asker.answer(*answers(actions)[:1])
    assert [each.action_id for each in asked(first)] == [actions[1].action_id]
    await process.kill()
    end_leases(service.database, process.replica_id)
    if after == before:
        await process.start()
        address = process.address
    else:
        address = (await serve_process(database=new_database, **LONG_LEASE_ENVIRONMENT, **after))[0].address
    other = become(service.at(address))
    turn = await not_busy(lambda: other.answer(*answers(actions)))

    assert turn.finished.stop_reason == END_TURN
    assert list(outputs(first) | outputs(turn)) == [each.name for each in actions]
    assert len(other.service.entries("talk")) == 2
    assert_valid_history(await other.caller.messages())
    assert_valid_request(other.requests()[-1]["messages"])
    again = await other.answer(*answers(actions))
    assert again.failure is not None
    assert again.failure.reason == "ACTION_CLOSED"


async def test_of_two_who_answer_in_the_chat_at_once_one_wins(asker: Asker) -> None:
    """The other gets the reason: the session is busy, or the answer was given; nothing runs twice."""
    actions = await ask_both(asker)
    key = asker.issue(asker.service, scopes=frozenset({Scope.CONVERSE}))
    attempts = await asyncio.gather(asker.answer(*answers(actions)), asker.answer(*answers(actions), key=key))

    (won,) = [each for each in attempts if each.failure is None]
    (lost,) = [each.failure for each in attempts if each.failure is not None]
    assert won.finished.stop_reason == END_TURN
    assert lost.reason in ("SESSION_BUSY", "ACTION_CLOSED", "ACTION_DECIDED")
    late = (await asker.answer(*answers(actions), key=key)).failure
    assert late is not None
    assert (late.code, late.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ACTION_CLOSED")
    assert len(asker.service.entries("talk")) == 2


async def test_chat_and_office_at_once(asker: Asker) -> None:
    """Each answers all: every action has one answer, and the session goes on once."""
    actions = await ask_both(asker)
    office = asker.issue(asker.service, scopes=frozenset({Scope.APPROVE}))
    chat = asyncio.create_task(asker.answer(*answers(actions)))
    tried = await asyncio.gather(
        *(asker.decide(*each, key=office) for each in answers(actions)), return_exceptions=True
    )
    turn = await chat

    assert turn.failure is None or turn.failure.reason in ("SESSION_BUSY", "ACTION_DECIDED", "ACTION_CLOSED")
    assert all(isinstance(each, action_pb2.Action | grpc.RpcError) for each in tried)
    if turn.failure is None and not asked(turn):
        assert turn.finished.stop_reason == END_TURN
    else:
        await not_busy(lambda: asker.ask("and now?"))
    assert_valid_history(await asker.caller.messages())
    listed = await asker.actions()
    assert action_pb2.ACTION_STATE_OPEN not in {each.state for each in listed}
