"""What the edge and turns do with attachments: upload, read, and resolve what a request names."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from godoty_service.aio.periodic import run_every
from godoty_service.aio.tasks import retrieve_exception
from godoty_service.attachments.attachment import ID_KIND, Attachment, AttachmentSource, StoredAttachment
from godoty_service.attachments.content import ContentInspector
from godoty_service.attachments.errors import AttachmentNotFound
from godoty_service.attachments.store import AttachmentStore, ExistingSessions
from godoty_service.attachments.uploads import UploadMemory, receive
from godoty_service.errors import StorageUnavailable
from godoty_service.ids import new_id

T = TypeVar("T")
Fetch = Callable[[str, str], AsyncGenerator[bytes, None]]  # of a tenant's id and a URL


class Attachments:
    """The attachments of all tenants.

    Attributes:
        store: The stored ones.
        inspector: Checks bytes.
        memory: Limits the bytes of uploads.
    """

    def __init__(self, store: AttachmentStore, *, inspector: ContentInspector, memory: UploadMemory) -> None:
        """Create it.

        Args:
            store: Stores them.
            inspector: Checks bytes.
            memory: Limits the bytes of uploads.
        """
        self.store = store
        self.inspector = inspector
        self.memory = memory

    async def upload(
        self, tenant_id: str, pieces: AsyncIterator[bytes], *, confirm: Callable[[], Awaitable[None]]
    ) -> StoredAttachment:
        """Store an attachment that arrives in pieces.

        Args:
            tenant_id: The tenant.
            pieces: Its bytes.
            confirm: Raises if the caller may not store it any more, now that all has arrived.

        Raises:
            AttachmentRejected: The bytes are none that is taken; nothing is stored.
            AttachmentLimit: The tenant has too many.
            UploadsBusy: Too many uploads are running.
        """
        with self.memory.upload(tenant_id) as upload:
            data = await receive(pieces, upload, self.inspector)
            attachment = await self.inspector.inspect(tenant_id, new_id(ID_KIND), data)
            await confirm()
            # A caller that leaves now does not stop it half-way: what is stored expires.
            return await to_its_end(self.store.add(tenant_id, attachment, data))

    async def read(self, tenant_id: str, stored: StoredAttachment) -> AsyncIterator[bytes]:
        """Yield the bytes of an attachment, in the pieces in which they are stored.

        Raises:
            AttachmentNotFound: It was deleted meanwhile.
        """
        async for piece in self.store.chunks.iterate(tenant_id, stored.content_id, size=stored.attachment.size):
            if piece is None:
                raise AttachmentNotFound.of(stored.attachment.attachment_id)
            yield piece

    async def resolve(
        self, tenant_id: str, sources: Sequence[AttachmentSource], fetch: Fetch
    ) -> tuple[Attachment, ...]:
        """Return what a request names; files at URLs are fetched and stored, the caller discards them if it fails.

        Args:
            tenant_id: The tenant.
            sources: What the request names.
            fetch: Fetches the file at a URL for a tenant; it raises AttachmentRejected if that fails.

        Raises:
            AttachmentNotFound: The tenant does not have one of them.
            AttachmentRejected: Bytes of the request are none that is taken.
        """
        return tuple([await self._resolve(tenant_id, each, fetch) for each in sources])

    async def _resolve(self, tenant_id: str, source: AttachmentSource, fetch: Fetch) -> Attachment:
        if source.url is not None:
            return await self._fetched(tenant_id, source.attachment_id, fetch(tenant_id, source.url))
        if source.data is not None:
            return await self.inspector.inspect(tenant_id, source.attachment_id, source.data)
        return (await self.store.get(tenant_id, source.attachment_id)).attachment

    async def _fetched(self, tenant_id: str, attachment_id: str, pieces: AsyncGenerator[bytes, None]) -> Attachment:
        with self.memory.upload(tenant_id) as upload:
            async with aclosing(pieces):
                data = await receive(pieces, upload, self.inspector)
            attachment = await self.inspector.inspect(tenant_id, attachment_id, data)
            await to_its_end(self.store.add(tenant_id, attachment, data))
            return attachment

    async def run(self, interval: float, existing: ExistingSessions) -> None:
        """Delete what has expired every `interval` seconds until cancelled."""
        await run_every(interval, lambda: self.store.sweep(existing), failure="attachments_not_swept")


async def to_its_end(storing: Coroutine[Any, Any, T]) -> T:
    """Await what stores an attachment; a cancel takes effect once it has ended, so that what it stored is found.

    What undoes it must not run before: it would find nothing, and the attachment would remain.
    """
    task = asyncio.ensure_future(storing)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        retrieve_exception(task)
        raise


class AttachmentReader:
    """Reads the attachments of one tenant for the requests of a turn, piece by piece; it keeps no bytes."""

    def __init__(self, store: AttachmentStore, tenant_id: str) -> None:
        self._store = store
        self._tenant_id = tenant_id

    async def contents(self, attachments: Sequence[Attachment]) -> dict[str, str]:
        """Return where the bytes of those attachments are that exist, by id."""
        return await self._store.contents(self._tenant_id, [each.attachment_id for each in attachments])

    async def read(self, content_id: str, number: int) -> bytes:
        """Return a piece of a content.

        Raises:
            StorageUnavailable: It could not be read.
        """
        found = await self._store.chunks.read(self._tenant_id, content_id, number)
        if found is None:  # its session names it, so it cannot have been deleted
            raise StorageUnavailable("The bytes of an attachment are missing.")
        return found
