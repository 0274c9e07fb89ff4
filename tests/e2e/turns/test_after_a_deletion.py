"""No text outlives its session, and a session of any length is read page by page."""

import asyncio
from collections.abc import Callable

import grpc
import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb
from pymongo.database import Database

from tests.conftest import Start
from tests.e2e.turns.streams import CONTINUE, SLOW, cancel, free, insert_messages, joined, resume, until_text
from tests.support.caller import Caller
from tests.support.service import Service, soon

SECRET = "swordfish"


async def delete(caller: Caller, session_id: str = "talk") -> None:
    """Delete a session."""
    await caller.call("DeleteSession", pb.DeleteSessionRequest(session_id=session_id))


def traces(service: Service) -> dict[str, int]:
    """Return the number of documents that contain the secret, by collection."""
    options: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
    database: Database[RawBSONDocument] = service.database.with_options(options)
    found = {
        name: sum(SECRET.encode() in each.raw for each in database[name].find())
        for name in database.list_collection_names()
    }
    return {name: count for name, count in found.items() if count}


@pytest.mark.parametrize("pause", [0.0, 0.03, 0.3])
async def test_deletion_removes_all_text(caller: Caller, second_caller: Caller, pause: float) -> None:
    """Deleted at once, before the turn's log is stored to its end, or later, by any server: no text remains."""
    for number, client in enumerate((caller, second_caller)):
        session_id = f"gone-{number}"
        turn = await caller.converse(
            f'@sandbox tool-loop calls=2 tool=calculator input=\'{{"expression":"{SECRET}"}}\'',
            session_id=session_id,
            user="ada",
        )
        assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
        failed = await caller.converse(f"@sandbox error-mid n=1 text='{SECRET} {SECRET}'", session_id=session_id)
        assert failed.failure is not None
        assert set(traces(caller.service)) <= {"messages", "turn_logs"}
        await asyncio.sleep(pause)
        await delete(client, session_id)
        await asyncio.sleep(0.3)  # more than the interval of the log writer

        assert traces(caller.service) == {}
        for each in (turn, failed):
            for reader in (caller, second_caller):
                missing = (await resume(reader, each.responses[0].turn_id)).failure
                assert missing is not None
                assert (missing.code, missing.reason) == (grpc.StatusCode.NOT_FOUND, "TURN_NOT_FOUND")
        assert len(caller.service.entries(session_id)) == 3


async def test_queued_turn_runs_after_session_deletion(serve: Start, connect: Callable[[Service], Caller]) -> None:
    """A turn that waits during a deletion gets a new session, retains its request id, and is charged once."""
    first = await serve()
    here, there = connect(first), connect(first.at((await serve(database=first.database.name)).target))
    call = here.start(SLOW, on_disconnect=CONTINUE)
    turn_id = (await until_text(call, "t2 "))[0].turn_id
    waiting = asyncio.create_task(there.converse("hello", on_busy=turn_pb.ON_BUSY_WAIT, request_id="patient"))
    await soon(lambda: first.database["turns"].count_documents({"request_id": "patient"}) == 1)
    # The state after a deletion by a third server that died in between.
    lease = {"turn_id": "del_1", "replica_id": "", "text": "", "predecessors": []}
    first.database["sessions"].update_one({"session_id": "talk"}, {"$set": {"lease": lease}, "$inc": {"fence": 1}})

    turn = await waiting
    assert turn.started.session_created
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    for client in (here, there):
        again = await client.converse("hello", on_busy=turn_pb.ON_BUSY_WAIT, request_id="patient")
        assert joined(again.responses) == joined(turn.responses)
    assert len([each for each in first.entries("talk") if each.turn_id == turn.responses[0].turn_id]) == 1
    missing = (await resume(there, turn_id)).failure
    assert missing is not None
    assert missing.reason == "TURN_NOT_FOUND"
    call.cancel()


async def test_long_session_is_read_page_by_page(caller: Caller, second_caller: Caller) -> None:
    """Each message is read once and in order, with any page size, even while a turn adds messages."""
    await caller.converse("hi")
    insert_messages(caller.service, "talk", 1_200)
    for size, pages in ((500, 3), (0, 13), (1_000, 3)):
        numbers: list[int] = []
        token, count = "", 0
        while True:
            page = await (caller, second_caller)[count % 2].call(
                "ListMessages", pb.ListMessagesRequest(session_id="talk", page_size=size, page_token=token)
            )
            numbers.extend(each.number for each in page.messages)
            token, count = page.next_page_token, count + 1
            if not token:
                break
        assert numbers == list(range(1, 1_203))
        assert count == pages
    page = await caller.call("ListMessages", pb.ListMessagesRequest(session_id="talk", page_size=500))
    call = caller.start(SLOW, on_disconnect=CONTINUE)
    turn_id = (await until_text(call, "t2 "))[0].turn_id
    rest = await caller.call(
        "ListMessages", pb.ListMessagesRequest(session_id="talk", page_size=500, page_token=page.next_page_token)
    )
    assert rest.messages[0].number == 501
    assert (await caller.call("GetSession", pb.GetSessionRequest(session_id="talk"))).session.message_count == 1_203
    await cancel(caller, turn_id)
    await free(caller.service)
