"""Builds what stores attachments."""

from datetime import timedelta

from godoty_service.attachments.attachments import Attachments
from godoty_service.attachments.chunks import AttachmentChunks
from godoty_service.attachments.content import ContentInspector
from godoty_service.attachments.store import AttachmentStore
from godoty_service.attachments.uploads import UploadMemory
from godoty_service.clock import Clock
from godoty_service.mongo.client import Database
from godoty_service.settings import Settings


def build_attachments(settings: Settings, database: Database, clock: Clock) -> Attachments:
    """Build what stores attachments."""
    store = AttachmentStore(
        database.collection(AttachmentStore.COLLECTION),
        AttachmentChunks(database.collection(AttachmentChunks.COLLECTION)),
        limits=settings.attachment_tenant_limits,
        retention=timedelta(seconds=settings.attachment_retention),
        clock=clock,
    )
    return Attachments(
        store,
        inspector=ContentInspector(settings.attachment_content_limits),
        memory=UploadMemory(settings.attachment_upload_bytes),
    )
