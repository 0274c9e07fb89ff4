"""The attachments of an import: those whose bytes it carries are stored, others that the tenant has are named."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Self

from godoty_service.attachments.attachment import ID_KIND, Attachment
from godoty_service.attachments.attachments import Attachments, to_its_end
from godoty_service.attachments.errors import AttachmentNotFound
from godoty_service.attachments.uploads import Upload
from godoty_service.ids import new_id
from godoty_service.session_copies.errors import SessionTooLarge
from godoty_service.sessions.session import Session

_MAX_ATTACHMENTS: Final = 1_000  # of one import
_MAX_BYTES: Final = 256 * 1024 * 1024  # of all of them whose bytes it carries


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentPiece:
    """A piece of the bytes of an attachment; those of one attachment follow one another.

    Attributes:
        attachment_id: The id that the messages of the import name.
        data: The bytes.
    """

    attachment_id: str
    data: bytes


class ImportedAttachments:
    """The attachments of an import that is being received; one at a time is in memory.

    Attributes:
        named: Those that the pending messages name.
    """

    def __init__(self, attachments: Attachments, session: Session) -> None:
        """Create it.

        Args:
            attachments: The tenants' attachments.
            session: The session, which no reader sees.
        """
        self._attachments = attachments
        self._session = session
        self._known: dict[str, Attachment | None] = {}  # by the import's ids; None: the tenant does not have it
        self._receiving: tuple[str, Upload | None] | None = None
        self._memory = ExitStack()
        self._size = 0
        self.named: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.close()

    async def look_up(self, attachment_id: str) -> Attachment | None:
        """Return the attachment for one that a message names, which is named by the session; None: there is none.

        Raises:
            SessionTooLarge: The import names too many.
        """
        found = await self._find(attachment_id)
        if found is not None:
            self.named.add(found.attachment_id)
        return found

    async def add(self, piece: AttachmentPiece) -> None:
        """Take a piece; those of an attachment that the tenant has are not needed.

        Raises:
            SessionTooLarge: The import carries too many bytes, or names too many attachments.
            AttachmentRejected: The bytes are none that is taken.
            AttachmentLimit: The tenant has too many attachments.
            UploadsBusy: There is no memory for them.
        """
        if self._receiving is None or self._receiving[0] != piece.attachment_id:
            await self.end()
            known = await self._find(piece.attachment_id) is not None
            memory = self._attachments.memory.upload(self._session.tenant_id)
            self._receiving = (piece.attachment_id, None if known else self._memory.enter_context(memory))
        self._size += len(piece.data)
        if self._size > _MAX_BYTES:
            raise SessionTooLarge.of(_MAX_BYTES, "bytes of attachments")
        if (upload := self._receiving[1]) is not None:
            self._attachments.inspector.check_size(upload.size + len(piece.data))
            upload.add(piece.data)

    async def end(self) -> None:
        """Store the attachment whose pieces were taken, if there is one.

        Raises:
            AttachmentRejected, AttachmentLimit: As `add` does.
        """
        if self._receiving is None:
            return
        attachment_id, upload = self._receiving
        self._receiving = None
        if upload is not None:
            self._known[attachment_id] = await to_its_end(self._store(upload.take_data()))
            self._memory.close()

    async def _store(self, data: bytes) -> Attachment:
        """Store bytes, named by the session: they are deleted with it if the import fails."""
        tenant_id, store = self._session.tenant_id, self._attachments.store
        attachment = await self._attachments.inspector.inspect(tenant_id, new_id(ID_KIND), data)
        await store.add(tenant_id, attachment, data)
        await store.name(tenant_id, attachment.attachment_id, session_uid=self._session.uid)
        return attachment

    async def _find(self, attachment_id: str) -> Attachment | None:
        """Return the attachment for one of the import; None: the tenant does not have it."""
        if attachment_id not in self._known:
            if len(self._known) >= _MAX_ATTACHMENTS:
                raise SessionTooLarge.of(_MAX_ATTACHMENTS, "attachments")
            try:
                stored = await self._attachments.store.get(self._session.tenant_id, attachment_id)
            except AttachmentNotFound:
                self._known[attachment_id] = None
            else:
                self._known[attachment_id] = stored.attachment
        return self._known[attachment_id]
