"""No response is larger than clients accept: pages end by bytes, large messages are truncated."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from godoty.v1 import admin_service_pb2 as admin_pb
from godoty.v1 import admin_service_pb2_grpc
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import session_pb2 as session_pb
from strands import tool

from godoty_service.agents.tools.registry import built_in_tools
from godoty_service.rpc import validation
from godoty_service.tenancy.auth import Scope
from godoty_service.turns.event_log.answer_listener import AnswerListener
from godoty_service.turns.event_log.events import ReasoningDelta, TextDelta
from godoty_service.turns.event_log.log import EventLog
from tests.conftest import Start
from tests.e2e.edge.process import Usage
from tests.e2e.edge.raw_http2 import END_STREAM, Http2, frame, message
from tests.faults.cluster import ServerProcess
from tests.support.caller import Caller, Failure, failure_of
from tests.support.history import assert_valid_history
from tests.support.service import Service, eventually

MIB = 1024 * 1024
PAGE = MIB + 1024  # a page of texts, and what its messages have beside them
Connect = Callable[[Service], Caller]


async def keep(caller: Caller, *contents: list[dict[str, Any]]) -> None:
    """Create a session and insert messages as the store does."""
    await caller.converse("hello")
    session = caller.service.session("talk")
    assert session is not None
    caller.service.database["messages"].insert_many(
        {
            "tenant_id": caller.service.tenant_id,
            "session_uid": session["_id"],
            "number": number,
            "turn_id": "turn_1",
            "role": "assistant" if number % 2 else "user",
            "content": json.dumps(content, ensure_ascii=False),
            "create_time": datetime.now(UTC),
        }
        for number, content in enumerate(contents, start=3)
    )


async def pages(caller: Caller, **fields: Any) -> list[pb.ListMessagesResponse]:
    """Read all pages of a session's messages."""
    found, token = [], ""
    while True:
        request = pb.ListMessagesRequest(session_id="talk", page_token=token, **fields)
        found.append(await caller.call("ListMessages", request))
        if not (token := found[-1].next_page_token):
            return found


async def read(
    caller: Caller, number: int
) -> tuple[session_pb.Message, list[session_pb.ContentBlock], list[pb.ReadMessageResponse]]:
    """Read a whole message; return its head, its blocks, and the responses."""
    request = pb.ReadMessageRequest(session_id="talk", number=number)
    responses = [each async for each in caller.stub.ReadMessage(request, metadata=caller.service.metadata, timeout=180)]
    blocks: list[session_pb.ContentBlock] = []
    for each in responses:
        if each.HasField("content"):
            if each.block_index == len(blocks):
                blocks.append(session_pb.ContentBlock.FromString(each.content.SerializeToString()))
            else:
                assert each.block_index == len(blocks) - 1
                _join(blocks[-1], each.content)
    return responses[0].message, blocks, responses


def _join(block: session_pb.ContentBlock, more: session_pb.ContentBlock) -> None:
    match block.WhichOneof("block"):
        case "text":
            block.text += more.text
        case "reasoning":
            block.reasoning += more.reasoning
        case "tool_use":
            block.tool_use.input_json += more.tool_use.input_json
        case _:
            block.tool_result.output += more.tool_result.output


async def test_pages_of_long_messages_end_after_a_mebibyte(caller: Caller) -> None:
    """20 messages of 250 KB are five pages within the client's limit; together they are complete and in order."""
    texts = [f"{number} " + "ü" * 125_000 for number in range(20)]
    await keep(caller, *([{"text": text}] for text in texts))

    found = await pages(caller, page_size=500)

    assert max(each.ByteSize() for each in found) < PAGE
    assert len(found) == 5
    messages = [message for page in found for message in page.messages]
    assert [each.number for each in messages] == list(range(1, 23))
    assert [each.content[0].text for each in messages[2:]] == texts
    assert not any(block.truncated for each in messages for block in each.content)


async def test_message_above_a_mebibyte_is_truncated_and_read_whole(caller: Caller) -> None:
    """Each block states its size; the joined pieces of ReadMessage are the message."""
    text = "a€😀" * 600_000
    blocks: list[dict[str, Any]] = [
        {"text": "short"},
        {"text": text},
        {"reasoningContent": {"reasoningText": {"text": "thought " * 50_000}}},
        {"toolUse": {"toolUseId": "t1", "name": "calculator", "input": {"text": "1+1 " * 50_000}}},
    ]
    result = [{"toolResult": {"toolUseId": "t1", "status": "success", "content": [{"text": "ok " * 200_000}]}}]
    await keep(caller, blocks, result)

    first, second, *more = await pages(caller)

    assert ([each.number for each in first.messages], [each.number for each in second.messages]) == ([1, 2], [3])
    assert [each.number for page in more for each in page.messages] == [4]
    assert second.ByteSize() < PAGE
    short, long, reasoning, use = second.messages[0].content
    assert (short.text, short.truncated, short.size) == ("short", False, 0)
    assert (long.truncated, long.size) == (True, len(text.encode()))
    assert text.startswith(long.text)
    assert len(long.text.encode()) > 1_000_000
    assert (reasoning.reasoning, reasoning.truncated, reasoning.size) == ("", True, 400_000)
    assert (use.tool_use.name, use.tool_use.tool_call_id, use.truncated) == ("calculator", "t1", True)
    head, whole, responses = await read(caller, 3)
    assert max(each.ByteSize() for each in responses) < 300_000
    assert (head.number, head.role, head.turn_id, len(head.content)) == (3, session_pb.ROLE_ASSISTANT, "turn_1", 0)
    assert [each.WhichOneof("block") for each in whole] == ["text", "text", "reasoning", "tool_use"]
    assert (whole[0].text, whole[1].text, whole[2].reasoning) == ("short", text, "thought " * 50_000)
    assert json.loads(whole[3].tool_use.input_json) == {"text": "1+1 " * 50_000}
    assert not any(each.truncated for each in whole)
    _, (kept,), _ = await read(caller, 4)
    assert kept.tool_result.output == "ok " * 200_000
    assert kept.tool_result.status == session_pb.TOOL_CALL_STATUS_SUCCESS


@pytest.mark.parametrize("content", [[], [{"text": ""}], [{"reasoningContent": {"redactedContent": "x"}}]])
async def test_message_without_text_is_read(caller: Caller, content: list[dict[str, Any]]) -> None:
    """One response has its head, and an empty block if it has one."""
    await keep(caller, content)
    head, blocks, responses = await read(caller, 3)

    assert (head.number, len(responses)) == (3, 1)
    assert [each.text for each in blocks] == [each["text"] for each in content if "text" in each]


async def test_missing_message_is_not_found(caller: Caller, other_tenant: Caller) -> None:
    """Another number, another session, another tenant's, and an impossible number."""
    await caller.converse("hello")

    async def failed(who: Caller, **fields: Any) -> tuple[str, dict[str, str]]:
        call = who.stub.ReadMessage(pb.ReadMessageRequest(**fields), metadata=who.service.metadata, timeout=180)
        failure = await failure_of(anext(aiter(call)))
        return failure.reason, failure.metadata or failure.fields

    assert await failed(caller, session_id="talk", number=7) == (
        "MESSAGE_NOT_FOUND",
        {"session_id": "talk", "number": "7"},
    )
    assert (await failed(caller, session_id="else", number=1))[0] == "SESSION_NOT_FOUND"
    assert (await failed(other_tenant, session_id="talk", number=1))[0] == "SESSION_NOT_FOUND"
    for number in (0, -1):
        assert await failed(caller, session_id="talk", number=number) == (
            "INVALID_FIELD",
            {"number": "must be at least 1"},
        )
    assert (await failed(caller, session_id="talk", number=2**63 - 1))[0] == "MESSAGE_NOT_FOUND"


async def test_concurrent_large_pages_use_bounded_memory(
    measured: tuple[ServerProcess, Service], connect: Connect
) -> None:
    """15 pages of long messages, and 15 whole messages of 5 MB: at most 150 MB."""
    process, service = measured
    assert process.process is not None
    caller = connect(service)
    await keep(caller, *([{"text": "x" * 250_000}] for _ in range(20)), [{"text": "y" * 5_000_000}])
    await pages(caller)
    usage = Usage(process.process.pid)

    request = pb.ListMessagesRequest(session_id="talk", page_size=500)
    found = await asyncio.gather(*(caller.call("ListMessages", request) for _ in range(15)))
    wholes = await asyncio.gather(*(read(caller, 23) for _ in range(15)))

    assert all(each.ByteSize() < PAGE for each in found)
    assert all(blocks[0].text == "y" * 5_000_000 for _, blocks, _ in wholes)
    assert usage.peak_growth < 150


async def test_unread_responses_are_limited(serve: Start, connect: Connect) -> None:
    """A client with a closed window gets as many large responses as its tenant may have calls."""
    service = await serve(tenant_calls=3)
    caller = connect(service)
    await keep(caller, *([{"text": "x" * 250_000}] for _ in range(4)))
    stuck = await Http2.connect(service.target, settings=b"\0\x04\0\0\0\0")
    body = message(pb.ListMessagesRequest(session_id="talk").SerializeToString())
    streams = [stuck.begin("/godoty.v1.AgentService/ListMessages", service.metadata) for _ in range(6)]
    for stream in streams:
        stuck.send(frame(0, body, flags=END_STREAM, stream=stream))

    async def three_refused() -> bool:
        return len(stuck.ended()) == 3

    async def refused() -> str:
        try:
            await caller.call("ListSessions", pb.ListSessionsRequest())
        except grpc.aio.AioRpcError as error:
            return Failure.of(error).reason
        return ""

    assert await eventually(three_refused)
    for _ in range(20):  # also long after the handlers have returned
        assert await refused() == "RATE_LIMITED"
        await asyncio.sleep(0.05)
    await stuck.close()

    async def served() -> bool:
        return await refused() == ""

    assert await eventually(served)


async def test_response_above_three_mebibytes_is_not_sent(
    serve: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unary or streamed response above the limit fails the call with a reason that says what to do."""
    assert validation.MAX_RESPONSE_BYTES == 3 * MIB
    caller = connect(await serve())
    await caller.converse("@sandbox plain text=" + "x" * 2000)
    monkeypatch.setattr(validation, "MAX_RESPONSE_BYTES", 1000)

    page = await failure_of(caller.call("ListMessages", pb.ListMessagesRequest(session_id="talk")))
    turn = await caller.converse("@sandbox plain text=" + "x" * 2000)

    assert turn.failure is not None
    for failure in (page, turn.failure):
        assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RESPONSE_TOO_LARGE")
        assert int(failure.metadata["bytes"]) > 2000


def test_large_chunk_of_an_answer_is_split_into_deltas() -> None:
    """A provider may send a whole answer at once: it becomes many deltas of at most 64 KiB of UTF-8."""
    log = EventLog()
    answer_listener = AnswerListener(log)
    answer_listener.text("😀" * 500_000)
    answer_listener.reasoning("ü" * 100_000)
    answer_listener.text("x")

    texts = [each.text for each in log._events if isinstance(each, TextDelta)]
    assert "".join(texts) == "😀" * 500_000 + "x"
    assert "".join(each.text for each in log._events if isinstance(each, ReasoningDelta)) == "ü" * 100_000
    assert max(len(each.encode()) for each in texts) <= 64 * 1024
    assert answer_listener.partial == "".join(texts)


@pytest.mark.parametrize("most", [256 * 1024, 5000])
async def test_large_tool_result_is_truncated_with_a_note(
    serve: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """The event, the stored message and the model get the same truncated result, and the turn ends in order."""

    @tool(name="calculator")
    def huge(expression: str) -> str:
        """Return a large result.

        Args:
            expression: Anything.
        """
        return "€" * 2_000_000

    def tools(**named: Any) -> Any:
        return {**built_in_tools(**named), "calculator": huge}

    monkeypatch.setattr("godoty_service.server.built_in_tools", tools)
    settings: dict[str, Any] = {} if most == 256 * 1024 else {"tool_output_bytes": most}
    caller = connect(await serve(**settings))
    turn = await caller.converse("@sandbox tool-loop calls=2")

    assert turn.finished
    (output,) = [each.tool_call_finished.output for each in turn.responses if each.HasField("tool_call_finished")]
    kept = most // 3
    assert output == "€" * kept + f"\n[The result is cut: {2_000_000 - kept:,} more characters are left out.]"
    messages = await caller.messages()
    assert_valid_history(messages)
    assert [b.tool_result.output for each in messages for b in each.content if b.HasField("tool_result")] == [output]
    assert output in [each.get("content") for each in caller.service.requests("talk")[-1]["messages"]]


async def test_admin_lists_end_by_bytes(serve: Start, connect: Connect, issue: Callable[..., str]) -> None:
    """Tenants, keys and changes: pages of 64 KiB that together have all, once and in order."""
    service = await serve(page_bytes=64 * 1024)
    key = issue(service, scopes=frozenset({Scope.ADMIN}))
    stub: Any = admin_service_pb2_grpc.AdminServiceStub(connect(service).channel)  # type: ignore[no-untyped-call] # generated
    now = datetime.now(UTC)
    database = service.database
    database["tenants"].insert_many(
        {"_id": f"tnt_z{number:05}", "name": "😀" * 200, "create_time": now} for number in range(400)
    )
    one = "tnt_z00000"
    database["api_keys"].insert_many(
        {
            "_id": f"{number:016x}",
            "tenant_id": one,
            "hash": "",
            "scopes": ["converse"],
            "create_time": now,
            "expire_time": now,
            "revoke_time": now,
        }
        for number in range(1000)
    )
    database["admin_changes"].insert_many(
        {"_id": f"change_{number:05}", "time": now, "by": "me", "action": "UpdatePolicy", "tenant_id": one}
        | {"details": json.dumps({"allowed_models": ["x" * 128] * 100})}
        for number in range(300)
    )

    async def walk(method: str, field: str, **fields: Any) -> tuple[int, list[Any]]:
        found: list[Any] = []
        largest, token = 0, ""
        while True:
            request = getattr(admin_pb, f"{method}Request")(page_size=500, page_token=token, **fields)
            page = await getattr(stub, method)(request, metadata=(("authorization", f"Bearer {key}"),), timeout=30)
            largest = max(largest, page.ByteSize())
            found += getattr(page, field)
            if not (token := page.next_page_token):
                return largest, found

    largest, tenants = await walk("ListTenants", "tenants")
    assert largest < 66_000
    assert [each.tenant_id for each in tenants if each.tenant_id.startswith("tnt_z")] == [
        f"tnt_z{number:05}" for number in range(400)
    ]
    largest, keys = await walk("ListApiKeys", "api_keys", tenant_id=one)
    assert largest < 66_000
    assert [each.api_key_id for each in keys] == [f"{number:016x}" for number in range(1000)]
    largest, changes = await walk("ListAdminChanges", "changes", tenant_id=one)
    assert largest < 66_000
    assert len(changes) == 300


async def test_list_of_sessions_ends_by_bytes(serve: Start, connect: Connect) -> None:
    """Pages of 64 KiB have all sessions, once, last used first."""
    service = await serve(page_bytes=64 * 1024)
    caller = connect(service)
    await caller.converse("hello", session_id="last")
    document = service.session("last")
    assert document is not None
    service.database["sessions"].insert_many(
        document | {"_id": f"ses_{number:05}", "session_id": f"{number:0>128}", "user": "😀" * 128}
        for number in range(300)
    )
    found: list[str] = []
    token, largest = "", 0
    while True:
        page = await caller.call("ListSessions", pb.ListSessionsRequest(page_size=500, page_token=token))
        largest = max(largest, page.ByteSize())
        found += [each.session_id for each in page.sessions]
        if not (token := page.next_page_token):
            break

    assert largest < 66_000
    assert len(found) == len(set(found)) == 301
