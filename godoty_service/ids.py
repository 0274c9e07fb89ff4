"""Generates ids: `turn_…`, `call_…`. They sort by creation time and cannot be guessed."""

import hashlib
import secrets
import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TIME_DIGITS = 12


def new_id(kind: str, *, made: datetime | None = None) -> str:
    """Return a new id: the kind, 12 hex digits of milliseconds since 1970, and 64 random bits.

    Args:
        kind: What it identifies.
        made: Its time, if ids of several servers must sort; None: the system clock's.
    """
    milliseconds = time.time_ns() // 1_000_000 if made is None else (made - _EPOCH) // _MILLISECOND
    return f"{kind}_{milliseconds:0{_TIME_DIGITS}x}{secrets.token_hex(8)}"


def first_id(kind: str, *, made: datetime) -> str:
    """Return a text that sorts before a kind's ids that were made at a time or later, and after the earlier ones."""
    return f"{kind}_{(made - _EPOCH) // _MILLISECOND:0{_TIME_DIGITS}x}"


def time_of_id(some_id: str) -> datetime:
    """Return the time at which an id of `new_id` was made."""
    _, _, digits = some_id.rpartition("_")
    return _EPOCH + int(digits[:_TIME_DIGITS], 16) * _MILLISECOND


def key_id_of(secret: str) -> str:
    """Return the id of a provider key, which does not reveal the key."""
    return hashlib.sha256(secret.encode()).hexdigest()[:16]
