"""Callers that upload and read attachments."""

import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import attachment_pb2

from tests.e2e.tenants.conftest import Admin, admin, admin_of, operator
from tests.support.caller import Caller, Turn
from tests.support.service import Service

__all__ = ["Admin", "admin", "admin_of", "operator"]

VISION = "anthropic/claude-haiku-4.5"  # takes images
BLIND = "deepseek/deepseek-v3.2"  # takes text alone
PIECE = 200_000  # bytes of an upload's message


class Attacher:
    """Calls a server as one tenant, with attachments."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.service: Service = caller.service

    async def upload(self, data: bytes, *, piece: int = PIECE) -> attachment_pb2.Attachment:
        """Upload bytes."""

        async def requests() -> AsyncIterator[pb.UploadAttachmentRequest]:
            for start in range(0, len(data), piece):
                yield pb.UploadAttachmentRequest(data=data[start : start + piece])

        answer = await self.caller.stub.UploadAttachment(requests(), metadata=self.service.metadata, timeout=90)
        found: attachment_pb2.Attachment = answer.attachment
        return found

    async def download(self, attachment_id: str) -> tuple[attachment_pb2.Attachment, bytes]:
        """Read an attachment, in messages of at most 64 KiB."""
        request = pb.GetAttachmentRequest(attachment_id=attachment_id)
        call = self.caller.stub.GetAttachment(request, metadata=self.service.metadata, timeout=90)
        pieces = [each async for each in call]
        assert all(each.ByteSize() < 65 * 1024 for each in pieces)
        assert [each.HasField("attachment") for each in pieces] == [True] + [False] * (len(pieces) - 1)
        return pieces[0].attachment, b"".join(each.data for each in pieces)

    async def converse(self, text: str, *attachments: str | bytes, **fields: Any) -> Turn:
        """Run a turn with attachments, by their ids or their bytes."""
        sources = [
            attachment_pb2.AttachmentSource(inline=each)
            if isinstance(each, bytes)
            else attachment_pb2.AttachmentSource(attachment_id=each)
            for each in attachments
        ]
        return await self.caller.converse(text, attachments=sources, **({"model": VISION} | fields))

    def seen(self, session_id: str = "talk") -> list[list[str]]:
        """Return the hashes of what the provider got with each request of a session."""
        return [hashes(each) for each in self.service.requests(session_id)]

    def documents(self) -> tuple[int, int]:
        """Return the number of the tenant's documents of attachments, and of pieces."""
        query = {"tenant_id": self.service.tenant_id}
        database = self.service.database
        return database["attachments"].count_documents(query), database["attachment_chunks"].count_documents(query)


def content_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a message's content; a text alone has none."""
    content = message.get("content")
    return content if isinstance(content, list) else []


def hashes(request: dict[str, Any]) -> list[str]:
    """Return the hashes of the images and files of a request, as the sandbox logged it."""
    found = []
    for message in request["messages"]:
        for part in content_of(message):
            place = part.get("image_url", part.get("file", {}))
            url = place.get("url") or place.get("file_data")
            if url:
                found.append(url.removeprefix("data:(sha256 ").partition(",")[0])
    return found


def notes(request: dict[str, Any]) -> list[str]:
    """Return the notes in place of attachments in a request."""
    return [
        part["text"]
        for message in request["messages"]
        for part in content_of(message)
        if part.get("text", "").startswith("[Attachment")
    ]


def digest(data: bytes) -> str:
    """Return the hash of bytes."""
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def attacher(caller: Caller) -> Attacher:
    """Attaches as a new tenant of the shared server."""
    return Attacher(caller)


@pytest.fixture
def attach(connect: Callable[[Service], Caller]) -> Callable[[Service], Attacher]:
    """Connects attachers."""
    return lambda service: Attacher(connect(service))
