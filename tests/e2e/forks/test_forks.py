"""ForkSession: the fork has the history, the agent and its state up to a point, and nothing else of its origin."""

import asyncio
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import session_pb2 as session_pb

from tests.conftest import Start
from tests.e2e.attachments.conftest import VISION
from tests.e2e.forks.conftest import FORKED, Definer, Forker
from tests.e2e.turns.streams import insert_messages, joined, resume, until_text
from tests.e2e.turns.test_operations import QUIET
from tests.support.caller import Caller, Turn, failure_of, read
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.media import png
from tests.support.service import Document, Service

TOOLS = "@sandbox tool-loop calls=3 parallel=2 tool=calculator"


def seen(forker: Forker, session_id: str) -> list[Document]:
    """Return the messages of the last request of a session, as the provider received them."""
    messages: list[Document] = forker.service.requests(session_id)[-1]["messages"]
    return messages


async def firsts(forker: Forker, turns: list[tuple[str, list[bytes]]]) -> tuple[list[list[Document]], list[int]]:
    """Run turns; return the messages of the first request of each, and the number of the message that begins it."""
    found, numbers = [], []
    for text, attachments in turns:
        session = forker.service.session("talk")
        before = len(forker.service.requests("talk"))
        numbers.append((session["message_count"] if session is not None else 0) + 1)
        assert (await forker.converse(text, *attachments)).finished
        found.append(forker.service.requests("talk")[before]["messages"])
    return found, numbers


async def test_fork_at_every_message_sees_the_history_up_to_there(forker: Forker, second_caller: Caller) -> None:
    """Of a session with tool loops and attachments: what the provider gets is what it got of the origin there."""
    turns = [
        ("What is this?", [png()]),
        (TOOLS, []),
        ("hello", []),
        (f"{TOOLS} reasoning=3", [png(), png(30, 20)]),
        ("and now?", []),
    ]
    requests, numbers = await firsts(forker, turns)
    messages = await forker.caller.messages()
    before, metrics = forker.service.session("talk"), await forker.caller.metrics()
    kinds: list[str] = []
    for message in messages:
        fork_id = f"fork-{message.number}"
        blocks = {str(block.WhichOneof("block")) for block in message.content}
        if blocks & {"tool_use", "tool_result"}:
            kinds.append("refused")
            failure = await failure_of(forker.fork(number=message.number, fork_session_id=fork_id))
            assert (failure.code, failure.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "FORK_POINT_REFUSED")
            assert failure.metadata == {"session_id": "talk", "number": str(message.number)}
            continue
        fork = await forker.fork(number=message.number, fork_session_id=fork_id)
        origin = fork.session.origin
        if message.role == session_pb.ROLE_USER:
            kinds.append("again")
            turn = numbers.index(message.number)
            assert fork.next_message.text == message.content[0].text == turns[turn][0]
            assert [each.attachment for each in message.content[1:]] == list(fork.next_message.attachments)
            carried = [each.attachment_id for each in fork.next_message.attachments]
            assert (await forker.converse(fork.next_message.text, *carried, session_id=fork_id)).finished
            assert forker.service.requests(fork_id)[0]["messages"] == requests[turn]
            assert origin.number == message.number - 1
        else:
            kinds.append("after")
            assert not fork.HasField("next_message")
            assert (await Forker(second_caller).converse("another way", session_id=fork_id)).finished
            later = [turn for turn, number in enumerate(numbers) if number == message.number + 1]
            expected = requests[later[0]][:-1] if later else [*requests[-1], seen(forker, fork_id)[-2]]
            assert seen(forker, fork_id) == [*expected, seen(forker, fork_id)[-1]]
            assert "another way" in str(seen(forker, fork_id)[-1]["content"])
            assert origin.number == message.number
        assert (origin.session_id, fork.session.message_count) == ("talk", origin.number)
        assert (fork.session.cost_usd, fork.session.agent, fork.session.model) == ("0", "assistant", VISION)
        copied = await forker.caller.messages(fork_id)
        assert_valid_history(copied)
        assert [each.content for each in copied[: origin.number]] == [
            each.content for each in messages[: origin.number]
        ]
        assert {each.turn_id for each in copied[: origin.number]} <= {""}

    assert kinds.count("again") == kinds.count("after") == len(turns)
    assert kinds.count("refused") == len(messages) - 2 * len(turns) == 8
    assert await forker.caller.messages() == messages
    assert forker.service.session("talk") == before
    assert await forker.caller.metrics() == metrics


async def test_fork_has_its_own_totals(forker: Forker) -> None:
    """They begin with "0", are those of its own turns, and the origin's do not change by them."""
    await forker.converse(TOOLS)
    totals = (await forker.caller.metrics()).totals
    await forker.fork(fork_session_id="other")
    fresh = await forker.caller.metrics("other")
    turn = await forker.converse("and now?", session_id="other")

    assert (fresh.totals.cost_usd, fresh.totals.model_calls, fresh.totals.turns) == ("0", 0, 0)
    assert list(fresh.recent_runs) == []
    assert turn.started.totals.cost_usd == "0"
    assert (await forker.caller.metrics("other")).totals == turn.finished.turn_totals
    assert (await forker.caller.metrics()).totals == totals
    assert len(forker.service.entries("other")) == 1


async def test_fork_of_all_messages(forker: Forker, second_caller: Caller) -> None:
    """Without a number; its id is generated; another server has it at once."""
    await forker.converse("hello", user="ada")
    fork = await forker.fork()
    shown = (await second_caller.call("GetSession", pb.GetSessionRequest(session_id=fork.session.session_id))).session
    listed = (await second_caller.call("ListSessions", pb.ListSessionsRequest(user="ada"))).sessions

    assert shown == fork.session
    assert (shown.user, shown.message_count, shown.origin.number) == ("ada", 2, 2)
    assert [each.session_id for each in listed] == [fork.session.session_id, "talk"]
    refused = await second_caller.converse("hi", session_id=fork.session.session_id, user="bob")
    assert refused.failure is not None
    assert list(refused.failure.fields) == ["user"]


async def test_fork_of_a_fork(forker: Forker) -> None:
    """It names the fork, and has the messages of both; each can be deleted by itself."""
    await forker.converse("one", png())
    await forker.fork(fork_session_id="second")
    await forker.converse("two", session_id="second")
    third = await forker.fork("second", fork_session_id="third", number=4)
    await forker.delete("talk")
    await forker.delete("second")
    assert (await forker.converse("three", session_id="third")).finished
    contents = [part["content"] for part in seen(forker, "third") if part["role"] == "user"]

    assert (third.session.origin.session_id, third.session.origin.number) == ("second", 4)
    assert [each if isinstance(each, str) else each[0]["text"] for each in contents] == ["one", "two", "three"]
    assert forker.stored() == {"sessions": 1, "messages": 6}
    assert len(forker.seen("third")[0]) == 1


async def test_fork_has_the_agents_state_of_its_point(definer: Definer, forker: Forker) -> None:
    """As it was after each answer, without the metrics; a later state of the origin is not in it."""
    await definer.apply("support", tools=[{"builtin": "notebook"}])
    pinned = {"agent": "support@1"}

    async def note(text: str, session_id: str = "talk") -> Turn:
        value = json.dumps({"action": "write", "name": "plan", "text": text})
        scenario = f"@sandbox tool-loop calls=2 tool=notebook input='{value}'"
        return await forker.converse(scenario, session_id=session_id, **(pinned if session_id == "talk" else {}))

    def notes(session_id: str) -> Any:
        session = forker.service.session(session_id)
        assert session is not None
        state = json.loads(session["state"])
        return state.get("godoty_notebook"), sorted(state)

    await forker.converse("hello", **pinned)  # 1, 2
    await note("walk")  # 3 to 6
    await forker.converse("hello")  # 7, 8
    await note("rest")  # 9 to 12
    await forker.converse("hello")  # 13, 14
    expected = {2: None, 6: {"plan": "walk"}, 7: {"plan": "walk"}, 8: {"plan": "walk"}, 9: {"plan": "walk"}}
    expected |= {12: {"plan": "rest"}, 13: {"plan": "rest"}, 14: {"plan": "rest"}, 3: None, 1: None}
    for number, text in expected.items():
        fork = await forker.fork(number=number, fork_session_id=f"at-{number}")
        assert (fork.session.agent, fork.session.agent_version) == ("support", 1)
        assert notes(f"at-{number}") == (text, ["godoty_notebook"] if text else [])
    stored = forker.service.database["messages"].find({"session_uid": forker.uid("talk"), "state": {"$exists": True}})
    assert [each["number"] for each in stored.sort("number")] == [6, 12]  # each state once

    assert (await note("swim", "at-8")).finished
    assert notes("at-8")[0] == {"plan": "swim"}
    assert notes("talk")[0] == {"plan": "rest"}
    assert "godoty_metrics" in notes("at-8")[1]
    await forker.fork("at-8", number=8, fork_session_id="again")
    await forker.fork("at-8", fork_session_id="later")
    assert (notes("again")[0], notes("later")[0]) == ({"plan": "walk"}, {"plan": "swim"})


async def test_state_of_an_earlier_builds_turns_is_that_of_the_end(definer: Definer, forker: Forker) -> None:
    """Their messages do not have it: a fork of all messages has the session's, any other none."""
    await definer.apply("support", tools=[{"builtin": "notebook"}])
    value = json.dumps({"action": "write", "name": "plan", "text": "walk"})
    await forker.converse(f"@sandbox tool-loop calls=2 tool=notebook input='{value}'", agent="support")
    await forker.converse("hello")
    database, uid = forker.service.database, forker.uid("talk")
    database["messages"].update_many({"session_uid": uid}, {"$unset": {"state": "", "state_number": ""}})
    database["sessions"].update_one({"_id": uid}, {"$unset": {"state_number": ""}})
    states = {}
    for number in (4, 6):
        await forker.fork(number=number, fork_session_id=f"at-{number}")
        states[number] = json.loads((forker.service.session(f"at-{number}") or {})["state"])
    assert states == {4: {}, 6: {"godoty_notebook": {"plan": "walk"}}}
    for _ in range(2):
        await forker.converse("hello", session_id="at-6")
    await forker.fork("at-6", number=8, fork_session_id="again")

    assert json.loads((forker.service.session("again") or {})["state"]) == states[6]


async def test_state_that_an_earlier_build_has_written_is_stored_again(definer: Definer, forker: Forker) -> None:
    """In an upgrade a server of an earlier build runs a turn, whose state no message has: the next answer stores it."""
    await definer.apply("support", tools=[{"builtin": "notebook"}])
    value = json.dumps({"action": "write", "name": "plan", "text": "walk"})
    await forker.converse(f"@sandbox tool-loop calls=2 tool=notebook input='{value}'", agent="support")
    changes = {"state": json.dumps({"godoty_notebook": {"plan": "rest"}}), "last_turn_id": "turn_of_earlier_build"}
    forker.service.database["sessions"].update_one({"_id": forker.uid("talk")}, {"$set": changes})
    for _ in range(2):
        await forker.converse("hello")
    for number, text in ((4, "walk"), (6, "rest")):
        await forker.fork(number=number, fork_session_id=f"at-{number}")
        state = json.loads((forker.service.session(f"at-{number}") or {})["state"])
        assert state == {"godoty_notebook": {"plan": text}}


async def test_fork_keeps_the_summary_of_what_it_has(serve: Start, fork_at: Callable[[Service], Forker]) -> None:
    """What the model saw in place of the oldest messages, it sees in the fork."""
    forker = fork_at(await serve(history_messages=8, history_summary=True))
    for number in range(6):
        await forker.converse(f"hello number {number}")
    await forker.fork(fork_session_id="end")
    await forker.fork(fork_session_id="early", number=4)
    for session_id in ("talk", "end", "early"):
        await forker.converse("and now?", session_id=session_id)

    assert "[Summarized:" in str(seen(forker, "talk"))
    assert seen(forker, "end") == seen(forker, "talk")
    assert "[Summarized:" not in str(seen(forker, "early"))
    assert len(seen(forker, "early")) == 6


async def test_fork_while_a_turn_runs_has_what_has_ended(forker: Forker) -> None:
    """The words of the running turn are a point; what it has answered is not, until it has ended."""
    await forker.converse("hello")
    call = forker.caller.start("@sandbox plain tokens=9 hold_after=3 hold=runs", model=VISION)
    await until_text(call, "t2 ")
    fork = await forker.fork(fork_session_id="other")
    assert (fork.session.message_count, fork.session.origin.number) == (2, 2)
    assert (await forker.converse("hello", session_id="other")).finished
    again = await forker.fork(number=3)
    assert (again.session.message_count, again.next_message.text) == (
        2,
        "@sandbox plain tokens=9 hold_after=3 hold=runs",
    )
    missing = await failure_of(forker.fork(number=4))
    assert (missing.code, missing.reason) == (grpc.StatusCode.NOT_FOUND, "MESSAGE_NOT_FOUND")
    forker.service.backends.allow("runs")
    assert (await read(call)).finished

    assert (await forker.fork()).session.message_count == 4


async def test_answer_of_a_running_turn_is_busy(forker: Forker) -> None:
    """It is no point before its turn has ended, though its message is stored."""
    await forker.converse("hello")
    forker.service.database["sessions"].update_one({"_id": forker.uid("talk")}, {"$set": {"message_count": 0}})
    failure = await failure_of(forker.fork(number=2))

    assert (failure.code, failure.reason, failure.retry_after) == (grpc.StatusCode.ABORTED, "SESSION_BUSY", 1.0)
    assert (await forker.fork()).session.message_count == 0


async def test_same_fork_again_is_the_same_session(forker: Forker, second_caller: Caller) -> None:
    """At once from two servers, and later; another point, or a session that is no fork, is SESSION_EXISTS."""
    for _ in range(2):
        await forker.converse("hello")
    await forker.converse("hello", session_id="taken")
    forkers = [forker, Forker(second_caller)] * 4
    forks = await asyncio.gather(*(each.fork(number=2, fork_session_id="once") for each in forkers))
    assert all(each == forks[0] for each in forks)
    assert await forker.fork(number=2, fork_session_id="once") == forks[0]
    for fields in ({"number": 4, "fork_session_id": "once"}, {"fork_session_id": "taken"}):
        failure = await failure_of(forker.fork(**fields))
        assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SESSION_EXISTS")
        assert failure.metadata == {"session_id": fields["fork_session_id"]}
    assert await forker.fork(number=3, fork_session_id="once") == pb.ForkSessionResponse(
        session=forks[0].session, next_message=session_pb.UserMessage(text="hello")
    )

    assert forker.stored() == {"sessions": 3, "messages": 8}


async def test_empty_fork(forker: Forker) -> None:
    """Before the first message: it has none, and the next turn begins as that of a new session."""
    await forker.converse("hello")
    fork = await forker.fork(number=1, fork_session_id="other")
    assert (fork.session.message_count, fork.next_message.text) == (0, "hello")
    assert await forker.caller.messages("other") == []
    empty = await forker.fork("other", fork_session_id="third")
    turn = await forker.converse("hello", session_id="third")

    assert (empty.session.message_count, empty.session.origin.number) == (0, 0)
    assert not turn.started.session_created
    assert seen(forker, "third") == seen(forker, "talk")


async def test_open_calls_are_closed_in_the_fork(forker: Forker) -> None:
    """Of a session whose last turn has ended with them: as not carried over; the origin's stay open."""
    await forker.converse("hello")
    use = {"toolUse": {"toolUseId": "call_1", "name": "calculator", "input": {"expression": "1"}}}
    changes = {"$set": {"content": json.dumps([{"text": "May I?"}, use])}}
    forker.service.database["messages"].update_one({"session_uid": forker.uid("talk"), "number": 2}, changes)
    fork = await forker.fork(fork_session_id="other")
    assert (fork.session.message_count, fork.session.origin.number) == (4, 2)
    assert (await forker.converse("never mind", session_id="other")).finished
    messages = await forker.caller.messages("other")

    assert_valid_history(messages)
    assert_valid_request(seen(forker, "other"))
    result = messages[2].content[0].tool_result
    assert result.output == "Not carried over: the conversation was forked while this call was open."
    assert result.status == session_pb.TOOL_CALL_STATUS_ERROR
    assert messages[3].content[0].text == FORKED
    assert len(await forker.caller.messages()) == 2


async def test_deleted_fork_leaves_the_logs_of_its_origin(forker: Forker, second_caller: Caller) -> None:
    """They are of turns of the origin; and the origin's deletion leaves the fork."""
    turn = await forker.converse(TOOLS)
    await forker.fork(fork_session_id="one")
    await forker.fork(fork_session_id="two")
    await forker.delete("one")
    again = await resume(second_caller, turn.responses[0].turn_id)
    await forker.delete("talk")

    assert joined(again.responses) == joined(turn.responses)
    assert len(await forker.caller.messages("two")) == 6
    assert (await forker.converse("go on", session_id="two")).finished


@pytest.mark.parametrize("messages", [100, 10_000])
async def test_operations_do_not_depend_on_the_messages(
    serve: Start, fork_at: Callable[[Service], Forker], operations: Any, messages: int
) -> None:
    """Forking at 10,000 messages has the same operations as at 100."""
    forker = fork_at(await serve(**QUIET))
    await forker.converse("look", png())
    insert_messages(forker.service, "talk", messages - 2)
    operations.done.clear()
    fork = await forker.fork(fork_session_id="other")
    counted = operations.counted

    own = {name: count for name, count in counted.items() if name.startswith(("sessions", "messages", "attachments"))}
    assert fork.session.message_count == messages
    assert own == {
        "sessions.find_one": 3,
        "sessions.insert_one": 1,
        "sessions.find_one_and_update": 1,
        "messages.find_one": 1,
        "messages.aggregate": 2,
        "attachments.find": 1,
        "attachments.update_many": 1,
        "attachments.find_one": 1,
    }
    copied = forker.service.database["messages"].find({"session_uid": forker.uid("other")}).sort("number")
    assert all(second["number"] == first["number"] + 1 for first, second in pairwise(copied))


async def test_session_above_the_limit_is_refused(
    serve: Start, fork_at: Callable[[Service], Forker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written; at an earlier message it can be forked."""
    forker = fork_at(await serve())
    for _ in range(3):
        await forker.converse("hello")
    monkeypatch.setattr("godoty_service.session_copies.forks.MAX_MESSAGES", 4)
    before = forker.stored()
    failure = await failure_of(forker.fork())
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SESSION_TOO_LARGE")
    assert (failure.quotas, failure.metadata) == (("messages/copy",), {"limit": "4"})
    assert forker.stored() == before

    assert (await forker.fork(number=4)).session.message_count == 4
