"""Ids that we make: `turn_…`, `call_…`. They sort by the time they were made, and nobody can guess the next."""

import hashlib
import secrets
import time


def new_id(kind: str) -> str:
    """Make an id: the kind, 12 hex digits of milliseconds since 1970, and 64 random bits."""
    return f"{kind}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(8)}"


def key_id_of(secret: str) -> str:
    """Name a provider key without telling it."""
    return hashlib.sha256(secret.encode()).hexdigest()[:16]
