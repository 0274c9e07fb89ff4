"""Uploads: what is refused leaves nothing, and so does what did not arrive completely."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb

from godoty_service.attachments.uploads import UploadMemory
from godoty_service.rpc import interceptor
from godoty_service.tenancy.auth import Scope
from tests.conftest import Start
from tests.e2e.attachments.conftest import Attacher
from tests.support.caller import Failure, failure_of
from tests.support.media import chunk, pdf, pdf_stream, png, png_bomb, png_header
from tests.support.service import Service, eventually, soon

Attach = Callable[[Service], Attacher]
MIB = 1024 * 1024
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a header of 100 megapixels": (lambda: png_header(10_000, 10_000) + chunk(b"IEND", b""), "pixels"),
    "a PDF that is none": (lambda: b"%PDF-1.7\n" + b"no document" * 100, "damaged"),
    "a PDF by its name alone": (lambda: b"an invoice, as text", "type"),
    "an archive": (lambda: b"PK\x03\x04" + bytes(5000), "type"),
    "a script": (lambda: b"<svg onload='alert(1)' xmlns='http://www.w3.org/2000/svg'/>", "type"),
    "50 MB": (lambda: png(size=50 * MIB), "size"),
    "an image that expands to 64 MiB": (png_bomb, "damaged"),
    "a document that expands to a gigabyte": (lambda: pdf(1, more=pdf_stream(bytes(64 * MIB)) * 16), "damaged"),
    "a document of 101 pages": (lambda: pdf(101), "pages"),
    "half an image": (lambda: png(size=2 * MIB)[: MIB + 11], "damaged"),
}


@pytest.fixture
def in_use(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Returns the bytes of uploads that servers of this process are receiving."""
    memories: list[UploadMemory] = []
    create = UploadMemory.__init__

    def noting(memory: UploadMemory, limit: int) -> None:
        create(memory, limit)
        memories.append(memory)

    monkeypatch.setattr(UploadMemory, "__init__", noting)
    return lambda: sum(each._in_use.total() for each in memories)


async def taken(attacher: Attacher, data: bytes) -> bool:
    """Upload bytes; return whether they are taken."""
    try:
        await attacher.upload(data)
    except grpc.aio.AioRpcError:
        return False
    return True


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_file_is_refused_and_leaves_nothing(attacher: Attacher, name: str) -> None:
    """With the problem that it has, as an upload and in a request; another upload is served."""
    make, problem = HOSTILE[name]
    data = make()
    failure = await failure_of(attacher.upload(data))
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ATTACHMENT_REJECTED")
    assert failure.metadata == {"problem": problem}
    if len(data) <= MIB:
        turn = await attacher.converse("look", data)
        assert turn.failure is not None
        assert (turn.failure.reason, turn.failure.metadata) == ("ATTACHMENT_REJECTED", {"problem": problem})
        assert attacher.service.session("talk") is None
        assert attacher.service.entries("talk") == []
    assert attacher.documents() == (0, 0)

    assert await attacher.upload(png())


async def test_largest_attachment_is_served(attacher: Attacher) -> None:
    """Of 20 MiB, in pieces of any size; no document is larger than a mebibyte."""
    data = png(size=20 * MIB - 1000)
    uploaded = await attacher.upload(data, piece=256 * 1024)
    assert (await attacher.download(uploaded.attachment_id))[1] == data
    pipeline: list[dict[str, Any]] = [
        {"$match": {"tenant_id": attacher.service.tenant_id}},
        {"$project": {"size": {"$bsonSize": "$$ROOT"}}},
    ]

    assert all(each["size"] < MIB for each in attacher.service.database["attachment_chunks"].aggregate(pipeline))


async def test_same_upload_twice_is_stored_once(attacher: Attacher) -> None:
    """Under two ids."""
    data = png(size=MIB)
    first, second = [await attacher.upload(data) for _ in range(2)]

    assert first.attachment_id != second.attachment_id
    assert attacher.documents() == (2, 2)


@pytest.mark.parametrize("pieces", [[], [b""], [png(), b""]])
async def test_empty_piece_is_refused(attacher: Attacher, pieces: list[bytes]) -> None:
    """So is an upload without any; a piece above 256 KiB is, too."""

    async def requests(given: list[bytes]) -> AsyncIterator[pb.UploadAttachmentRequest]:
        for each in given:
            yield pb.UploadAttachmentRequest(data=each)

    for given in (pieces, [bytes(256 * 1024 + 1)]):
        call = attacher.caller.stub.UploadAttachment(requests(given), metadata=attacher.service.metadata, timeout=180)
        failure = await failure_of(call)
        assert (failure.reason, list(failure.fields)) == ("INVALID_FIELD", ["data"])
    assert attacher.documents() == (0, 0)


async def test_upload_that_stops_arriving_ends(
    serve: Start, attach: Attach, in_use: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two pieces, and in all; a caller that leaves ends it as well. Nothing is stored."""
    attacher = attach(await serve(request_timeout=0.5))

    async def requests(number: int, pause: float) -> AsyncIterator[pb.UploadAttachmentRequest]:
        for _ in range(number):
            yield pb.UploadAttachmentRequest(data=png())
            await asyncio.sleep(pause)

    def upload(number: int, pause: float) -> Any:
        stub, metadata = attacher.caller.stub, attacher.service.metadata
        return stub.UploadAttachment(requests(number, pause), metadata=metadata, timeout=60)

    assert (await failure_of(upload(3, 30.0))).reason == "DEADLINE_EXCEEDED"
    with monkeypatch.context() as short:
        short.setattr(interceptor, "LONGEST_STREAM", 0.2)
        assert (await failure_of(upload(100, 0.1))).reason == "DEADLINE_EXCEEDED"

    async def begun() -> Any:
        call = upload(3, 30.0)
        await soon(lambda: in_use() or call.done())
        return None if call.done() else call

    leaving = await eventually(begun)
    leaving.cancel()
    await soon(lambda: in_use() == 0)

    assert attacher.documents() == (0, 0)
    assert await eventually(lambda: taken(attacher, png()))  # the time for it is short on a busy machine


async def test_key_that_is_revoked_while_an_upload_arrives_stores_nothing(
    serve: Start, attach: Attach, in_use: Callable[[], int], issue: Callable[..., str]
) -> None:
    """It is checked again once all has arrived."""
    service = await serve()
    attacher = attach(service)
    key = issue(service, scopes=frozenset({Scope.CONVERSE}))
    metadata = (("authorization", f"Bearer {key}"),)
    revoked = asyncio.Event()

    async def requests() -> AsyncIterator[pb.UploadAttachmentRequest]:
        data = png()
        yield pb.UploadAttachmentRequest(data=data[:50])
        await revoked.wait()
        yield pb.UploadAttachmentRequest(data=data[50:])

    call = attacher.caller.stub.UploadAttachment(requests(), metadata=metadata, timeout=60)
    failed = asyncio.ensure_future(failure_of(call))
    await soon(in_use)  # the key was valid
    service.database["api_keys"].update_one({"_id": key.split("_")[1]}, {"$set": {"revoke_time": _long_ago(service)}})

    async def refused() -> bool:
        try:
            await attacher.caller.stub.ListSessions(pb.ListSessionsRequest(), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return Failure.of(error).reason == "INVALID_API_KEY"
        return False

    await eventually(refused)
    revoked.set()
    failure = await failed

    assert failure.reason == "INVALID_API_KEY", failure
    assert attacher.documents() == (0, 0)


def _long_ago(service: Service) -> Any:
    found = service.database["api_keys"].find_one({"_id": service.key_id}) or {}
    return found["create_time"]


async def test_limits_of_a_tenant(serve: Start, attach: Attach) -> None:
    """The number of its attachments, uploaded or inline; another tenant has its own; a deleted session frees it."""
    service = await serve(attachments_per_tenant=2)
    attacher, other = attach(service), attach(service.another_tenant())
    await attacher.converse("look", png())
    await attacher.upload(png())
    failure = await failure_of(attacher.upload(png()))
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "ATTACHMENT_LIMIT")
    turn = await attacher.converse("look", png(), session_id="more")
    assert turn.failure is not None
    assert turn.failure.reason == "ATTACHMENT_LIMIT"
    assert attacher.documents() == (2, 2)
    assert await other.upload(png())
    await attacher.caller.call("DeleteSession", pb.DeleteSessionRequest(session_id="talk"))

    assert await attacher.upload(png())


async def test_uploads_share_bounded_memory(serve: Start, attach: Attach, in_use: Callable[[], int]) -> None:
    """A tenant whose uploads wait for their ends has half of it: its next is refused for a while."""
    service = await serve(attachment_bytes=MIB, attachment_upload_bytes=2 * MIB)
    attacher, other = attach(service), attach(service.another_tenant())
    done = asyncio.Event()
    data = png(size=MIB - 1000)

    async def requests() -> AsyncIterator[pb.UploadAttachmentRequest]:
        for start in range(0, len(data), 200_000):
            yield pb.UploadAttachmentRequest(data=data[start : start + 200_000])
        await done.wait()

    waiting = attacher.caller.stub.UploadAttachment(requests(), metadata=service.metadata, timeout=60)
    await soon(lambda: in_use() == len(data))
    failure = await failure_of(attacher.upload(png(size=100_000)))
    assert (failure.reason, failure.quotas) == ("RATE_LIMITED", ("attachment_bytes/uploading",))
    assert failure.retry_after
    assert await other.upload(data)
    done.set()
    assert (await waiting).attachment

    assert await attacher.upload(png(size=100_000))
