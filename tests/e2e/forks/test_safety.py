"""A fork is complete, or it is not there: under kills, deletions, erasures and cancels; attachments live with it."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from pymongo.read_concern import ReadConcern

from godoty_service.session_copies.copies import SessionCopies
from godoty_service.session_copies.forks import Fork, SessionForks
from godoty_service.sessions.message_copies import MessageCopies
from tests.conftest import Start, StartProcess
from tests.e2e.admin.conftest import Admin
from tests.e2e.forks.conftest import Forker
from tests.e2e.turns.streams import insert_messages
from tests.faults.cluster import ServerProcess
from tests.support.caller import failure_of
from tests.support.leases import LONG_LEASE, LONG_LEASE_ENVIRONMENT, SHORT_LEASE, end_leases
from tests.support.media import png
from tests.support.service import Service, soon

ForkAt = Callable[[Service], Forker]
NOT_FOUND = grpc.StatusCode.NOT_FOUND


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Hold the copies of messages in this process: the events are that one has begun, and that it may go on."""
    begun, may_go_on, copy = asyncio.Event(), asyncio.Event(), MessageCopies.copy

    async def holding(self: MessageCopies, *given: Any, **named: Any) -> None:
        await copy(self, *given, **named)
        begun.set()
        await may_go_on.wait()

    with monkeypatch.context() as patched:
        patched.setattr(MessageCopies, "copy", holding)
        yield begun, may_go_on


def incomplete(service: Service) -> int:
    """Return the number of sessions that are being made."""
    return service.database["sessions"].count_documents({"incomplete": True})


def of_no_session(service: Service) -> set[str]:
    """Return the sessions that messages and attachments are of, and that do not exist."""
    database = service.database
    named = set(database["messages"].distinct("session_uid")) | set(database["attachments"].distinct("sessions"))
    return named - set(database["sessions"].distinct("_id"))


def only(forker: Forker, *, sessions: int) -> bool:
    """Return whether the tenant has sessions of one turn each, and nothing else."""
    return forker.stored() == {"sessions": sessions, "messages": 2 * sessions}


def copying(service: Service, number: int) -> bool:
    """Return whether a session is being made that has the message of a number; 0: any session."""
    made = service.database["sessions"].find_one({"incomplete": True}, {"_id": 1})
    if made is None or number == 0:
        return made is not None
    message = {"tenant_id": service.tenant_id, "session_uid": made["_id"], "number": number}
    return service.database["messages"].find_one(message) is not None


async def listed(forker: Forker) -> list[str]:
    """Return the ids of the tenant's sessions, as a caller sees them."""
    found = await forker.caller.call("ListSessions", pb.ListSessionsRequest(page_size=500))
    return sorted(each.session_id for each in found.sessions)


async def test_session_that_is_being_made_is_not_there(
    serve: Start, fork_at: ForkAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No list has it, no id finds it, and a session that is begun with the fork's id meanwhile stays."""
    forker = fork_at(await serve())
    await forker.converse("hello", user="ada")
    with held(monkeypatch) as (begun, may_go_on):
        forking = asyncio.create_task(failure_of(forker.fork(fork_session_id="other")))
        await begun.wait()
        assert incomplete(forker.service) == 1
        assert await listed(forker) == ["talk"]
        shown = await forker.caller.call("ListSessions", pb.ListSessionsRequest(user="ada"))
        assert len(shown.sessions) == 1
        missing = await failure_of(forker.caller.call("GetSession", pb.GetSessionRequest(session_id="other")))
        assert missing.reason == "SESSION_NOT_FOUND"
        await forker.converse("mine", session_id="other")
        may_go_on.set()
        failure = await forking

    assert failure.reason == "SESSION_EXISTS"
    assert (await forker.caller.messages("other"))[0].content[0].text == "mine"
    await soon(lambda: forker.stored() == {"sessions": 2, "messages": 4})


async def test_origin_that_is_deleted_meanwhile_has_no_fork(
    serve: Start, fork_at: ForkAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SESSION_NOT_FOUND, also if another session has its id since; what was copied is deleted."""
    forker = fork_at(await serve())
    for begin_again in (False, True):
        await forker.converse("look", png())
        with held(monkeypatch) as (begun, may_go_on):
            forking = asyncio.create_task(failure_of(forker.fork(fork_session_id="other")))
            await begun.wait()
            await forker.delete("talk")
            if begin_again:
                await forker.converse("hello")
            may_go_on.set()
            failure = await forking

        assert (failure.code, failure.reason) == (NOT_FOUND, "SESSION_NOT_FOUND")
        await soon(partial(only, forker, sessions=int(begin_again)))
        await soon(lambda: forker.documents() == (0, 0))


async def test_cancelled_fork_is_deleted(serve: Start, fork_at: ForkAt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it remains, once the operation that ran has ended."""
    forker = fork_at(await serve())
    await forker.converse("look", png())
    tasks: list[asyncio.Task[Any]] = []
    fork = SessionForks.fork

    async def forking(self: SessionForks, *given: Any, **named: Any) -> Fork:
        if (task := asyncio.current_task()) is not None:
            tasks.append(task)
        return await fork(self, *given, **named)

    with held(monkeypatch) as (begun, may_go_on), monkeypatch.context() as patched:
        patched.setattr(SessionForks, "fork", forking)
        request = pb.ForkSessionRequest(session_id="talk", fork_session_id="other")
        call = forker.caller.stub.ForkSession(request, metadata=forker.service.metadata)
        ended = asyncio.ensure_future(call)
        await begun.wait()
        call.cancel()
        await asyncio.wait([ended])
        await soon(lambda: tasks[0].cancelling() > 0)  # the caller's end is known to it before it is to the server
        may_go_on.set()
    await soon(lambda: forker.stored() == {"sessions": 1, "messages": 2})
    (document,) = forker.service.database["attachments"].find({"tenant_id": forker.service.tenant_id})

    assert document["sessions"] == [forker.uid("talk")]
    assert (await forker.fork(fork_session_id="other")).session.message_count == 2


async def test_erasure_of_the_user_has_all_forks(
    serve: Start, fork_at: ForkAt, admin_of: Callable[[Service], Admin], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are complete, and one that is being made: the erasure does not end before it is deleted."""
    forker = fork_at(await serve())
    admin = admin_of(forker.service)
    await forker.converse("my name is a secret", png(), user="ada")
    await forker.fork(fork_session_id="complete")
    with held(monkeypatch) as (begun, may_go_on):
        forking = asyncio.create_task(failure_of(forker.fork(fork_session_id="late")))
        await begun.wait()
        erasing = asyncio.create_task(admin.call("EraseUser", tenant_id=forker.service.tenant_id, user="ada"))
        sessions = forker.service.database["sessions"]
        await soon(lambda: sessions.count_documents({"tenant_id": forker.service.tenant_id}) == 1)
        assert not erasing.done()
        may_go_on.set()
        failure = await forking
    erased = await erasing

    assert failure.reason == "SESSION_NOT_FOUND"
    assert erased.sessions in (2, 3)  # the last is deleted by the fork itself, or by the erasure
    assert forker.stored() == {"sessions": 0, "messages": 0}
    assert forker.documents() == (0, 0)
    assert of_no_session(forker.service) == set()


async def test_killed_server_leaves_no_half_of_a_fork(
    serve: Start, serve_process: StartProcess, fork_at: ForkAt
) -> None:
    """Killed while it copies: the fork is complete or not there, and another server deletes the rest."""
    process, service = await serve_process(**LONG_LEASE_ENVIRONMENT)
    survivor = await serve(database=service.database.name, lease=LONG_LEASE, heartbeat=0.2)
    later, messages = fork_at(service.at(survivor.target)), service.database["messages"]
    await later.converse("look", png())
    insert_messages(service, "talk", 29_998)
    for copied in (0, 1, 10_001):  # before it copies, within the first piece, and after it
        while not await killed_within(process, fork_at(service), copied):
            assert messages.count_documents({"session_uid": later.uid("fork")}) == 30_000
            await later.delete("fork")
        await soon(lambda: incomplete(service) == 0)
        await soon(lambda: of_no_session(service) == set())
        assert await listed(later) == ["talk"]
        assert messages.count_documents({}) == 30_000

    fork = await later.fork(fork_session_id="fork")
    assert fork.session.message_count == messages.count_documents({"session_uid": later.uid("fork")}) == 30_000


async def killed_within(process: ServerProcess, forker: Forker, copied: int) -> bool:
    """Kill a server when a message of its fork is copied, 0: any; return False if the fork was complete before."""
    database = forker.service.database
    if process.killed:
        await process.start()
    request = pb.ForkSessionRequest(session_id="talk", fork_session_id="fork")
    forking = asyncio.ensure_future(forker.caller.stub.ForkSession(request, metadata=forker.service.metadata))
    await soon(lambda: forking.done() or copying(forker.service, copied))
    await process.kill()
    await asyncio.wait([forking])
    assert isinstance(forking.exception(), grpc.RpcError | None)
    copies = {"ns": f"{database.name}.messages", "command.aggregate": "messages"}
    running: list[dict[str, Any]] = [{"$currentOp": {}}, {"$match": copies}]
    admin = database.client.admin.with_options(read_concern=ReadConcern("local"))
    await soon(lambda: not [*admin.aggregate(running)])  # the database ends the copy by itself
    half = incomplete(forker.service) == 1
    end_leases(database, process.replica_id)
    return half


async def test_sweep_leaves_what_a_living_server_makes(
    serve: Start, fork_at: ForkAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes; the fork is complete in the end."""
    swept: list[int] = []
    sweep = SessionCopies.sweep

    async def sweeping(self: SessionCopies) -> None:
        await sweep(self)
        swept.append(id(self))

    monkeypatch.setattr(SessionCopies, "sweep", sweeping)
    first = await serve(**SHORT_LEASE)
    second = fork_at(first.at((await serve(database=first.database.name, **SHORT_LEASE)).target))
    forker = fork_at(first)
    await forker.converse("hello")
    with held(monkeypatch) as (begun, may_go_on):
        forking = asyncio.create_task(forker.fork(fork_session_id="other"))
        await begun.wait()
        swept.clear()
        await soon(lambda: len(counts := Counter(swept)) == 2 and min(counts.values()) > 1)
        assert incomplete(first) == 1
        may_go_on.set()
        fork = await forking

    assert fork.session.message_count == 2
    assert await listed(second) == ["other", "talk"]


async def test_attachments_live_as_long_as_a_session_that_names_them(forker: Forker) -> None:
    """The fork has those up to its point, and those of the message that follows; others go with the origin."""
    first, second, third = [await forker.upload(png(size, size)) for size in (10, 20, 30)]
    for each in (first, second, third):
        await forker.converse("look", each.attachment_id)
    fork = await forker.fork(number=3, fork_session_id="other")
    assert [each.attachment_id for each in fork.next_message.attachments] == [second.attachment_id]
    await forker.delete("talk")
    for each in (first, second):
        assert (await forker.download(each.attachment_id))[0] == each
    gone = await failure_of(forker.download(third.attachment_id))
    assert (gone.code, gone.reason) == (NOT_FOUND, "ATTACHMENT_NOT_FOUND")
    assert (await forker.converse("look", second.attachment_id, session_id="other")).finished
    assert len(forker.seen("other")[0]) == 2
    await forker.delete("other")

    assert forker.documents() == (0, 0)


async def test_attachment_of_too_many_sessions_is_not_forked(forker: Forker) -> None:
    """ATTACHMENT_LIMIT, and nothing is written."""
    uploaded = await forker.upload(png())
    await forker.converse("look", uploaded.attachment_id)
    attachments = forker.service.database["attachments"]
    attachments.update_one(
        {"_id": uploaded.attachment_id},
        {"$push": {"sessions": {"$each": [f"ses_{number}" for number in range(999)]}}, "$unset": {"check_time": ""}},
    )
    failure = await failure_of(forker.fork(fork_session_id="other"))

    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ATTACHMENT_LIMIT")
    await soon(lambda: forker.stored() == {"sessions": 1, "messages": 2})
    assert len((attachments.find_one({"_id": uploaded.attachment_id}) or {})["sessions"]) == 1000


async def test_server_that_was_paused_leaves_nothing(
    serve: Start, fork_at: ForkAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server has deleted what it makes meanwhile; what it has copied afterwards it deletes itself."""
    forker = fork_at(await serve())
    await forker.converse("look", png())
    with held(monkeypatch) as (begun, may_go_on):
        forking = asyncio.create_task(failure_of(forker.fork(fork_session_id="other")))
        await begun.wait()
        sessions = forker.service.database["sessions"]
        assert sessions.delete_one({"incomplete": True}).deleted_count == 1  # as the other server does last
        may_go_on.set()
        failure = await forking

    assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "SESSION_LOST")
    await soon(lambda: forker.stored() == {"sessions": 1, "messages": 2})
    assert of_no_session(forker.service) == set()
