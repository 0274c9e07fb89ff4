"""The errors of webhooks, beside those of `godoty_service/errors.py`.

GodotyError
├── DeliveryNotFound    the webhook has no delivery of this event
├── TooManyWebhooks     the tenant has as many webhooks as there may be
├── WebhookChanged      the webhook was changed since it was read
├── WebhookNotFound     the tenant has no such webhook
└── WebhookOff          a switched-off webhook delivers nothing
"""

from godoty_service.errors import GodotyError


class WebhookNotFound(GodotyError):
    """The tenant has no webhook of this name."""

    reason = "WEBHOOK_NOT_FOUND"

    @classmethod
    def of(cls, name: str) -> "WebhookNotFound":
        """Return the error for a name."""
        return cls(f"There is no webhook {name}.", metadata={"webhook_name": name})


class WebhookChanged(GodotyError):
    """The webhook was changed since the caller read it, or is changed again and again."""

    reason = "ETAG_MISMATCH"

    @classmethod
    def of(cls, name: str, etag: str) -> "WebhookChanged":
        """Return the error for a webhook, whose etag now is `etag`; empty: there is no such webhook."""
        text = f"The webhook {name} was changed meanwhile: read it again, and send the change with its etag."
        return cls(text, metadata={"etag": etag})


class TooManyWebhooks(GodotyError):
    """The tenant has as many webhooks as there may be."""

    reason = "WEBHOOK_LIMIT"


class DeliveryNotFound(GodotyError):
    """The webhook has no delivery of this event."""

    reason = "DELIVERY_NOT_FOUND"


class WebhookOff(GodotyError):
    """The webhook is switched off."""

    reason = "WEBHOOK_OFF"
