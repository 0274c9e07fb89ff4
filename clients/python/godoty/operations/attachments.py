"""Attachments: images and PDF documents that messages carry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from godoty.actions.outputs import failure
from godoty.calls import Call, Stream
from godoty.codec import from_message
from godoty.errors import ConnectionFailed, GodotyError
from godoty.types import Attachment
from godoty.v1 import action_pb2, attachment_pb2
from godoty.v1 import agent_service_pb2 as pb

_PIECE = 256 * 1024  # bytes of one message of an upload


class Upload(NamedTuple):
    """What must be uploaded before a request can name it.

    Attributes:
        source: Its bytes or file.
        target: What names it.
    """

    source: Path | bytes
    target: attachment_pb2.AttachmentSource | action_pb2.ClientToolOutput

    @property
    def is_due(self) -> bool:
        """Whether it was not uploaded yet."""
        return not self.target.ListFields()

    def complete(self, attachment: Attachment) -> None:
        """Name it."""
        self.target.attachment_id = attachment.attachment_id

    def fail(self, error: GodotyError) -> None:
        """Answer with the error in place of the image of a tool.

        Raises:
            GodotyError: It is no image of a tool, or may be uploaded later.
        """
        if isinstance(error, ConnectionFailed) or not isinstance(self.target, action_pb2.ClientToolOutput):
            raise error
        self.target.CopyFrom(failure(error))


def upload(source: Path | str | bytes) -> Call[Attachment]:
    """Store an image or a PDF document, for `converse`; it is deleted after a day unless a session names it.

    Args:
        source: Its bytes, or its file.

    Raises:
        OSError: The file cannot be read.
        AttachmentRejected: It is no image and no PDF document that the server takes.
    """
    if not isinstance(source, bytes):
        source = Path(source).expanduser()
        with source.open("rb"):
            pass  # later, within the call, gRPC would log the error
    return Call(
        "AgentService.UploadAttachment", _pieces(source), lambda response: from_message(Attachment, response.attachment)
    )


def get(attachment_id: str) -> Stream[bytes]:
    """Yield the bytes of an attachment in pieces."""
    request = pb.GetAttachmentRequest(attachment_id=attachment_id)
    return Stream("AgentService.GetAttachment", request, lambda response: (response.data,) if response.data else ())


def _pieces(source: Path | bytes) -> Iterator[pb.UploadAttachmentRequest]:
    if isinstance(source, bytes):
        for start in range(0, len(source), _PIECE):
            yield pb.UploadAttachmentRequest(data=source[start : start + _PIECE])
        return
    with source.open("rb") as file:
        while data := file.read(_PIECE):
            yield pb.UploadAttachmentRequest(data=data)
