"""Who calls."""

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What an API key may be used for."""

    CONVERSE = "converse"
    BILLING = "billing"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The tenant that a good key belongs to, and what the key may be used for."""

    tenant_id: str
    key_id: str
    scopes: frozenset[Scope]
