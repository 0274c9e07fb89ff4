"""The settings of attachments: how large and how many they may be, and how documents are parsed."""

from typing import Literal

from pydantic import Field

from godoty_service.attachments.content import ContentLimits
from godoty_service.attachments.store import TenantLimits
from godoty_service.settings.actions import ActionSettings
from godoty_service.settings.types import Network, Networks, read_networks


class AttachmentSettings(ActionSettings):
    """The settings of attachments."""

    attachment_bytes: int = Field(
        20 * 1024 * 1024, ge=64 * 1024, le=64 * 1024 * 1024, description="Largest attachment, in bytes."
    )
    attachment_pixels: int = Field(
        40_000_000, ge=10_000, le=1_000_000_000, description="Most pixels of an image, by its width and height."
    )
    attachment_pages: int = Field(100, ge=1, le=10_000, description="Most pages of a PDF document.")
    attachment_retention: float = Field(
        86_400.0, ge=1, le=31_536_000, description="Seconds for which an attachment is stored that no session names."
    )
    attachments_per_tenant: int = Field(
        10_000, ge=1, le=100_000, description="Attachments of one tenant; uploads of the same bytes count each."
    )
    attachment_bytes_per_tenant: int = Field(
        10 * 1024**3,
        ge=1024 * 1024,
        le=10 * 1024**4,
        description="Bytes of one tenant's attachments, counted so.",
    )
    attachment_request_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024 * 1024,
        le=256 * 1024 * 1024,
        description="Bytes of the attachments that one request to a model carries: the newest of the session; the model"
        " sees a note in place of older ones.",
    )
    attachment_upload_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024 * 1024,
        le=4 * 1024**3,
        description="Bytes of all uploads that the server receives at once, of which one tenant gets at most half;"
        " others are refused for two seconds.",
    )
    attachment_networks: Networks | None = Field(
        None,
        description="Networks that the URLs of attachments may be in although they are not public, also without TLS;"
        " unset: none.",
    )
    pdf_parser: Literal["cloudflare-ai", "mistral-ocr", "native"] = Field(
        "cloudflare-ai",
        description="What reads PDF documents: OpenRouter's text extraction without a fee, Mistral's OCR at 0.002 USD a"
        " page and request, or the model itself (only models that take files).",
    )

    @property
    def attachment_allowed_networks(self) -> tuple[Network, ...]:
        """The networks that are allowed although they are not public."""
        return read_networks(self.attachment_networks) if self.attachment_networks is not None else ()

    @property
    def attachment_content_limits(self) -> ContentLimits:
        """The limits of one attachment."""
        return ContentLimits(size=self.attachment_bytes, pixels=self.attachment_pixels, pages=self.attachment_pages)

    @property
    def attachment_tenant_limits(self) -> TenantLimits:
        """The limits of one tenant's attachments together."""
        return TenantLimits(number=self.attachments_per_tenant, size=self.attachment_bytes_per_tenant)
