"""The authenticated caller of a request, its scopes and limits."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class Scope(StrEnum):
    """A group of methods that an API key may call."""

    CONVERSE = "converse"
    BILLING = "billing"
    AGENTS = "agents"  # unknown to earlier builds, so they refuse it
    APPROVE = "approve"  # likewise
    ADMIN = "admin"  # the operator's: all tenants
    TENANT_ADMIN = "tenant_admin"  # the API keys of the key's own tenant; unknown to earlier builds, so they refuse it


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """Limits of one API key, beside its tenant's policy.

    Attributes:
        models: Model ids, or patterns with `*`; empty: all.
        turns_per_minute: Maximum number of turns that it starts in a minute; None: no bound, 0: none.
    """

    models: tuple[str, ...] = ()
    turns_per_minute: int | None = None

    def allows(self, model: str) -> bool:
        """Return whether the key allows a model."""
        return allows_model(self.models, model)

    def covers(self, other: "KeyLimits") -> bool:
        """Return whether other limits allow no more than these.

        A pattern is covered if these allow it as if its asterisks were letters: only an asterisk matches an asterisk.
        """
        models = not self.models or (bool(other.models) and all(self.allows(each) for each in other.models))
        rate = self.turns_per_minute is None or (
            other.turns_per_minute is not None and other.turns_per_minute <= self.turns_per_minute
        )
        return models and rate


NO_KEY_LIMITS = KeyLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The tenant, the scopes and the limits of a valid API key, and whether the tenant is suspended."""

    tenant_id: str
    key_id: str
    scopes: frozenset[Scope]
    limits: KeyLimits = NO_KEY_LIMITS
    suspended: bool = False

    @property
    def is_operator(self) -> bool:
        """Whether the key may access all tenants."""
        return Scope.ADMIN in self.scopes


def allows_model(patterns: Collection[str], model: str) -> bool:
    """Return whether one of some ids or patterns matches a model; no pattern allows all."""
    return not patterns or any(fnmatchcase(model, pattern) for pattern in patterns)
