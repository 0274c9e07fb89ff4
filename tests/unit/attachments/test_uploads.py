"""The memory of uploads: bounded in all and for each tenant, and free again afterwards."""

from collections.abc import AsyncIterator

import pytest

from godoty_service.attachments.content import ContentInspector, ContentLimits
from godoty_service.attachments.errors import AttachmentRejected, UploadsBusy
from godoty_service.attachments.uploads import UploadMemory, receive


async def pieces(number: int, size: int, sent: list[int] | None = None) -> AsyncIterator[bytes]:
    """Yield pieces of an upload."""
    for index in range(number):
        if sent is not None:
            sent.append(index)
        yield b"a" * size


def inspector(size: int) -> ContentInspector:
    """Return a check of files of at most a size."""
    return ContentInspector(ContentLimits(size=size))


async def test_upload_is_all_its_pieces() -> None:
    """Together, in order."""
    with UploadMemory(1000).upload("acme") as upload:
        assert await receive(pieces(5, 20), upload, inspector(100)) == b"a" * 100


async def test_upload_above_the_limit_ends_at_once() -> None:
    """What follows is not awaited."""
    sent: list[int] = []
    with UploadMemory(1000).upload("acme") as upload, pytest.raises(AttachmentRejected):
        await receive(pieces(50, 20, sent), upload, inspector(100))

    assert sent == [0, 1, 2, 3, 4, 5]


async def test_tenant_gets_half_of_the_memory() -> None:
    """The other half is for others; what an upload has taken is free when it ends, however it ends."""
    memory = UploadMemory(1000)
    for _ in range(3):
        with memory.upload("acme") as upload:
            await receive(pieces(5, 100), upload, inspector(1000))
            with memory.upload("acme") as second, pytest.raises(UploadsBusy) as caught:
                await receive(pieces(1, 1), second, inspector(1000))
            with memory.upload("other") as other:
                await receive(pieces(5, 100), other, inspector(1000))
                with memory.upload("third") as third, pytest.raises(UploadsBusy):
                    await receive(pieces(1, 1), third, inspector(1000))

    assert caught.value.retry_after
