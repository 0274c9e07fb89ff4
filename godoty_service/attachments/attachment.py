"""An attachment as a value, and what a request names as one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from godoty_service.ids import new_id

IMAGE: Final = "image"
FILE: Final = "file"  # what models call a document among their inputs
PDF: Final = "application/pdf"
ID_KIND: Final = "att"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """An attachment without its bytes.

    Attributes:
        attachment_id: The id.
        media_type: The media type, by its content.
        size: Its bytes.
        width: Pixels; 0: it is no image.
        height: Pixels; 0: it is no image.
        pages: Pages; 0: it is an image.
    """

    attachment_id: str
    media_type: str
    size: int
    width: int = 0
    height: int = 0
    pages: int = 0

    @property
    def input(self) -> str:
        """What a model that takes it has among its inputs."""
        return FILE if self.media_type == PDF else IMAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAttachment:
    """An attachment in the database.

    Attributes:
        attachment: The attachment.
        content_id: Where its bytes are.
        expire_time: When it is deleted unless a session names it; None: one does.
    """

    attachment: Attachment
    content_id: str
    expire_time: datetime | None


@dataclass(frozen=True, slots=True)
class AttachmentSource:
    """What a request names as an attachment.

    Attributes:
        attachment_id: The id of a stored one, or the one that the bytes are stored with.
        data: The bytes; None: they are not in the request.
        url: Where the bytes are; None: not at a URL.
    """

    attachment_id: str
    data: bytes | None = None
    url: str | None = None

    @classmethod
    def of_bytes(cls, data: bytes) -> "AttachmentSource":
        """Return bytes with a new id."""
        return cls(new_id(ID_KIND), data)

    @classmethod
    def of_url(cls, url: str) -> "AttachmentSource":
        """Return a URL with the id that its file gets."""
        return cls(new_id(ID_KIND), url=url)
