"""Tenants' policies: allowed models, defaults, limits and budgets. Owns `policies`, one document per tenant."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from bson.decimal128 import Decimal128

from godoty_service.aio.caching import TtlCache
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.mongo.collection import Collection, Document

_WINDOWS = frozenset(BudgetWindow)
_CACHED_FOR = 3.0  # seconds until a change applies on every server
_CACHED_POLICIES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A tenant's policy. None, empty and False set no limit.

    Attributes:
        allowed_models: Model ids, or patterns with `*`.
        default_model: Used if neither the request nor the session names a model.
        default_fallback_models: Tried in order if the default model cannot answer.
        max_output_tokens: Maximum output tokens of one turn.
        turns_per_minute: Maximum number of turns that start in a minute.
        concurrent_turns: Maximum number of turns that run at the same time.
        provider: OpenRouter's provider routing preferences, in its own format.
        zero_data_retention: Use only providers that retain no data.
        budgets: At most one per window.
    """

    allowed_models: tuple[str, ...] = ()
    default_model: str | None = None
    default_fallback_models: tuple[str, ...] = ()
    max_output_tokens: int | None = None
    turns_per_minute: int | None = None
    concurrent_turns: int | None = None
    provider: dict[str, Any] | None = None
    zero_data_retention: bool = False
    budgets: tuple[Budget, ...] = ()

    def allows(self, model: str) -> bool:
        """Return whether the policy allows a model."""
        return not self.allowed_models or any(fnmatchcase(model, pattern) for pattern in self.allowed_models)


NO_POLICY = Policy()


class Policies:
    """Policies by tenant, cached for 3 seconds."""

    COLLECTION = "policies"

    def __init__(self, collection: Collection, *, tick: Callable[[], float] = time.monotonic) -> None:
        """Create the store.

        Args:
            collection: `policies`.
            tick: Returns the seconds of a monotonic clock.
        """
        self._policies = collection
        self._cache: TtlCache[str, Policy] = TtlCache(size=_CACHED_POLICIES, ttl=_CACHED_FOR, tick=tick)
        self._counted: set[str] = set()  # tenants whose spending is counted

    async def get(self, tenant_id: str) -> Policy:
        """Return a tenant's policy, at most 3 seconds old; `NO_POLICY` if none was set."""
        policy = self._cache.get(tenant_id)
        return policy if policy is not None else await self._cache.load(tenant_id, partial(self.read, tenant_id))

    async def budgets(self, tenant_id: str) -> tuple[Budget, ...] | None:
        """Return a tenant's budgets, at most 3 seconds old; None: it never had one, so its spending is not counted."""
        budgets = (await self.get(tenant_id)).budgets
        return budgets if tenant_id in self._counted else None

    async def read(self, tenant_id: str) -> Policy:
        """Return a tenant's policy from the database, bypassing the cache; use it before a change."""
        found = await self._policies.find_one({"_id": tenant_id})
        if found is None:
            return NO_POLICY
        if found["budgets"] or found.get("counted"):
            self._counted.add(tenant_id)
        return _read(found)

    async def set(self, tenant_id: str, policy: Policy) -> None:
        """Replace a tenant's policy: effective here at once, on every server within 5 seconds."""
        document = _to_document(policy)
        if policy.budgets:  # counting never ends once it has started, so a later budget misses no spending
            document["counted"] = True
            self._counted.add(tenant_id)
        await self._policies.update_one({"_id": tenant_id}, {"$set": document}, upsert=True)
        self._cache.forget(tenant_id)  # not replaced: only the database knows whether spending is counted


def _to_document(policy: Policy) -> Document:
    """Convert a policy with all its fields, so that the update also clears those that are unset now."""
    return {
        "allowed_models": list(policy.allowed_models),
        "default_model": policy.default_model,
        "default_fallback_models": list(policy.default_fallback_models),
        "max_output_tokens": policy.max_output_tokens,
        "turns_per_minute": policy.turns_per_minute,
        "concurrent_turns": policy.concurrent_turns,
        # As text: its keys are OpenRouter's, and MongoDB would interpret dots and dollar signs in them.
        "provider": None if policy.provider is None else json.dumps(policy.provider),
        "zero_data_retention": policy.zero_data_retention,
        "budgets": [
            {"window": budget.window.value, "limit": Decimal128(budget.limit), "hard": budget.hard}
            for budget in policy.budgets
        ],
    }


def _read(document: Document) -> Policy:
    return Policy(
        allowed_models=tuple(document["allowed_models"]),
        default_model=document["default_model"],
        default_fallback_models=tuple(document["default_fallback_models"]),
        max_output_tokens=document["max_output_tokens"],
        turns_per_minute=document["turns_per_minute"],
        concurrent_turns=document["concurrent_turns"],
        provider=None if document["provider"] is None else json.loads(document["provider"]),
        zero_data_retention=document["zero_data_retention"],
        budgets=tuple(
            Budget(window=BudgetWindow(each["window"]), limit=each["limit"].to_decimal(), hard=each["hard"])
            for each in document["budgets"]
            if each["window"] in _WINDOWS  # a later build may define more
        ),
    )
