"""ExportSession and ImportSession: a conversation as lines of JSON, and a session that is made of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import session_pb2 as session_pb

from tests.conftest import Start
from tests.e2e.forks.conftest import Definer, Forker
from tests.support.caller import failure_of
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.media import png
from tests.support.service import Service, soon

LONGEST = 256 * 1024
BEGIN, END = '{"begin": {"format": 1}}', '{"end": {}}'


async def export(forker: Forker, session_id: str = "talk") -> list[str]:
    """Export a session."""
    request = pb.ExportSessionRequest(session_id=session_id)
    call = forker.caller.stub.ExportSession(request, metadata=forker.service.metadata, timeout=90)
    return [each.line async for each in call]


async def load(forker: Forker, lines: Sequence[str], *, together: int = 1, **fields: Any) -> session_pb.Session:
    """Import lines, some together in a request."""

    async def requests() -> AsyncIterator[pb.ImportSessionRequest]:
        for start in range(0, len(lines), together):
            text = "\n".join(lines[start : start + together])
            yield pb.ImportSessionRequest(lines=text, **(fields if start == 0 else {}))

    answer = await forker.caller.stub.ImportSession(requests(), metadata=forker.service.metadata, timeout=90)
    found: session_pb.Session = answer.session
    return found


def message(role: str, *blocks: dict[str, Any]) -> list[str]:
    """Return the lines of a message."""
    content = [{"content": {"block_index": index, "block": block}} for index, block in enumerate(blocks)]
    return [json.dumps(each) for each in ({"message": {"role": f"ROLE_{role}"}}, *content)]


def lines_of(*messages: list[str], state: str = "") -> list[str]:
    """Return the lines of an export."""
    states = [json.dumps({"state_json": state})] if state else []
    end = json.dumps({"end": {"message_count": len(messages)}})
    return [BEGIN, *(line for each in messages for line in each), *states, end]


def sent(forker: Forker, session_id: str) -> list[dict[str, Any]]:
    """Return the messages of the last request of a session, without the provider's own reasoning."""
    last = forker.service.requests(session_id)[-1]["messages"]
    return [{name: value for name, value in each.items() if name != "reasoning_details"} for each in last]


def contents(messages: Sequence[session_pb.Message]) -> list[tuple[Any, ...]]:
    """Return what the messages of a copy have of the original's."""
    return [(each.number, each.role, list(each.content), list(each.citations)) for each in messages]


async def test_imported_session_is_the_exported_one(
    definer: Definer, forker: Forker, serve: Start, fork_at: Callable[[Service], Forker]
) -> None:
    """By another server: its messages, attachments, state, agent and user; a turn sees what it would have seen."""
    other = fork_at(forker.service.at((await serve(database=forker.service.database.name)).target))
    await definer.apply("support", tools=[{"builtin": "notebook"}, {"builtin": "calculator"}])
    agent = {"agent": "support@1", "user": "ada"}
    note = json.dumps({"action": "write", "name": "plan", "text": "ü" * 3_000})
    await forker.converse("What is this?", png(), **agent)
    await forker.converse(f"@sandbox tool-loop calls=2 tool=notebook input='{note}'")
    await forker.converse("@sandbox tool-loop calls=2 parallel=2 tool=calculator reasoning=3")
    await forker.converse("\x01\x02 ü " * 20_000)
    totals = (await forker.caller.metrics()).totals
    lines = await export(forker)
    session = await load(other, lines, session_id="copy", together=2)
    originals, copied = await forker.caller.messages(), await other.caller.messages("copy")
    for session_id in ("talk", "copy"):
        await forker.converse("and now?", session_id=session_id)
    last, last_of_copy = (sent(forker, each) for each in ("talk", "copy"))

    assert all(len(each.encode()) <= LONGEST and "\n" not in each for each in lines)
    records = [json.loads(each) for each in lines]
    assert list(records[0]) == ["begin"]
    assert records[0]["begin"]["totals"]["cost_usd"] == totals.cost_usd
    assert records[-1] == {"end": {"message_count": str(len(originals))}}
    assert contents(copied) == contents(originals)
    assert (session.agent, session.agent_version, session.user, session.cost_usd) == ("support", 1, "ada", "0")
    assert (session.model, session.message_count) == (records[0]["begin"]["session"]["model"], len(originals))
    assert not session.HasField("origin")
    state = json.loads((forker.service.session("copy") or {})["state"])
    assert state["godoty_notebook"] == {"plan": "ü" * 3_000}
    assert last_of_copy == last
    assert len(forker.seen("copy")[-1]) == 1
    await forker.delete("talk")
    assert forker.documents()[0] == 1
    exported = contents_of_export(lines)
    assert contents_of_export(await export(other, "copy"))[: len(exported)] == exported


def contents_of_export(lines: Sequence[str]) -> list[str]:
    """Return the lines of the content of an export."""
    return [each for each in lines if "content" in json.loads(each)]


async def test_import_of_another_tenant(forker: Forker, fork_at: Callable[[Service], Forker]) -> None:
    """Attachments are notes, the agent must be one of the tenant; names and totals are its own."""
    await forker.converse("look", png(), user="ada")
    lines = await export(forker)
    stranger = fork_at(forker.service.another_tenant())
    missing = await failure_of(load(stranger, lines, agent="support"))
    assert missing.reason == "AGENT_NOT_FOUND"
    session = await load(stranger, lines, session_id="copy", user="bob")
    assert (session.user, session.cost_usd) == ("bob", "0")
    assert (await stranger.converse("and now?", session_id="copy", user="bob")).finished
    first = (await stranger.caller.messages("copy"))[0]

    assert [each.WhichOneof("block") for each in first.content] == ["text", "text"]
    assert first.content[1].text.endswith("left out, because the session was imported without it.]")
    assert stranger.documents() == (0, 0)
    assert stranger.stored() == {"sessions": 1, "messages": 4}


async def test_any_history_can_be_continued(forker: Forker) -> None:
    """What is missing is completed: strict providers take what is made of it."""
    use = {"tool_use": {"tool_call_id": "call_1", "name": "calculator", "input_json": '{"expression": "1"}'}}
    result = {"tool_result": {"tool_call_id": "call_1", "status": "TOOL_CALL_STATUS_SUCCESS", "output": "1"}}
    text = {"text": "words"}
    cases = {
        "empty": lines_of(),
        "answer-first": lines_of(message("ASSISTANT", text)),
        "two-users": lines_of(message("USER", text), message("USER", text)),
        "no-result": lines_of(message("USER", text), message("ASSISTANT", text, use), message("USER", text)),
        "no-call": lines_of(message("USER", result), message("ASSISTANT", use), message("ASSISTANT", text)),
        "both": lines_of(message("USER", text), message("ASSISTANT", use, use), message("USER", result, text)),
        "blank": lines_of(message("USER", {"text": " "}), message("ASSISTANT", {"text": ""}), message("USER", text)),
        "no-content": lines_of(message("USER"), message("ASSISTANT")),
        "input": lines_of(message("ASSISTANT", {"tool_use": {"tool_call_id": "", "name": "a b", "input_json": "[1]"}})),
        "later": lines_of(message("USER", {"later": 1}, text), ['{"unknown": {"a": 1}}']),
    }
    cases["later"][-1] = '{"end": {"message_count": 1}}'
    for session_id, lines in cases.items():
        await load(forker, lines, session_id=session_id)
        turn = await forker.converse("go on", session_id=session_id)
        assert turn.failure is None, (session_id, turn.failure)
        assert_valid_request(forker.service.requests(session_id)[-1]["messages"])
        assert_valid_history(await forker.caller.messages(session_id))
    assert len(await forker.caller.messages("empty")) == 2


async def test_what_is_no_export_is_refused(forker: Forker) -> None:
    """INVALID_FIELD `lines` with the number of the line; nothing is stored."""
    text, large = {"text": "words"}, {"text": "a" * 200_000}
    use = {"tool_use": {"tool_call_id": "a", "name": "b", "input_json": "{"}}
    cases: dict[str, list[str]] = {
        "line 1 must be `begin`": [END],
        "must have an `end`": [BEGIN, *message("USER", text)],
        "line 2 is no SessionRecord": [BEGIN, "{", END],
        "line 3 is no SessionRecord": [BEGIN, *message("USER"), "[" * 5_000, END],
        "line 2 belongs to no message": [BEGIN, *message("USER", text)[1:], END],
        "line 2 must not be `begin`": [BEGIN, BEGIN, END],
        "line 3 follows the end": [BEGIN, END, END],
        "says 0 messages": [BEGIN, *message("USER", text), END],
        "has no role": [BEGIN, '{"message": {}}', END],
        "a message of more than 1,048,576 bytes": lines_of(message("USER", *[large] * 6)),
        "a message of more than 1,000 blocks": lines_of(message("USER", *[text] * 1_001)),
        "of another kind": [BEGIN, *message("USER", text), message("USER", large, use)[2].replace("1", "0"), END],
        "input is no JSON": lines_of(message("ASSISTANT", use)),
        "state is no JSON object": lines_of(state="[]"),
        "a state of more than 262,144 characters": [
            *lines_of(state="1" * 150_000)[:-1],
            *lines_of(state="1" * 150_000)[1:],
        ],
        "has an agent that cannot be one": ['{"begin": {"format": 1, "session": {"agent": "a b"}}}', END],
        "must have at most 262,144 bytes": [BEGIN, json.dumps({"state_json": "ü" * 140_000}, ensure_ascii=False), END],
    }
    for what, lines in cases.items():
        failure = await failure_of(load(forker, lines, session_id="copy"))
        assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"), what
        assert what in failure.fields["lines"], (what, failure.fields)
    await soon(lambda: forker.stored() == {"sessions": 0, "messages": 0})
    none = await failure_of(load(forker, []))
    assert list(none.fields) == ["lines"]


async def test_broken_import_leaves_nothing(forker: Forker) -> None:
    """The caller leaves after its first messages were stored."""
    uploaded = await forker.upload(png())
    image = {"attachment": {"attachment_id": uploaded.attachment_id, "media_type": "image/png"}}
    lines = lines_of(*[message("USER", {"text": "words"}, image), message("ASSISTANT", {"text": "hm"})] * 100)
    sent = asyncio.Event()

    async def requests() -> AsyncIterator[pb.ImportSessionRequest]:
        yield pb.ImportSessionRequest(lines="\n".join(lines[:-1]), session_id="copy")
        await sent.wait()

    call = forker.caller.stub.ImportSession(requests(), metadata=forker.service.metadata)
    await soon(lambda: forker.stored()["messages"] >= 64)
    assert (await failure_of(forker.caller.messages("copy"))).reason == "SESSION_NOT_FOUND"
    call.cancel()
    await soon(lambda: forker.stored() == {"sessions": 0, "messages": 0})
    assert forker.documents() == (0, 0)


async def test_id_in_use_is_refused(forker: Forker) -> None:
    """SESSION_EXISTS, and the session that has it stays."""
    await forker.converse("hello")
    failure = await failure_of(load(forker, lines_of(message("USER", {"text": "words"})), session_id="talk"))

    assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "SESSION_EXISTS")
    await soon(lambda: forker.stored() == {"sessions": 1, "messages": 2})


async def test_state_of_an_import_is_without_the_metrics(forker: Forker) -> None:
    """They are of the ledger of its own session."""
    state = json.dumps({"godoty_metrics": {"total_cost": "-1"}, "mine": [1, 2.5]})
    await load(forker, lines_of(message("USER", {"text": "words"}), state=state), session_id="copy")
    assert json.loads((forker.service.session("copy") or {})["state"]) == {"mine": [1, 2.5]}
    await forker.converse("hello", session_id="copy")

    stored = json.loads((forker.service.session("copy") or {})["state"])
    assert stored["godoty_metrics"]["total_cost"] != "-1"
    assert stored["mine"] == [1, 2.5]


async def test_imports_at_once_are_limited(
    serve: Start, fork_at: Callable[[Service], Forker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RATE_LIMITED, and another tenant's are taken meanwhile; once one has ended, another is."""
    forker = fork_at(await serve())
    monkeypatch.setattr("godoty_service.session_copies.imports._AT_ONCE", 2)
    ended = asyncio.Event()

    async def requests() -> AsyncIterator[pb.ImportSessionRequest]:
        yield pb.ImportSessionRequest(lines=BEGIN)
        await ended.wait()
        yield pb.ImportSessionRequest(lines=END)

    first = forker.caller.stub.ImportSession(requests(), metadata=forker.service.metadata)
    importing = asyncio.ensure_future(first)
    await soon(lambda: forker.stored()["sessions"] == 1)
    failure = await failure_of(load(forker, lines_of()))
    assert (failure.reason, failure.quotas) == ("RATE_LIMITED", ("imports/concurrent",))
    assert await load(fork_at(forker.service.another_tenant()), lines_of())
    ended.set()
    await importing

    assert await load(forker, lines_of())
