"""Encrypts the secrets of webhooks, each for its own webhook."""

from typing import Protocol

_WHAT = "The secret of a webhook"


class Encryption(Protocol):
    """Encrypts secrets, as `tenancy/encryption.py` does."""

    def seal(self, secret: str, *, owner: str, what: str) -> bytes:
        """Encrypt a secret."""

    def open(self, sealed: bytes, *, owner: str, what: str) -> str:
        """Decrypt a secret that was sealed for this owner."""

    def is_current(self, sealed: bytes) -> bool:
        """Return whether the first key sealed a secret."""


def seal(secret_box: Encryption, webhook_uid: str, secret: str) -> bytes:
    """Encrypt a secret of a webhook.

    Raises:
        ProviderKeysOff: The service has no encryption key.
    """
    return secret_box.seal(secret, owner=_owner(webhook_uid), what=_WHAT)


def unseal(secret_box: Encryption, webhook_uid: str, sealed: bytes) -> str:
    """Decrypt a secret of a webhook.

    Raises:
        ProviderKeysOff: The service lacks the key, or it was sealed for another webhook.
    """
    return secret_box.open(sealed, owner=_owner(webhook_uid), what=_WHAT)


def _owner(webhook_uid: str) -> str:
    return f"webhook {webhook_uid}"
