"""The store of attachments: once for each content, deleted with what names it, also by servers that die half-way."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from godoty_service.attachments.attachment import Attachment, StoredAttachment
from godoty_service.attachments.attachments import to_its_end
from godoty_service.attachments.chunks import CHUNK, AttachmentChunks
from godoty_service.attachments.content import ContentInspector, ContentLimits
from godoty_service.attachments.errors import AttachmentLimit, AttachmentNotFound
from godoty_service.attachments.store import MAX_SESSIONS, AttachmentStore, TenantLimits
from godoty_service.errors import StorageUnavailable
from godoty_service.ids import new_id
from godoty_service.mongo.client import Database
from godoty_service.sessions.session import Claim
from godoty_service.turns.attachments import TurnAttachments
from godoty_service.turns.dependencies import TurnDependencies
from godoty_service.turns.turn import Turn
from tests.support.media import png

DAY = timedelta(days=1)
INSPECTOR = ContentInspector(ContentLimits())


class Store:
    """A store with a clock that tests turn, and what is in its collections."""

    def __init__(self, database: Database, limits: TenantLimits) -> None:
        self.now = datetime(2026, 11, 29, tzinfo=UTC)
        self.attachments = database.collection(AttachmentStore.COLLECTION)
        self.pieces = database.collection(AttachmentChunks.COLLECTION)
        self.chunks = AttachmentChunks(self.pieces)
        self.store = AttachmentStore(
            self.attachments, self.chunks, limits=limits, retention=DAY, clock=lambda: self.now
        )
        self.sessions = {"s1", "s2", "s3"}

    async def add(self, data: bytes, tenant_id: str = "acme") -> StoredAttachment:
        """Store bytes."""
        attachment = Attachment(attachment_id=new_id("att"), media_type="image/png", size=len(data), width=8, height=8)
        return await self.store.add(tenant_id, attachment, data)

    async def name(self, stored: StoredAttachment, session_uid: str = "s1", tenant_id: str = "acme") -> bool:
        """Name an attachment in a session."""
        return await self.store.name(tenant_id, stored.attachment.attachment_id, session_uid=session_uid)

    async def read(self, stored: StoredAttachment, tenant_id: str = "acme") -> bytes:
        """Return the bytes of an attachment."""
        found = await self.store.get(tenant_id, stored.attachment.attachment_id)
        read = self.chunks.iterate(tenant_id, found.content_id, size=found.attachment.size)
        return b"".join([each or b"" async for each in read])

    async def exists(self, stored: StoredAttachment) -> bool:
        """Return whether an attachment can be used."""
        try:
            await self.store.get("acme", stored.attachment.attachment_id)
        except AttachmentNotFound:
            return False
        return True

    async def counts(self) -> tuple[int, int]:
        """Return the number of documents of attachments, and of pieces."""
        return await self.attachments.count({}), await self.pieces.count({})

    async def sweep(self) -> None:
        """Sweep as a server does."""
        await self.store.sweep(self.existing)

    async def existing(self, _: str, uids: Any) -> set[str]:
        """Return the sessions that exist."""
        return self.sessions & set(uids)


@pytest.fixture
async def new_store(database: Database) -> Callable[..., Store]:
    """Builds stores with limits, on one database."""
    for owner in (AttachmentStore, AttachmentChunks):
        await database.collection(owner.COLLECTION).ensure(owner.INDEXES)
    return lambda **limits: Store(database, TenantLimits(**limits))


@pytest.fixture
def store(new_store: Callable[..., Store]) -> Store:
    """A store with the limits by default."""
    return new_store()


@pytest.mark.parametrize("size", [1, CHUNK, CHUNK + 1, 3 * CHUNK])
async def test_bytes_are_read_as_they_were_stored(store: Store, size: int) -> None:
    """In pieces far below the largest document; by their tenant alone."""
    data = png(size=size)
    stored = await store.add(data)

    assert await store.read(stored) == data
    with pytest.raises(AttachmentNotFound):
        await store.store.get("other", stored.attachment.attachment_id)
    assert await store.chunks.read("other", stored.content_id, 0) is None
    assert await store.store.contents("other", [stored.attachment.attachment_id]) == {}
    assert stored.expire_time == store.now + DAY


async def test_same_bytes_are_stored_once_in_a_tenant(store: Store) -> None:
    """Also if they are uploaded at the same time; another tenant's are its own."""
    data = png(size=2 * CHUNK)
    first = await asyncio.gather(*(store.add(data) for _ in range(5)))
    assert await store.counts() == (5, 3)
    assert len({each.content_id for each in first}) == 1
    theirs = await store.add(data, "other")

    assert await store.counts() == (6, 6)
    assert theirs.content_id != first[0].content_id
    assert await store.read(theirs, "other") == data


async def test_attachment_is_deleted_with_the_last_session_that_names_it(store: Store) -> None:
    """Its bytes with the last attachment that has them."""
    data = png(size=CHUNK)
    one, two = await store.add(data), await store.add(data)
    assert [await store.name(one, each) for each in ("s1", "s2", "s1")] == [True, True, False]
    await store.name(two, "s2")
    await store.store.release_session("acme", "s1")
    assert await store.exists(one)
    await store.store.release_session("other", "s2")
    assert await store.counts() == (2, 2)
    await store.store.unname("acme", one.attachment.attachment_id, session_uid="s2")
    await store.store.release_session("acme", "s2")
    assert (await store.exists(one), await store.exists(two)) == (True, False)
    assert await store.read(one) == data
    await store.name(one, "s3")
    await store.store.release_session("acme", "s3")

    assert await store.counts() == (0, 0)


async def test_unused_upload_expires(store: Store) -> None:
    """After a day, unless a session names it; a turn that was refused leaves it as it was uploaded."""
    unused, used, refused = [await store.add(png()) for _ in range(3)]
    await store.name(used)
    await store.name(refused)
    await store.store.unname("acme", refused.attachment.attachment_id, session_uid="s1")
    store.now += DAY - timedelta(seconds=1)
    await store.sweep()
    assert await store.counts() == (3, 3)
    store.now += timedelta(seconds=2)
    await store.sweep()

    assert [await store.exists(each) for each in (unused, used, refused)] == [False, True, False]
    assert await store.counts() == (1, 1)


async def test_session_that_was_never_created_holds_nothing(store: Store) -> None:
    """A server died after it had named an attachment: an hour later it is found."""
    lost, shared = await store.add(png()), await store.add(png())
    for stored, sessions in ((lost, ["gone"]), (shared, ["s1", "gone"])):
        for each in sessions:
            await store.name(stored, each)
    await store.sweep()
    assert await store.counts() == (2, 2)
    store.now += timedelta(hours=2)
    await store.sweep()

    assert (await store.exists(lost), await store.exists(shared)) == (False, True)
    assert ((await store.attachments.find_one({})) or {})["sessions"] == ["s1"]


@pytest.mark.parametrize("step", range(1, 7))
async def test_upload_that_dies_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """After any of its operations: it cannot be used, and a later sweep deletes all of it."""
    left = step

    def dying(original: Any) -> Any:
        async def operation(*given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise asyncio.CancelledError
            return await original(*given, **named)

        return operation

    with monkeypatch.context() as patched:
        for collection in (store.attachments, store.pieces):
            for method in ("insert_one", "insert_many", "update_one", "find_one"):
                patched.setattr(collection, method, dying(getattr(collection, method)))
        with pytest.raises(asyncio.CancelledError):
            await store.add(png(size=2 * CHUNK))
    assert await store.counts() != (0, 0)
    store.now += timedelta(hours=2)
    await store.sweep()

    assert await store.counts() == (0, 0)


@pytest.mark.parametrize("step", range(5))
async def test_deletion_that_dies_is_finished(store: Store, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """After any of its operations, by the next sweep; the bytes of another attachment stay."""
    data = png(size=CHUNK)
    one, two = await store.add(data), await store.add(png())
    await store.name(one)
    await store.name(two, "s2")
    left = step

    def dying(original: Any) -> Any:
        async def operation(*given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise StorageUnavailable("away")
            return await original(*given, **named)

        return operation

    with monkeypatch.context() as patched:
        for collection in (store.attachments, store.pieces):
            for method in ("find_one_and_update", "update_one", "delete_many", "delete_one", "find_one"):
                patched.setattr(collection, method, dying(getattr(collection, method)))
        with pytest.raises(StorageUnavailable):
            await store.store.release_session("acme", "s1")
    await store.store.release_session("acme", "s1")
    await store.sweep()

    assert not await store.exists(one)
    assert await store.counts() == (1, 1)


async def test_bytes_are_uploaded_while_the_same_are_deleted(store: Store) -> None:
    """Each upload that succeeds can be read; in the end nothing is left."""
    data = png(size=CHUNK)

    async def come_and_go(name: str) -> None:
        for number in range(12):
            stored = await store.add(data)
            await store.name(stored, f"{name}-{number}")
            assert await store.read(stored) == data
            await store.store.release_session("acme", f"{name}-{number}")

    await asyncio.gather(*(come_and_go(name) for name in "abcd"))
    await store.sweep()

    assert await store.counts() == (0, 0)


async def test_tenant_has_limits(new_store: Callable[..., Store]) -> None:
    """Of the number and the bytes of its attachments; another tenant has its own."""
    data = png()
    store = new_store(number=2, size=10 * len(data))
    for _ in range(2):
        await store.add(data)
    with pytest.raises(AttachmentLimit) as caught:
        await store.add(data)
    assert caught.value.quota == "attachments/tenant"
    await store.add(data, "other")
    small = new_store(number=100, size=10 * len(data))
    with pytest.raises(AttachmentLimit) as caught:
        await small.add(png(size=9 * len(data)))

    assert caught.value.quota == "attachment_bytes/tenant"
    assert await store.counts() == (3, 2)


async def test_attachment_is_named_by_so_many_sessions(store: Store) -> None:
    """One that names it already is no further one."""
    stored = await store.add(png())
    many = [f"u{number}" for number in range(MAX_SESSIONS)]
    await store.attachments.update_one({}, {"$set": {"sessions": many}})
    assert not await store.name(stored, "u7")
    with pytest.raises(AttachmentLimit) as caught:
        await store.name(stored)

    assert caught.value.quota == "sessions/attachment"


async def test_tenant_is_erased(store: Store) -> None:
    """With what no session names, and without what is another tenant's."""
    await store.add(png(size=2 * CHUNK))
    await store.name(await store.add(png()))
    theirs = await store.add(png(), "other")
    await store.store.erase("acme")

    assert await store.counts() == (1, 1)
    assert await store.read(theirs, "other")


async def test_attachment_that_is_deleted_while_it_is_stored_leaves_no_bytes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are inserted after its deletion has looked for them; equal bytes of another one remain."""
    insert = store.chunks.insert

    async def insert_late(tenant_id: str, content_id: str, data: bytes, *, content_hash: str) -> bool:
        (found,) = await store.attachments.find({"content_id": content_id})
        await store.store.discard(tenant_id, found["_id"])
        return await insert(tenant_id, content_id, data, content_hash=content_hash)

    with monkeypatch.context() as late:
        late.setattr(store.chunks, "insert", insert_late)
        with pytest.raises(StorageUnavailable):
            await store.add(png(size=CHUNK))

    assert await store.counts() == (0, 0)
    assert await store.add(png(size=CHUNK))


async def test_cancel_waits_for_what_is_being_stored(store: Store) -> None:
    """What undoes an upload finds it then; else it would remain, after the erasure of its session as well."""
    begun, stored = asyncio.Event(), asyncio.Event()

    async def storing() -> StoredAttachment:
        begun.set()
        added = await store.add(png(size=CHUNK))
        stored.set()
        return added

    task = asyncio.ensure_future(to_its_end(storing()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert stored.is_set()


async def test_image_of_a_cancelled_tool_is_named_by_its_session(store: Store) -> None:
    """Before the turn ends, so that it is deleted with the session."""
    turn_attachments = TurnAttachments(
        cast("TurnDependencies", SimpleNamespace(attachments=SimpleNamespace(store=store.store, inspector=INSPECTOR))),
        cast("Turn", None),
        cast("Claim", SimpleNamespace(session=SimpleNamespace(tenant_id="acme", uid="s1"), taken_from=None)),
    )
    tool = asyncio.ensure_future(turn_attachments.store_image(png(size=CHUNK)))
    while not await store.attachments.count({}):
        await asyncio.sleep(0)
    tool.cancel()
    await turn_attachments.wait_stored()
    assert tool.cancelled()
    assert (await store.attachments.find({}))[0]["sessions"] == ["s1"]
    await store.store.release_session("acme", "s1")

    assert await store.counts() == (0, 0)
