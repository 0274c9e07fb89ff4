"""The settings of webhooks: which addresses they may have, and how events are delivered to them."""

from pydantic import Field

from godoty_service.settings.attachments import AttachmentSettings
from godoty_service.settings.types import Network, Networks, read_networks


class WebhookSettings(AttachmentSettings):
    """The settings of webhooks."""

    webhook_networks: Networks | None = Field(
        None,
        description="Networks that tenants' webhooks may be in although they are not public, also without TLS; unset:"
        " none.",
    )
    webhook_interval: float = Field(
        1.0,
        ge=0.01,
        le=60,
        description="Seconds between two looks for events that webhooks are to be notified of, and for deliveries that"
        " are due.",
    )
    webhook_timeout: float = Field(
        15.0, ge=0.05, le=60, description="Seconds that one attempt to deliver an event may take."
    )
    webhook_retry_delay: float = Field(
        5.0,
        ge=0.01,
        le=3600,
        description="Seconds from the first attempt of a delivery to the second; each further pause is four times as"
        " long, at most 4 hours, and a fifth more or less by chance.",
    )
    webhook_retry_window: float = Field(
        86_400.0,
        ge=0.1,
        le=259_200,
        description="Seconds after which a delivery has failed, with a last attempt at their end. A webhook without any"
        " success meanwhile is switched off.",
    )
    webhook_retention: float = Field(
        604_800.0,
        ge=60,
        le=7_776_000,
        description="Seconds for which deliveries are stored, and can be delivered again; those of twice"
        " GODOTY_WEBHOOK_RETRY_WINDOW are stored in any case.",
    )
    webhook_endpoints: int = Field(
        64,
        ge=1,
        le=1024,
        description="Webhooks of all tenants to which a server process delivers at once, by up to 4 requests each.",
    )
    webhook_tenant_endpoints: int = Field(
        4, ge=1, le=64, description="Webhooks of one tenant to which a server process delivers at once."
    )

    @property
    def webhook_allowed_networks(self) -> tuple[Network, ...]:
        """The networks that are allowed although they are not public."""
        return read_networks(self.webhook_networks) if self.webhook_networks is not None else ()
