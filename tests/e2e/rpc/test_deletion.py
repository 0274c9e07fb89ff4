"""Deleting a session deletes its messages, not its cost."""

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb

from tests.support.caller import Caller, failure_of

pytestmark = pytest.mark.usefixtures("driver")


async def test_id_of_a_deleted_session_creates_a_new_one(caller: Caller) -> None:
    """Messages are gone, the ledger keeps the cost, and the new session's totals start at zero."""
    await caller.converse("remember the word swordfish", user="first")
    old = caller.service.session("talk")
    assert old is not None
    await caller.call("DeleteSession", pb.DeleteSessionRequest(session_id="talk"))

    gone = await failure_of(caller.metrics())
    assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    assert caller.service.document_counts() == {"sessions": 0, "messages": 0, "ledger": 1}
    turn = await caller.converse("which word?", user="second")
    assert turn.started.session_created
    assert turn.started.totals.cost_usd == "0"
    assert turn.finished.session_totals.model_calls == 1
    assert turn.calls[0].number == 1
    assert [len(request["messages"]) for request in caller.service.requests("talk")] == [2]
    entries = caller.service.entries("talk")
    assert len(entries) == 2
    assert {entry.session_uid for entry in entries} > {old["_id"]}
    again = await failure_of(caller.call("DeleteSession", pb.DeleteSessionRequest(session_id="never")))
    assert again.reason == "SESSION_NOT_FOUND"


async def test_unfinished_deletion_leaves_no_messages(caller: Caller) -> None:
    """A session whose deletion was interrupted is used like a new one, without messages of the old one."""
    await caller.converse("hi")
    session = caller.service.session("talk")
    assert session is not None
    lease = {"turn_id": "del_1", "replica_id": "replica_dead", "text": ""}
    caller.service.database["sessions"].update_one({"_id": session["_id"]}, {"$set": {"lease": lease}})
    caller.service.database["messages"].delete_many({"session_uid": session["_id"]})

    turn = await caller.converse("hello again")
    assert turn.finished.stop_reason == pb.STOP_REASON_END_TURN
    messages = await caller.messages()
    assert [message.content[0].text for message in messages] == ["hello again", turn.text]
