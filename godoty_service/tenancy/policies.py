"""What each tenant may do, as the database has it. Owns `policies`, one document a tenant."""

import json
import time
from collections.abc import Callable

from bson.decimal128 import Decimal128

from godoty_service.budget import Budget, BudgetWindow
from godoty_service.mongo import Collection, Document
from godoty_service.tenancy.policy import NO_POLICY, Policy

_WINDOWS = frozenset(BudgetWindow)
_CACHED_FOR = 3.0  # seconds until a change holds on every server
_CACHED_POLICIES = 10_000


class Policies:
    """Policies by tenant, with a short memory of those that were read."""

    def __init__(self, collection: Collection, *, tick: Callable[[], float] = time.monotonic) -> None:
        """Keep policies.

        Args:
            collection: `policies`.
            tick: Seconds of a clock that never turns back.
        """
        self._policies = collection
        self._tick = tick
        self._seen: dict[str, tuple[float, Policy]] = {}
        self._counted: set[str] = set()

    async def get(self, tenant_id: str) -> Policy:
        """Read what a tenant may do, at most 3 seconds old; `NO_POLICY` where nobody said."""
        seen, now = self._seen.get(tenant_id), self._tick()
        if seen is not None and now - seen[0] < _CACHED_FOR:
            return seen[1]
        policy = await self.read(tenant_id)
        self._remember(tenant_id, now, policy)
        return policy

    async def budgets(self, tenant_id: str) -> tuple[Budget, ...] | None:
        """Read a tenant's budgets, at most 3 seconds old; None: it never had any, and its spending is not counted."""
        budgets = (await self.get(tenant_id)).budgets
        return budgets if tenant_id in self._counted else None

    async def read(self, tenant_id: str) -> Policy:
        """Read what a tenant may do as the database has it now: for whoever is about to change it."""
        found = await self._policies.find_one({"_id": tenant_id})
        if found is None:
            return NO_POLICY
        if found["budgets"] or found.get("counted"):
            self._counted.add(tenant_id)
        return _read(found)

    async def set(self, tenant_id: str, policy: Policy) -> None:
        """Say what a tenant may do: here at once, on every server within 5 seconds."""
        written = _written(policy)
        if policy.budgets:  # to be counted, once begun, never ends: nothing is missing when a budget is set again
            written["counted"] = True
            self._counted.add(tenant_id)
        await self._policies.update_one({"_id": tenant_id}, {"$set": written}, upsert=True)
        self._seen.pop(tenant_id, None)  # to be read: only the database knows whether it is counted

    def _remember(self, tenant_id: str, now: float, policy: Policy) -> None:
        if len(self._seen) >= _CACHED_POLICIES:
            self._seen.clear()
        self._seen[tenant_id] = (now, policy)


def _written(policy: Policy) -> Document:
    """Write a policy down: each field, so that what it no longer says is gone."""
    return {
        "allowed_models": list(policy.allowed_models),
        "default_model": policy.default_model,
        "default_fallback_models": list(policy.default_fallback_models),
        "max_output_tokens": policy.max_output_tokens,
        "turns_per_minute": policy.turns_per_minute,
        "concurrent_turns": policy.concurrent_turns,
        # As text: its keys are OpenRouter's, and MongoDB would read dots and dollars in them.
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
            if each["window"] in _WINDOWS  # a later build may know more
        ),
    )
