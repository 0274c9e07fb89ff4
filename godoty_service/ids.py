"""Ids that we make: `turn_…`, `call_…`. They sort by the time they were made, and nobody can guess the next."""

import hashlib
import secrets
import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def new_id(kind: str, *, made: datetime | None = None) -> str:
    """Make an id: the kind, 12 hex digits of milliseconds since 1970, and 64 random bits.

    Args:
        kind: What it names.
        made: The time in it, where ids of several servers must sort; None: the system clock's.
    """
    milliseconds = time.time_ns() // 1_000_000 if made is None else (made - _EPOCH) // _MILLISECOND
    return f"{kind}_{milliseconds:012x}{secrets.token_hex(8)}"


def key_id_of(secret: str) -> str:
    """Name a provider key without telling it."""
    return hashlib.sha256(secret.encode()).hexdigest()[:16]
