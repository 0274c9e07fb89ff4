"""Encrypts secrets at rest: AES-256-GCM, bound to whose secret it is, under the first of the service's keys."""

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from godoty_service.errors import ProviderKeysOff

_KEY = 32
_NONCE = 12
_MARK = 8


class Sealer:
    """Seals with the first key and opens with all.

    So keys can be rotated while servers run: add a new one last, on every server; then move it first; reseal (`godoty
    tenant provider-key reseal`); drop the old. What one server seals, all can open at each of these steps.

    A sealed secret is the mark of its key (8 bytes), a nonce (12) and the ciphertext.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {_mark(key): AESGCM(key) for key in keys}
        self._first = next(iter(self._keys), None)

    @classmethod
    def of(cls, text: str) -> "Sealer":
        """Read keys: Base64 of 32 bytes each, separated by commas; empty: none.

        Raises:
            ValueError: One is none. The text does not repeat it.
        """
        return cls([_decoded(part.strip()) for part in text.split(",") if part.strip()])

    def seal(self, secret: str, *, owner: str) -> bytes:
        """Seal an owner's secret.

        Raises:
            ProviderKeysOff: There is no key.
        """
        if self._first is None:
            raise ProviderKeysOff(
                "A tenant's own OpenRouter key cannot be kept: the server has no encryption key."
                " Its operator must set GODOTY_ENCRYPTION_KEYS."
            )
        nonce = os.urandom(_NONCE)
        return self._first + nonce + self._keys[self._first].encrypt(nonce, secret.encode(), owner.encode())

    def open(self, sealed: bytes, *, owner: str) -> str:
        """Open what was sealed for this owner.

        Raises:
            ProviderKeysOff: Its key is not among ours, or it is somebody else's or was changed.
        """
        key = self._keys.get(sealed[:_MARK])
        nonce, body = sealed[_MARK : _MARK + _NONCE], sealed[_MARK + _NONCE :]
        try:
            if key is not None:
                return key.decrypt(nonce, body, owner.encode()).decode()
        except (InvalidTag, ValueError):
            pass
        raise ProviderKeysOff(
            "The tenant's own OpenRouter key cannot be read: the server lacks the encryption key it was kept with."
            " Its operator must add that to GODOTY_ENCRYPTION_KEYS, or set the tenant's key anew."
        )

    def knows(self, sealed: bytes) -> bool:
        """Tell whether it was sealed with one of these keys."""
        return sealed[:_MARK] in self._keys

    def is_current(self, sealed: bytes) -> bool:
        """Tell whether it was sealed with the first key."""
        return sealed[:_MARK] == self._first


def _mark(key: bytes) -> bytes:
    return hashlib.sha256(b"godoty sealing key " + key).digest()[:_MARK]


def _decoded(text: str) -> bytes:
    try:
        key = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY:
        raise ValueError(
            "GODOTY_ENCRYPTION_KEYS: each must be Base64 of 32 bytes, as `openssl rand -base64 32` prints."
        )
    return key
