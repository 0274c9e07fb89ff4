"""Encrypts secrets at rest with AES-256-GCM, authenticated with their owner, under the first of the service's keys."""

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from godoty_service.errors import ProviderKeysOff

_KEY = 32  # bytes
_NONCE = 12  # bytes
_KEY_ID = 8  # bytes
_PROVIDER_KEY = "A tenant's own OpenRouter key"


class SecretBox:
    """Encrypts with the first key and decrypts with all.

    This lets keys be rotated while servers run: append a new one on every server; then move it to the front; re-encrypt
    the secrets (`godoty tenant provider-key reseal`); remove the old one. At each step, every server can decrypt what
    any other encrypts.

    A sealed secret is the id of its key (8 bytes), a nonce (12) and the ciphertext.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {_key_id(key): AESGCM(key) for key in keys}
        self._first = next(iter(self._keys), None)

    @classmethod
    def of(cls, text: str) -> "SecretBox":
        """Decode keys: Base64 of 32 bytes each, separated by commas; empty: no keys.

        Raises:
            ValueError: A key is malformed. The text does not repeat it.
        """
        return cls([_decode_key(part.strip()) for part in text.split(",") if part.strip()])

    def seal(self, secret: str, *, owner: str, what: str = _PROVIDER_KEY) -> bytes:
        """Encrypt an owner's secret.

        Args:
            secret: The secret.
            owner: Whose it is: only for the same owner can it be decrypted.
            what: What it is, for the error.

        Raises:
            ProviderKeysOff: There is no key.
        """
        if self._first is None:
            raise ProviderKeysOff(
                f"{what} cannot be stored: the server has no encryption key."
                " Its operator must set GODOTY_ENCRYPTION_KEYS."
            )
        nonce = os.urandom(_NONCE)
        return self._first + nonce + self._keys[self._first].encrypt(nonce, secret.encode(), owner.encode())

    def open(self, sealed: bytes, *, owner: str, what: str = _PROVIDER_KEY) -> str:
        """Decrypt a secret that was sealed for this owner. See `seal` for the arguments.

        Raises:
            ProviderKeysOff: Its key is missing here, it belongs to another owner, or it was modified.
        """
        key = self._keys.get(sealed[:_KEY_ID])
        nonce, body = sealed[_KEY_ID : _KEY_ID + _NONCE], sealed[_KEY_ID + _NONCE :]
        try:
            if key is not None:
                return key.decrypt(nonce, body, owner.encode()).decode()
        except (InvalidTag, ValueError):
            pass
        raise ProviderKeysOff(
            f"{what} cannot be decrypted: the server lacks the encryption key that it needs."
            " Its operator must add that key to GODOTY_ENCRYPTION_KEYS, or the secret must be set again."
        )

    def can_open(self, sealed: bytes) -> bool:
        """Return whether one of these keys sealed a secret."""
        return sealed[:_KEY_ID] in self._keys

    def is_current(self, sealed: bytes) -> bool:
        """Return whether the first key sealed a secret."""
        return sealed[:_KEY_ID] == self._first


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"godoty sealing key " + key).digest()[:_KEY_ID]


def _decode_key(text: str) -> bytes:
    try:
        key = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY:
        raise ValueError(
            "GODOTY_ENCRYPTION_KEYS: each must be Base64 of 32 bytes, as `openssl rand -base64 32` prints."
        )
    return key
