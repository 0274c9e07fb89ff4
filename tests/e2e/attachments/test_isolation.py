"""Another tenant's attachments are NOT_FOUND by every door; what is deleted or erased is gone, by content."""

import base64
from collections.abc import Callable

import grpc
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from godoty.v1 import agent_service_pb2 as pb
from pymongo.database import Database

from godoty_service.tenancy.auth import Scope
from tests.conftest import Start
from tests.e2e.admin.conftest import Admin
from tests.e2e.attachments.conftest import Attacher, digest
from tests.e2e.tenants.conftest import ERASING
from tests.e2e.tenants.test_deletion import Operator, erased
from tests.support.caller import Caller, Failure, failure_of
from tests.support.media import pdf, png
from tests.support.service import Service, collections_with

Attach = Callable[[Service], Attacher]
MISSING = (grpc.StatusCode.NOT_FOUND, "ATTACHMENT_NOT_FOUND")


def stored(service: Service, data: bytes) -> set[str]:
    """Return the collections with a document that has a part of some bytes, as they are or as base64."""
    parts = data[60:90], base64.b64encode(data[60:90])[:36]
    options: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
    database: Database[RawBSONDocument] = service.database.with_options(options)
    return {
        name
        for name in database.list_collection_names()
        if any(part in document.raw for document in database[name].find() for part in parts)
    }


async def refusals(attacher: Attacher, attachment_id: str) -> list[tuple[grpc.StatusCode, str]]:
    """Return how an attachment is refused by each door, with the same words."""
    turn = await attacher.converse("look", attachment_id, session_id="other")
    assert turn.failure is not None
    failures = [turn.failure, await failure_of(attacher.download(attachment_id))]
    assert all(each.metadata == {"attachment_id": attachment_id} for each in failures)
    assert len({each.text for each in failures}) == 1
    return [(each.code, each.reason) for each in failures]


async def test_attachment_of_another_tenant_is_not_found(attacher: Attacher, other_tenant: Caller) -> None:
    """By Converse and GetAttachment, like one that does not exist; also if it has the same bytes itself."""
    data, stranger = png(), Attacher(other_tenant)
    theirs = await stranger.upload(data)
    await stranger.converse("look", theirs.attachment_id)
    assert await refusals(attacher, theirs.attachment_id) == [MISSING] * 2
    assert await refusals(attacher, "att_" + "0" * 28) == [MISSING] * 2
    own = await attacher.upload(data)
    assert await refusals(attacher, theirs.attachment_id) == [MISSING] * 2
    await attacher.converse("look", own.attachment_id)
    failure = await failure_of(attacher.caller.call("ListMessages", pb.ListMessagesRequest(session_id="theirs")))

    assert failure.reason == "SESSION_NOT_FOUND"
    assert attacher.documents() == stranger.documents() == (1, 1)
    await attacher.caller.call("DeleteSession", pb.DeleteSessionRequest(session_id="talk"))
    assert (await stranger.download(theirs.attachment_id))[1] == data


async def test_attachment_goes_with_the_last_session(attacher: Attacher) -> None:
    """Two sessions name it, by one id and by the same bytes: it is there until both are deleted."""
    data = png(size=300_000)
    uploaded = await attacher.upload(data)
    await attacher.converse("look", uploaded.attachment_id, session_id="one")
    await attacher.converse("look", uploaded.attachment_id, session_id="two")
    await attacher.converse("look", data, session_id="three")
    for session_id in ("one", "two"):
        assert (await attacher.download(uploaded.attachment_id))[1] == data
        await attacher.caller.call("DeleteSession", pb.DeleteSessionRequest(session_id=session_id))
    assert await refusals(attacher, uploaded.attachment_id) == [MISSING] * 2
    assert (await attacher.converse("again", session_id="three")).finished
    assert attacher.seen("three") == [[digest(data)]] * 2
    await attacher.caller.call("DeleteSession", pb.DeleteSessionRequest(session_id="three"))

    assert attacher.documents() == (0, 0)


async def test_erased_users_attachments_are_gone(admin: Admin, attacher: Attacher) -> None:
    """Searched for by content; those whose bytes another user's session names stay with that one alone."""
    own, shared, same = png(size=2000), png(size=2000), pdf(2)
    uploaded = await attacher.upload(shared)
    await attacher.converse("look", own, same, session_id="anns", user="ann")
    await attacher.converse("look", uploaded.attachment_id, session_id="anns")
    await attacher.converse("look", uploaded.attachment_id, session_id="bobs", user="bob")
    await attacher.converse("look", same, session_id="bobs")
    service = attacher.service
    assert stored(service, own) == {"attachment_chunks"}
    reference = (service.session("anns") or {})["user_reference"]
    await admin.call("EraseUser", tenant_id=service.tenant_id, user="ann")

    assert stored(service, own) == set()
    assert (await attacher.download(uploaded.attachment_id))[1] == shared
    assert attacher.documents() == (2, 2)
    documents = list(service.database["attachments"].find({"tenant_id": service.tenant_id}))
    assert reference not in str(documents)
    assert "ann" not in str(documents)
    assert {tuple(each["sessions"]) for each in documents} == {((service.session("bobs") or {})["_id"],)}
    await attacher.converse("again", session_id="bobs")
    assert attacher.seen("bobs")[-1] == [digest(shared), digest(same)]
    await admin.call("EraseUser", tenant_id=service.tenant_id, user="bob")
    assert attacher.documents() == (0, 0)


async def test_deleted_tenants_attachments_are_erased(serve: Start, attach: Attach, operator: Operator) -> None:
    """Those of its sessions, and uploads that no session has named."""
    service = await serve(**ERASING)
    attacher, admin = attach(service), operator(service)
    used, unused = png(size=900_000), png(size=900_000)
    await attacher.converse("look", (await attacher.upload(used)).attachment_id)
    await attacher.upload(unused)
    await admin.call("DeleteTenant", tenant_id=service.tenant_id)
    await erased(admin, service.tenant_id)

    assert attacher.documents() == (0, 0)
    assert not {"attachments", "attachment_chunks"} & collections_with(service, service.tenant_id)


async def test_key_without_the_scope_is_refused(attacher: Attacher, issue: Callable[..., str]) -> None:
    """Both methods need the scope `converse`."""
    uploaded = await attacher.upload(png())
    keyed = Attacher(
        Caller(
            attacher.service.with_key(issue(attacher.service, scopes=frozenset({Scope.BILLING}))),
            attacher.caller.channel,
        )
    )
    found: list[Failure] = [
        await failure_of(keyed.upload(png())),
        await failure_of(keyed.download(uploaded.attachment_id)),
    ]

    assert [each.reason for each in found] == ["SCOPE_MISSING"] * 2
