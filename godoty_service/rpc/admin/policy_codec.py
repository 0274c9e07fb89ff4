"""Converts between `Policy` of tenant.proto and its domain value, and checks a change of it."""

import json
import re
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from typing import Any

from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import budget_pb2, tenant_pb2

from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.errors import InvalidRequest
from godoty_service.pricing import money
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.rpc.validation import (
    AGENT_PATTERN,
    COUNTS,
    MAX_FALLBACK_MODELS,
    MODEL_ID,
    MODEL_PATTERN,
    TOOL_PATTERN,
    Violations,
    unknown_model,
)
from godoty_service.tenancy.policies import POLICY_FIELDS, Policy, PolicyChange, PolicyVersion
from godoty_service.tenancy.routing import read_preferences

_LIMITS = ("max_output_tokens", "turns_per_minute", "concurrent_turns")
_ALL = "*"  # of a mask: all fields
_FIELDS = {"provider_json" if name == "provider" else name: name for name in POLICY_FIELDS}  # by their name in the mask

_WINDOW_NAMES = {window: f"BUDGET_WINDOW_{window.name}" for window in BudgetWindow}
_WINDOWS = {budget_pb2.BudgetWindow.Value(name): window for window, name in _WINDOW_NAMES.items()}


def parse_policy_change(request: pb.UpdatePolicyRequest) -> tuple[str, PolicyChange]:
    """Return the tenant's id and the change of its policy.

    Raises:
        InvalidRequest: One or more fields are invalid.
    """
    message = request.policy
    violations = Violations()
    violations.check_id("tenant_id", request.tenant_id)
    if not request.HasField("policy"):
        violations.add("policy", "must be set")
    changed = _parse_mask(request, violations)
    _check_models(message, violations)
    for name in _LIMITS:
        if getattr(message, name) < 0:
            violations.add(f"policy.{name}", "must not be negative")
    _check_patterns(message, violations)
    provider, budgets = _parse_provider(message, violations), _parse_budgets(message.budgets, violations)
    violations.raise_if_any()
    limits = {name: getattr(message, name) if message.HasField(name) else None for name in _LIMITS}
    policy = Policy(
        allowed_models=tuple(message.allowed_models),
        default_model=message.default_model or None,
        default_fallback_models=tuple(message.default_fallback_models),
        provider=provider,
        zero_data_retention=message.zero_data_retention,
        budgets=budgets,
        allowed_agents=tuple(message.allowed_agents),
        allowed_tools=tuple(message.allowed_tools),
        **limits,
    )
    return request.tenant_id, PolicyChange(policy=policy, fields=changed, etag=request.etag)


def check_policy(policy: Policy, *, changed: Collection[str], catalogue: Catalogue | None) -> None:
    """Refuse a policy whose default models no turn could use.

    Args:
        policy: The whole policy, as it is after the change.
        changed: The names of the fields that change: a model that was set before may have left the catalogue since.
        catalogue: The provider's models; None: unknown, so any model may be a default.

    Raises:
        InvalidRequest: The policy itself does not allow one, or there are fallbacks without a default model.
        UnknownModel: One does not exist.
    """
    if policy.default_fallback_models and policy.default_model is None:
        raise InvalidRequest.of("policy.default_fallback_models", "need a default_model")
    for name, models in (
        ("default_model", [policy.default_model] if policy.default_model else []),
        ("default_fallback_models", policy.default_fallback_models),
    ):
        for model in models:
            if name in changed and catalogue is not None and not catalogue.knows(model):
                raise unknown_model(f"policy.{name}", model)
            if not policy.allows(model):
                raise InvalidRequest.of(f"policy.{name}", "must be among allowed_models")


def policy_message(version: PolicyVersion) -> tenant_pb2.Policy:
    """Convert a policy."""
    policy = version.policy
    return tenant_pb2.Policy(
        etag=version.etag,
        allowed_models=policy.allowed_models,
        default_model=policy.default_model,
        default_fallback_models=policy.default_fallback_models,
        max_output_tokens=policy.max_output_tokens,
        turns_per_minute=policy.turns_per_minute,
        concurrent_turns=policy.concurrent_turns,
        provider_json=json.dumps(policy.provider) if policy.provider else None,
        zero_data_retention=policy.zero_data_retention or None,
        budgets=[
            budget_pb2.Budget(
                window=_WINDOW_NAMES[budget.window],
                limit_usd=money.format_usd(budget.limit),
                hard=budget.hard,
            )
            for budget in policy.budgets
        ],
        allowed_agents=policy.allowed_agents,
        allowed_tools=policy.allowed_tools,
    )


def _parse_mask(request: pb.UpdatePolicyRequest, violations: Violations) -> frozenset[str]:
    """Return the fields that change; add a violation for each path that names none."""
    message = request.policy
    if not request.HasField("update_mask"):
        changed = {field.name for field, _ in message.ListFields()} & _FIELDS.keys()
        if not changed and request.HasField("policy"):
            violations.add("update_mask", 'must name a field, or the policy must set one; "*" changes all fields')
        return frozenset(_FIELDS[name] for name in changed)
    paths = request.update_mask.paths[: COUNTS["paths"] + 1]
    if len(paths) > COUNTS["paths"]:
        violations.add("update_mask.paths", f"must be at most {COUNTS['paths']}")
    for index, path in enumerate(paths):
        if path not in _FIELDS and path != _ALL:
            violations.add(
                f"update_mask.paths[{index}]", f"must be a field of a policy that can be changed, not {path}"
            )
    if not paths:
        violations.add("update_mask", "must name a field, or be unset")
    if _ALL in paths:
        return POLICY_FIELDS
    return frozenset(_FIELDS[path] for path in paths if path in _FIELDS)


def _check_models(message: tenant_pb2.Policy, violations: Violations) -> None:
    most = COUNTS["allowed_models"]
    if len(message.allowed_models) > most or not _all_match(MODEL_PATTERN, message.allowed_models):
        text = f"must be at most {most}, each the id of a model or a pattern with `*`, such as openai/*"
        violations.add("policy.allowed_models", text)
    if message.default_model and not MODEL_ID.fullmatch(message.default_model):
        violations.add("policy.default_model", "must be the id of a model, such as openai/gpt-4o-mini")
    fallbacks = message.default_fallback_models
    if len(fallbacks) > MAX_FALLBACK_MODELS or not _all_match(MODEL_ID, fallbacks):
        text = f"must be at most {MAX_FALLBACK_MODELS}, each the id of a model"
        violations.add("policy.default_fallback_models", text)


def _check_patterns(message: tenant_pb2.Policy, violations: Violations) -> None:
    for name, pattern in (("allowed_agents", AGENT_PATTERN), ("allowed_tools", TOOL_PATTERN)):
        most, values = COUNTS[name], getattr(message, name)
        if len(values) > most or not _all_match(pattern, values):
            violations.add(f"policy.{name}", f"must be at most {most} names, or patterns with `*`")


def _parse_provider(message: tenant_pb2.Policy, violations: Violations) -> dict[str, Any] | None:
    """Parse routing preferences; add a violation if they are invalid."""
    try:
        return read_preferences(message.provider_json)
    except ValueError as error:
        violations.add("policy.provider_json", str(error))
        return None


def _parse_budgets(messages: Sequence[budget_pb2.Budget], violations: Violations) -> tuple[Budget, ...]:
    """Parse budgets; add a violation for each invalid field."""
    budgets: dict[BudgetWindow, Budget] = {}
    for index, message in enumerate(messages[: 2 * len(_WINDOWS)]):
        window, limit = _WINDOWS.get(message.window), _parse_limit(message.limit_usd)
        if window is None or window in budgets:
            violations.add(f"policy.budgets[{index}].window", "must be day, month or total, each once")
        if limit is None:
            text = f'must be a plain decimal above 0 such as "12.50", {money.AMOUNT_RULE}'
            violations.add(f"policy.budgets[{index}].limit_usd", text)
        if window is not None and limit is not None:
            budgets[window] = Budget(window=window, limit=limit, hard=message.hard)
    return tuple(budgets[window] for window in BudgetWindow if window in budgets)


def _parse_limit(text: str) -> Decimal | None:
    try:
        amount = money.read_amount(text)
    except ValueError:
        return None
    return amount if amount > 0 else None


def _all_match(pattern: re.Pattern[str], texts: Iterable[str]) -> bool:
    return all(pattern.fullmatch(text) for text in texts)
