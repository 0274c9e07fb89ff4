"""Checks the bytes of an attachment: their type, by content, and their size, pixels and pages."""

import asyncio
from dataclasses import dataclass
from typing import Final

from godoty_service.attachments.attachment import PDF, Attachment
from godoty_service.attachments.errors import AttachmentRejected, Problem
from godoty_service.attachments.images import DamagedFile, read_image
from godoty_service.attachments.pdf import count_pages, is_pdf

_AT_ONCE: Final = 2  # checks in threads
_SMALL: Final = 32 * 1024  # bytes that are checked without a thread


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
    """Checks attachments, the larger ones in threads: a check may use a second of CPU."""

    def __init__(self, limits: ContentLimits) -> None:
        self.limits = limits
        self._threads = asyncio.Semaphore(_AT_ONCE)

    async def inspect(self, attachment_id: str, data: bytes) -> Attachment:
        """Return the attachment that some bytes are.

        Raises:
            AttachmentRejected: They are none that is taken.
        """
        self.check_size(len(data))
        if len(data) <= _SMALL:
            return inspect(attachment_id, data, self.limits)
        async with self._threads:
            return await asyncio.to_thread(inspect, attachment_id, data, self.limits)

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
