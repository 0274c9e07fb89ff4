"""Builds what stores attachments, and what fetches their files."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.agents.outbound.files import FileFetcher
from godoty_service.agents.outbound.pool import Network, RequestFailed
from godoty_service.attachments.attachments import Attachments, Fetch
from godoty_service.attachments.chunks import AttachmentChunks
from godoty_service.attachments.content import ContentInspector
from godoty_service.attachments.errors import AttachmentRejected, Problem
from godoty_service.attachments.store import AttachmentStore
from godoty_service.attachments.uploads import UploadMemory
from godoty_service.clock import Clock
from godoty_service.mongo.client import Database
from godoty_service.settings.settings import Settings

_FETCH_SECONDS = 20.0  # that a file at a URL may take


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


def build_file_fetcher(settings: Settings) -> Fetch:
    """Build what fetches files at URLs; between files it has no connection."""
    network = Network(
        rules=AddressRules(settings.attachment_allowed_networks), connect_timeout=settings.connect_timeout
    )
    fetcher = FileFetcher(network, seconds=_FETCH_SECONDS)

    async def fetch(tenant_id: str, url: str) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(fetcher.fetch(url, tenant_id=tenant_id)) as pieces:
                async for piece in pieces:
                    yield piece
        except RequestFailed as failure:
            raise AttachmentRejected.of(Problem.URL, f"The file cannot be fetched: {failure}") from failure

    return fetch
