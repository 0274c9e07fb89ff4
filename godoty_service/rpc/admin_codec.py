"""Converts between admin_service.proto and domain values, and checks the requests; the command line uses it, too."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import budget_pb2

from godoty_service.budgets.budget import Budget, BudgetWindow
from godoty_service.clock import to_millisecond
from godoty_service.errors import InvalidRequest
from godoty_service.ledger.adjustment_order import AdjustmentOrder
from godoty_service.pricing import money
from godoty_service.pricing.catalogue import Catalogue
from godoty_service.rpc.metering_codec import timestamp
from godoty_service.rpc.validation import CALLER_ID, MAX_FALLBACK_MODELS, MODEL_ID, Violations, unknown_model
from godoty_service.tenancy.api_keys import ApiKey
from godoty_service.tenancy.audit import AdminChange
from godoty_service.tenancy.auth import Scope
from godoty_service.tenancy.policies import Policy
from godoty_service.tenancy.routing import read_preferences
from godoty_service.tenancy.tenants import Tenant

_MAX_NAME = 200  # characters
_MAX_WHY = 1000  # characters
_MAX_BY = 200  # characters
_MAX_PATTERNS = 100
_MAX_SCOPES = 16
_MAX_OVERLAP = timedelta(days=30)
_MODEL_PATTERN = re.compile(r"[A-Za-z0-9._:/~@*-]{1,128}")
_PROVIDER_KEY = re.compile(r"[!-~]{8,256}")

_SCOPE_NAMES = {scope: f"API_SCOPE_{scope.name}" for scope in Scope}
_SCOPES = {pb.ApiScope.Value(name): scope for scope, name in _SCOPE_NAMES.items()}
_WINDOW_NAMES = {window: f"BUDGET_WINDOW_{window.name}" for window in BudgetWindow}
_WINDOWS = {budget_pb2.BudgetWindow.Value(name): window for window, name in _WINDOW_NAMES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """The key to issue."""

    tenant_id: str
    scopes: frozenset[Scope]
    expire_time: datetime | None


def parse_tenant_name(text: str) -> str:
    """Check a tenant's name.

    Raises:
        InvalidRequest: It is blank, too long, or has invisible characters.
    """
    if len(text) > _MAX_NAME or not text.strip() or not text.isprintable():
        raise InvalidRequest.of("name", f"must have 1 to {_MAX_NAME} printable characters")
    return text


def parse_tenant_id(text: str) -> str:
    """Check the id of a tenant.

    Raises:
        InvalidRequest: It cannot be an id.
    """
    violations = Violations()
    violations.check_id("tenant_id", text)
    violations.raise_if_any()
    return text


def parse_key_ids(request: pb.RevokeKeyRequest | pb.RotateKeyRequest) -> tuple[str, str]:
    """Return the ids of the request's tenant and key.

    Raises:
        InvalidRequest: One or more fields are invalid.
    """
    violations = Violations()
    violations.check_id("tenant_id", request.tenant_id)
    violations.check_id("key_id", request.key_id)
    violations.raise_if_any()
    return request.tenant_id, request.key_id


def parse_overlap(request: pb.RotateKeyRequest) -> timedelta:
    """Return how long the old key stays valid.

    Raises:
        InvalidRequest: It is negative or too long.
    """
    overlap = timedelta(seconds=request.overlap_seconds)
    if not timedelta(0) <= overlap <= _MAX_OVERLAP:
        raise InvalidRequest.of("overlap_seconds", f"must be 0 to {int(_MAX_OVERLAP.total_seconds())}")
    return overlap


def parse_key_request(request: pb.IssueKeyRequest, *, now: datetime) -> KeyRequest:
    """Return the key to issue.

    Raises:
        InvalidRequest: One or more fields are invalid.
    """
    violations = Violations()
    violations.check_id("tenant_id", request.tenant_id)
    if not 0 < len(request.scopes) <= _MAX_SCOPES or not all(scope in _SCOPES for scope in request.scopes):
        violations.add("scopes", f"must be 1 to {_MAX_SCOPES}, each one of its values")
    expire_time = None
    if request.HasField("expire_time"):
        try:
            expire_time = to_millisecond(request.expire_time.ToDatetime(tzinfo=UTC))
        except (ValueError, OverflowError):
            violations.add("expire_time", "must be a time")
        else:
            if expire_time <= now:
                violations.add("expire_time", "must be in the future")
    violations.raise_if_any()
    scopes = frozenset(_SCOPES[scope] for scope in request.scopes)
    return KeyRequest(tenant_id=request.tenant_id, scopes=scopes, expire_time=expire_time)


def parse_provider_key(request: pb.SetProviderKeyRequest) -> tuple[str, str | None]:
    """Return the tenant's id and its own provider key; None removes the key.

    Raises:
        InvalidRequest: A field is invalid. The text does not repeat the key.
    """
    violations = Violations()
    violations.check_id("tenant_id", request.tenant_id)
    if request.provider_key and not _PROVIDER_KEY.fullmatch(request.provider_key):
        violations.add("provider_key", "must be a key: 8 to 256 visible ASCII characters, or be empty")
    violations.raise_if_any()
    return request.tenant_id, request.provider_key or None


def parse_policy(request: pb.SetPolicyRequest, *, catalogue: Catalogue | None) -> tuple[str, Policy]:
    """Return the tenant's id and its new policy.

    Args:
        request: The request.
        catalogue: The provider's models; None: unknown, so any model may be a default.

    Raises:
        InvalidRequest: One or more fields are invalid.
        UnknownModel: A default model does not exist.
    """
    message = request.policy
    violations = Violations()
    violations.check_id("tenant_id", request.tenant_id)
    if not request.HasField("policy"):
        violations.add("policy", "must be set; an empty one sets no bounds")
    _check_models(message, violations)
    for name in ("max_output_tokens", "turns_per_minute", "concurrent_turns"):
        if getattr(message, name) < 0:
            violations.add(f"policy.{name}", "must not be negative")
    provider, budgets = _parse_provider(message, violations), _parse_budgets(message.budgets, violations)
    violations.raise_if_any()
    policy = Policy(
        allowed_models=tuple(message.allowed_models),
        default_model=message.default_model or None,
        default_fallback_models=tuple(message.default_fallback_models),
        max_output_tokens=message.max_output_tokens or None,
        turns_per_minute=message.turns_per_minute or None,
        concurrent_turns=message.concurrent_turns or None,
        provider=provider,
        zero_data_retention=message.zero_data_retention,
        budgets=budgets,
    )
    _check_defaults(policy, catalogue)
    return request.tenant_id, policy


def parse_adjustment(request: pb.AdjustCallRequest, *, by: str) -> AdjustmentOrder:
    """Return the adjustment to make.

    Args:
        request: The request.
        by: The person or the API key that makes it.

    Raises:
        InvalidRequest: One or more fields are invalid.
    """
    violations = Violations()
    violations.check_id("tenant_id", request.tenant_id)
    violations.check_id("call_id", request.call_id)
    amount = _parse_change(request, violations)
    check_attribution(violations, why=request.why, by=by)
    if not CALLER_ID.fullmatch(request.request_id):
        violations.add("request_id", f"must match {CALLER_ID.pattern}")
    violations.raise_if_any()
    return AdjustmentOrder(
        tenant_id=request.tenant_id,
        call_id=request.call_id,
        amount=amount,
        is_new_cost=request.HasField("cost_usd"),
        why=request.why,
        by=by,
        request_id=request.request_id,
        above_bound=request.above_bound,
    )


def check_attribution(violations: Violations, *, why: str, by: str) -> None:
    """Check the reason of a ledger entry and the name of its author; add those that are invalid."""
    for name, text, longest in (("why", why, _MAX_WHY), ("by", by, _MAX_BY)):
        if len(text) > longest or not text.strip() or not text.isprintable():
            violations.add(name, f"must have 1 to {longest} printable characters")


def tenant_message(tenant: Tenant) -> pb.Tenant:
    """Convert a tenant."""
    return pb.Tenant(tenant_id=tenant.tenant_id, name=tenant.name, create_time=timestamp(tenant.create_time))


def key_message(key: ApiKey) -> pb.ApiKey:
    """Convert an API key."""
    return pb.ApiKey(
        key_id=key.key_id,
        tenant_id=key.tenant_id,
        scopes=[_SCOPE_NAMES[scope] for scope in Scope if scope in key.scopes],
        create_time=timestamp(key.create_time),
        expire_time=timestamp(key.expire_time) if key.expire_time else None,
        revoke_time=timestamp(key.revoke_time) if key.revoke_time else None,
        last_use_time=timestamp(key.last_use_time) if key.last_use_time else None,
    )


def policy_message(policy: Policy) -> pb.Policy:
    """Convert a policy."""
    return pb.Policy(
        allowed_models=policy.allowed_models,
        default_model=policy.default_model or "",
        default_fallback_models=policy.default_fallback_models,
        max_output_tokens=policy.max_output_tokens or 0,
        turns_per_minute=policy.turns_per_minute or 0,
        concurrent_turns=policy.concurrent_turns or 0,
        provider_json=json.dumps(policy.provider) if policy.provider else "",
        zero_data_retention=policy.zero_data_retention,
        budgets=[
            budget_pb2.Budget(
                window=_WINDOW_NAMES[budget.window],
                limit_usd=money.format_usd(budget.limit),
                hard=budget.hard,
            )
            for budget in policy.budgets
        ],
    )


def change_message(change: AdminChange) -> pb.AdminChange:
    """Convert an audited change."""
    return pb.AdminChange(
        time=timestamp(change.time),
        by=change.by,
        action=change.action,
        tenant_id=change.tenant_id,
        details_json=change.details,
    )


def _check_models(message: pb.Policy, violations: Violations) -> None:
    if len(message.allowed_models) > _MAX_PATTERNS or not _all_match(_MODEL_PATTERN, message.allowed_models):
        text = f"must be at most {_MAX_PATTERNS}, each the id of a model or a pattern with `*`, such as openai/*"
        violations.add("policy.allowed_models", text)
    if message.default_model and not MODEL_ID.fullmatch(message.default_model):
        violations.add("policy.default_model", "must be the id of a model, such as openai/gpt-4o-mini")
    fallbacks = message.default_fallback_models
    if len(fallbacks) > MAX_FALLBACK_MODELS or not _all_match(MODEL_ID, fallbacks):
        text = f"must be at most {MAX_FALLBACK_MODELS}, each the id of a model"
        violations.add("policy.default_fallback_models", text)
    elif fallbacks and not message.default_model:
        violations.add("policy.default_fallback_models", "need a default_model")


def _check_defaults(policy: Policy, catalogue: Catalogue | None) -> None:
    """Refuse default models that no turn could use.

    Raises:
        InvalidRequest: The policy itself does not allow one.
        UnknownModel: One does not exist.
    """
    for field, models in (
        ("policy.default_model", [policy.default_model] if policy.default_model else []),
        ("policy.default_fallback_models", policy.default_fallback_models),
    ):
        for model in models:
            if catalogue is not None and not catalogue.knows(model):
                raise unknown_model(field, model)
            if not policy.allows(model):
                raise InvalidRequest.of(field, "must be among allowed_models")


def _parse_provider(message: pb.Policy, violations: Violations) -> dict[str, Any] | None:
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


def _parse_change(request: pb.AdjustCallRequest, violations: Violations) -> Decimal:
    """Parse the amount of an adjustment; add a violation if it is invalid."""
    name = request.WhichOneof("change")
    if name is None:
        violations.add("change", "cost_usd or add_usd is required")
        return money.ZERO
    try:
        amount = money.read_amount(getattr(request, name))
    except ValueError as error:
        violations.add(name, str(error))
        return money.ZERO
    if name == "cost_usd" and amount < 0:
        violations.add(name, "must not be negative")
    if name == "add_usd" and amount == 0:
        violations.add(name, "must not be 0")
    return amount


def _all_match(pattern: re.Pattern[str], texts: Iterable[str]) -> bool:
    return all(pattern.fullmatch(text) for text in texts)
