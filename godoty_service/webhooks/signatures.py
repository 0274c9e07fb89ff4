"""Signs messages by the Standard Webhooks scheme (https://www.standardwebhooks.com), version 1 with shared secrets.

The scheme is HMAC-SHA256 over `ID.TIMESTAMP.BODY`: ten lines on the standard library. The package `standardwebhooks`
makes one signature with one secret; a rotation with overlap would compose the header by hand all the same.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 - the scheme's
ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE = 300  # seconds by which a message's time may differ from the receiver's
_VERSION = "v1"
_SECRET_BYTES = 32


class SignatureRefused(ValueError):
    """A message is not signed by the secret, or it is too old."""


def new_secret() -> str:
    """Return a new random secret."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def sign(secret: str, *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a message, such as "v1,K5oZ...".

    Args:
        secret: The secret, with its prefix.
        message_id: The message's id, which is the same in each attempt.
        timestamp: The time of the attempt, in seconds since 1970.
        body: The body, byte for byte.

    Raises:
        ValueError: The secret is malformed.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("The secret must be whsec_ and Base64.") from None
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"{_VERSION},{base64.b64encode(digest).decode()}"


def signed_headers(secrets_in_force: Sequence[str], *, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a message: one signature for each secret in force, separated by spaces."""
    signatures = [sign(each, message_id=message_id, timestamp=timestamp, body=body) for each in secrets_in_force]
    return {ID_HEADER: message_id, TIMESTAMP_HEADER: str(timestamp), SIGNATURE_HEADER: " ".join(signatures)}


def verify(secret: str, headers: Mapping[str, str], body: bytes, *, now: float) -> None:
    """Check that a message is signed by a secret, and new.

    Args:
        secret: The secret.
        headers: The headers, by their names in lower case.
        body: The body, byte for byte.
        now: The present time, in seconds since 1970.

    Raises:
        SignatureRefused: It is not.
    """
    message_id, timestamp = headers.get(ID_HEADER, ""), headers.get(TIMESTAMP_HEADER, "")
    if not message_id or not timestamp.isdecimal():
        raise SignatureRefused("A header of the Standard Webhooks scheme is missing.")
    if abs(now - int(timestamp)) > TOLERANCE:
        raise SignatureRefused(f"The time of the message differs from this host's by more than {TOLERANCE} s.")
    expected = sign(secret, message_id=message_id, timestamp=int(timestamp), body=body).encode()
    found = headers.get(SIGNATURE_HEADER, "").encode().split()
    if not any(hmac.compare_digest(each, expected) for each in found):
        raise SignatureRefused("No signature of the message is that of the secret.")
