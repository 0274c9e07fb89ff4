"""Tenants' policies: allowed models, defaults, limits and budgets. Owns `policies`, one document per tenant."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from collections.abc import Collection as AbstractCollection
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from bson.decimal128 import Decimal128

from godoty_service.aio.caching import TtlCache
from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.errors import DuplicateKey
from godoty_service.mongo.collection import Collection, Document
from godoty_service.tenancy.auth import allows_model
from godoty_service.tenancy.errors import AgentNotAllowed, ToolNotAllowed

_WINDOWS = frozenset(BudgetWindow)
_LIMITS = ("max_output_tokens", "turns_per_minute", "concurrent_turns")
_LATER = ("allowed_agents", "allowed_tools")  # fields that documents of earlier builds lack
_CACHED_FOR = 3.0  # seconds until a change applies on every server
_CACHED_POLICIES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A tenant's policy. None, empty and False set no bound; a number of 0 allows none.

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
        allowed_agents: Names of agents, or patterns with `*`.
        allowed_tools: Names of tools, or patterns with `*`.
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
    allowed_agents: tuple[str, ...] = ()
    allowed_tools: tuple[str, ...] = ()

    def allows(self, model: str) -> bool:
        """Return whether the policy allows a model."""
        return allows_model(self.allowed_models, model)

    def allows_agent(self, name: str) -> bool:
        """Return whether the policy allows an agent."""
        return allows_model(self.allowed_agents, name)

    def check_tools(self, agent: str, tools: Iterable[str]) -> None:
        """Check that the policy allows the tools of an agent.

        Raises:
            ToolNotAllowed: It does not allow one.
        """
        for tool in tools:
            if not allows_model(self.allowed_tools, tool):
                text = f"The tenant's policy does not allow the tool {tool}, which the agent {agent} has."
                raise ToolNotAllowed(text, metadata={"agent": agent, "tool": tool})

    def check_agent(self, agent: str, tools: Iterable[str]) -> None:
        """Check that the policy allows an agent and its tools.

        Raises:
            AgentNotAllowed: It does not allow the agent.
            ToolNotAllowed: It does not allow one of the tools.
        """
        if not self.allows_agent(agent):
            raise AgentNotAllowed(f"The tenant's policy does not allow the agent {agent}.", metadata={"agent": agent})
        self.check_tools(agent, tools)


NO_POLICY = Policy()
POLICY_FIELDS = frozenset(each.name for each in fields(Policy))


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """A policy as the database has it.

    Attributes:
        policy: The policy.
        document: What it was read from; None: no policy was set.
    """

    policy: Policy
    document: Document | None

    @property
    def etag(self) -> str:
        """Identifies this version by its values, too: a server of an earlier build does not count its changes."""
        known = self.document or {}
        # Fields that an earlier build lacks count once they are set: until then, both builds have the same etag.
        names = sorted(each for each in POLICY_FIELDS if each not in _LATER or known.get(each))
        parts = [known.get("revision", 0), *((name, known.get(name)) for name in names)]
        return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """A change of some fields.

    Attributes:
        policy: Has the new values.
        fields: The names of the fields that change.
        etag: The version that the change is based on; empty: any.
    """

    policy: Policy
    fields: AbstractCollection[str] = POLICY_FIELDS
    etag: str = ""

    def apply(self, policy: Policy) -> Policy:
        """Return the policy with the change."""
        return replace(policy, **self.values(self.policy))

    def values(self, policy: Policy) -> dict[str, Any]:
        """Return a policy's values of the fields that change."""
        return {name: getattr(policy, name) for name in sorted(self.fields)}


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
        """Return a tenant's policy from the database, bypassing the cache."""
        return (await self.read_version(tenant_id)).policy

    async def read_version(self, tenant_id: str) -> PolicyVersion:
        """Return a tenant's policy and its version from the database; use it before a change."""
        found = await self._policies.find_one({"_id": tenant_id})
        if found is None:
            return PolicyVersion(policy=NO_POLICY, document=None)
        if found["budgets"] or found.get("counted"):
            self._counted.add(tenant_id)
        return PolicyVersion(policy=_read(found), document=found)

    async def set(self, tenant_id: str, policy: Policy) -> None:
        """Replace a tenant's policy unconditionally."""
        while not await self.update(tenant_id, PolicyChange(policy=policy), over=await self.read_version(tenant_id)):
            pass

    async def update(self, tenant_id: str, change: PolicyChange, *, over: PolicyVersion) -> bool:
        """Change a tenant's policy if it is still the version that was read.

        It is in force here at once, on every server within 5 seconds.

        Returns:
            Whether it was that version.
        """
        complete = _to_document(change.apply(over.policy))
        # The other fields stay as they are: they may have values that only a later build knows.
        changed = {name: complete[name] for name in change.fields}
        if changed.get("budgets"):  # counting never ends once it has started, so a later budget misses no spending
            complete["counted"] = changed["counted"] = True
        try:
            return await self._write(tenant_id, over.document, complete, changed)
        finally:
            # Not replaced: only the database knows whether the write was made, and whether spending is counted.
            self._cache.forget(tenant_id)

    async def erase(self, tenant_id: str) -> None:
        """Delete a tenant's policy."""
        await self._policies.delete_one({"_id": tenant_id})
        self._cache.forget(tenant_id)

    async def _write(self, tenant_id: str, old: Document | None, complete: Document, changed: Document) -> bool:
        """Insert the first policy, or update the version that was read; return whether it was still that version."""
        if old is None:
            try:
                await self._policies.insert_one({"_id": tenant_id, **complete, "revision": 1})
            except DuplicateKey:
                return False
            return True
        unchanged = {name: old.get(name) for name in (*POLICY_FIELDS, "revision")}
        return await self._policies.update_one(
            {"_id": tenant_id, **unchanged}, {"$set": _unbounded(old) | changed, "$inc": {"revision": 1}}
        )


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
        **{name: list(getattr(policy, name)) for name in _LATER},
    }


def _unbounded(document: Document) -> Document:
    """Return the limits of 0 in a document without a revision, as None: in those, 0 set no limit."""
    return {} if "revision" in document else {name: None for name in _LIMITS if document[name] == 0}


def _read(document: Document) -> Policy:
    document = document | _unbounded(document)
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
        allowed_agents=tuple(document.get("allowed_agents", ())),
        allowed_tools=tuple(document.get("allowed_tools", ())),
    )
