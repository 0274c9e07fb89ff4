"""Receives uploads: the bytes stay in memory until they are checked, so that nothing of a refused file is stored."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

from godoty_service.attachments.content import ContentInspector
from godoty_service.attachments.errors import UploadsBusy

_RETRY_AFTER: Final = 2.0  # seconds
_SHARE: Final = 2  # one tenant's uploads take at most one part in this many of the memory


class Upload:
    """The bytes of an upload that have arrived.

    Attributes:
        size: Their number, of those that were taken, too.
    """

    def __init__(self, memory: "UploadMemory", tenant_id: str) -> None:
        self._memory = memory
        self._tenant_id = tenant_id
        self._data = bytearray()
        self.size = 0

    def take_data(self) -> bytes:
        """Return the bytes, which are not held here any longer; they count until the upload ends."""
        data, self._data = bytes(self._data), bytearray()
        return data

    def add(self, piece: bytes) -> None:
        """Add a piece.

        Raises:
            UploadsBusy: There is no memory for it.
        """
        self._memory.take(self._tenant_id, len(piece))
        self._data += piece
        self.size += len(piece)


class UploadMemory:
    """Limits the bytes of all uploads that a server is receiving; a tenant gets at most half of them."""

    def __init__(self, limit: int) -> None:
        """Create it.

        Args:
            limit: Bytes.
        """
        self._limit = limit
        self._in_use: Counter[str] = Counter()

    @contextmanager
    def upload(self, tenant_id: str) -> Iterator[Upload]:
        """Return an upload, whose bytes count until the block ends."""
        upload = Upload(self, tenant_id)
        try:
            yield upload
        finally:
            self._in_use[tenant_id] -= upload.size
            if not self._in_use[tenant_id]:
                del self._in_use[tenant_id]

    def take(self, tenant_id: str, size: int) -> None:
        """Count bytes of an upload.

        Raises:
            UploadsBusy: They do not fit.
        """
        own = self._in_use[tenant_id] + size
        if own > self._limit // _SHARE or self._in_use.total() + size > self._limit:
            raise UploadsBusy(
                f"Too many attachments are being uploaded at once: retry in {_RETRY_AFTER:g} s.",
                quota="attachment_bytes/uploading",
                retry_after=_RETRY_AFTER,
            )
        self._in_use[tenant_id] += size


async def receive(pieces: AsyncIterator[bytes], upload: Upload, inspector: ContentInspector) -> bytes:
    """Return the bytes of an upload, once all have arrived.

    Raises:
        AttachmentRejected: They are too many; the rest is not awaited.
        UploadsBusy: There is no memory for them.
    """
    async for piece in pieces:
        inspector.check_size(upload.size + len(piece))
        upload.add(piece)
    return upload.take_data()
