"""The authenticated caller of a request and its scopes."""

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """A group of methods that an API key may call."""

    CONVERSE = "converse"
    BILLING = "billing"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The tenant and the scopes of a valid API key."""

    tenant_id: str
    key_id: str
    scopes: frozenset[Scope]
