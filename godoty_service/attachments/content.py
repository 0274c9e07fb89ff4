"""Checks the bytes of an attachment: their type, by content, and their size, pixels and pages."""

import asyncio
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from godoty_service.attachments.attachment import PDF, Attachment
from godoty_service.attachments.errors import AttachmentRejected, Problem
from godoty_service.attachments.images import DamagedFile, read_image
from godoty_service.attachments.pdf import count_pages, is_pdf

_AT_ONCE: Final = 2  # checks; one of a tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentLimits:
    """The limits of one attachment.

    Attributes:
        size: Bytes.
        pixels: Pixels of an image.
        pages: Pages of a document.
    """

    size: int = 20 * 1024 * 1024
    pixels: int = 40_000_000
    pages: int = 100


class ContentInspector:
    """Checks attachments in threads: what a few kilobytes expand to may take seconds of CPU.

    A tenant has one check at a time, so that its files delay no other's for long. A check whose caller has left goes on
    to its end, and counts until then.
    """

    def __init__(self, limits: ContentLimits) -> None:
        self.limits = limits
        self._checks = asyncio.Semaphore(_AT_ONCE)
        self._tenants: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def inspect(self, tenant_id: str, attachment_id: str, data: bytes) -> Attachment:
        """Return the attachment that some bytes are.

        Raises:
            AttachmentRejected: They are none that is taken.
        """
        self.check_size(len(data))
        own = self._tenants.setdefault(tenant_id, asyncio.Lock())
        await own.acquire()
        try:
            await self._checks.acquire()
        except asyncio.CancelledError:
            own.release()
            raise
        check = asyncio.ensure_future(asyncio.to_thread(inspect, attachment_id, data, self.limits))

        def ended(_: object) -> None:
            self._checks.release()
            own.release()
            if not check.cancelled():
                check.exception()  # it is retrieved, though the caller may have left

        check.add_done_callback(ended)
        return await asyncio.shield(check)

    def check_size(self, size: int) -> None:
        """Check the bytes that have arrived.

        Raises:
            AttachmentRejected: There are too many.
        """
        if size > self.limits.size:
            limit = f"an attachment may have at most {self.limits.size:,} bytes"
            raise AttachmentRejected.of(Problem.SIZE, f"The file is too large: {limit}.")


def inspect(attachment_id: str, data: bytes, limits: ContentLimits) -> Attachment:
    """Return the attachment that some bytes are.

    Raises:
        AttachmentRejected: They are none that is taken.
    """
    try:
        image = read_image(data, max_pixels=limits.pixels)
        if image is not None:
            if image.width * image.height > limits.pixels:
                text = f"The image has {image.width:,} x {image.height:,} pixels; at most {limits.pixels:,} are taken."
                raise AttachmentRejected.of(Problem.PIXELS, text)
            return Attachment(
                attachment_id=attachment_id,
                media_type=image.media_type,
                size=len(data),
                width=image.width,
                height=image.height,
            )
        if is_pdf(data):
            pages = count_pages(data)
            if pages > limits.pages:
                text = f"The document has {pages:,} pages; at most {limits.pages:,} are taken."
                raise AttachmentRejected.of(Problem.PAGES, text)
            return Attachment(attachment_id=attachment_id, media_type=PDF, size=len(data), pages=pages)
    except DamagedFile as error:
        raise AttachmentRejected.of(Problem.DAMAGED, f"The file is damaged: {error}") from None
    raise AttachmentRejected.of(
        Problem.TYPE, "The file is no PNG, JPEG, WebP, GIF or PDF by its content; its name does not matter."
    )
