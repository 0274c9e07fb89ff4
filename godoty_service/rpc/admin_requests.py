"""Checks what administrators ask for and turns it into domain values. The command line goes through here, too."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import billing_service_pb2 as billing_pb

from godoty_service.budget import Budget, BudgetWindow
from godoty_service.clock import to_millisecond
from godoty_service.errors import FieldViolation, InvalidRequest, UnknownModel
from godoty_service.metering import money
from godoty_service.metering.catalogue import Catalogue
from godoty_service.rpc.admin_messages import SCOPE_NAMES, WINDOW_NAMES
from godoty_service.tenancy.policy import Policy
from godoty_service.tenancy.principal import Scope
from godoty_service.tenancy.routing import read_preferences

_ID = 128
_NAME = 200
_PATTERNS = 100
_FALLBACKS = 8
_SCOPES_AT_MOST = 16
_OVERLAP = timedelta(days=30)
_PATTERN = re.compile(r"[A-Za-z0-9._:/~@*-]{1,128}")
_MODEL = re.compile(r"[A-Za-z0-9._:/~@-]{1,128}")
_PROVIDER_KEY = re.compile(r"[!-~]{8,256}")

_SCOPES = {pb.ApiScope.Value(name): scope for scope, name in SCOPE_NAMES.items()}
_WINDOWS = {billing_pb.BudgetWindow.Value(name): window for window, name in WINDOW_NAMES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """The key that is asked for."""

    tenant_id: str
    scopes: frozenset[Scope]
    expire_time: datetime | None


def tenant_name(text: str) -> str:
    """Check a tenant's name.

    Raises:
        InvalidRequest: It is blank, too long, or has signs that nobody sees.
    """
    if len(text) > _NAME or not text.strip() or not text.isprintable():
        raise InvalidRequest.of("name", f"must have 1 to {_NAME} printable characters")
    return text


def tenant_id(text: str) -> str:
    """Check the id of a tenant that is asked for.

    Raises:
        InvalidRequest: It cannot be one.
    """
    _refuse(_violations_of_id("tenant_id", text))
    return text


def key(request: pb.RevokeKeyRequest | pb.RotateKeyRequest) -> tuple[str, str]:
    """Check which key of which tenant is asked for.

    Raises:
        InvalidRequest: A field is refused.
    """
    _refuse([*_violations_of_id("tenant_id", request.tenant_id), *_violations_of_id("key_id", request.key_id)])
    return request.tenant_id, request.key_id


def overlap(request: pb.RotateKeyRequest) -> timedelta:
    """Check how long the old key is to serve.

    Raises:
        InvalidRequest: It is negative or too long.
    """
    asked = timedelta(seconds=request.overlap_seconds)
    if not timedelta(0) <= asked <= _OVERLAP:
        raise InvalidRequest.of("overlap_seconds", f"must be 0 to {int(_OVERLAP.total_seconds())}")
    return asked


def new_key(request: pb.IssueKeyRequest, *, now: datetime) -> NewKey:
    """Check what a new key is to be.

    Raises:
        InvalidRequest: Fields are refused.
    """
    violations = _violations_of_id("tenant_id", request.tenant_id)
    if not 0 < len(request.scopes) <= _SCOPES_AT_MOST or not all(scope in _SCOPES for scope in request.scopes):
        violations.append(_violation("scopes", f"must be 1 to {_SCOPES_AT_MOST}, each one of its values"))
    expire_time = None
    if request.HasField("expire_time"):
        try:
            expire_time = to_millisecond(request.expire_time.ToDatetime(tzinfo=UTC))
        except (ValueError, OverflowError):
            violations.append(_violation("expire_time", "must be a time"))
        else:
            if expire_time <= now:
                violations.append(_violation("expire_time", "must be in the future"))
    _refuse(violations)
    scopes = frozenset(_SCOPES[scope] for scope in request.scopes)
    return NewKey(tenant_id=request.tenant_id, scopes=scopes, expire_time=expire_time)


def provider_key(request: pb.SetProviderKeyRequest) -> tuple[str, str | None]:
    """Check a tenant's own provider key; None: it is to have none.

    Raises:
        InvalidRequest: A field is refused. The key is not repeated.
    """
    violations = _violations_of_id("tenant_id", request.tenant_id)
    if request.provider_key and not _PROVIDER_KEY.fullmatch(request.provider_key):
        violations.append(_violation("provider_key", "must be a key: 8 to 256 visible ASCII characters, or be empty"))
    _refuse(violations)
    return request.tenant_id, request.provider_key or None


def policy(request: pb.SetPolicyRequest, *, catalogue: Catalogue | None) -> tuple[str, Policy]:
    """Check what a tenant is to be allowed.

    Args:
        request: The request.
        catalogue: The models that there are; None: not known, so any may be a default.

    Raises:
        InvalidRequest: Fields are refused.
        UnknownModel: There is no such model.
    """
    asked = request.policy
    violations = _violations_of_id("tenant_id", request.tenant_id)
    if not request.HasField("policy"):
        violations.append(_violation("policy", "must be set; an empty one sets no bounds"))
    violations.extend(_violations_of_models(asked))
    violations.extend(_violations_of_numbers(asked))
    provider, budgets = _provider(asked, violations), _budgets(asked.budgets, violations)
    _refuse(violations)
    wanted = Policy(
        allowed_models=tuple(asked.allowed_models),
        default_model=asked.default_model or None,
        default_fallback_models=tuple(asked.default_fallback_models),
        max_output_tokens=asked.max_output_tokens or None,
        turns_per_minute=asked.turns_per_minute or None,
        concurrent_turns=asked.concurrent_turns or None,
        provider=provider,
        zero_data_retention=asked.zero_data_retention,
        budgets=budgets,
    )
    _check_defaults(wanted, catalogue)
    return request.tenant_id, wanted


def _check_defaults(wanted: Policy, catalogue: Catalogue | None) -> None:
    """Refuse defaults that could never be asked for.

    Raises:
        InvalidRequest: The policy itself does not allow one.
        UnknownModel: There is no such model.
    """
    for field, models in (
        ("policy.default_model", [wanted.default_model] if wanted.default_model else []),
        ("policy.default_fallback_models", wanted.default_fallback_models),
    ):
        for model in models:
            if catalogue is not None and not catalogue.knows(model):
                raise UnknownModel(
                    "The provider's catalogue has no such model.",
                    metadata={"model": model},
                    violations=[_violation(field, "no such model")],
                )
            if not wanted.allows(model):
                raise InvalidRequest.of(field, "must be among allowed_models")


def _violations_of_models(asked: pb.Policy) -> list[FieldViolation]:
    violations = []
    if len(asked.allowed_models) > _PATTERNS or not _all(_PATTERN, asked.allowed_models):
        text = f"must be at most {_PATTERNS}, each the id of a model or a pattern with `*`, such as openai/*"
        violations.append(_violation("policy.allowed_models", text))
    if asked.default_model and not _MODEL.fullmatch(asked.default_model):
        violations.append(_violation("policy.default_model", "must be the id of a model, such as openai/gpt-4o-mini"))
    if len(asked.default_fallback_models) > _FALLBACKS or not _all(_MODEL, asked.default_fallback_models):
        text = f"must be at most {_FALLBACKS}, each the id of a model"
        violations.append(_violation("policy.default_fallback_models", text))
    elif asked.default_fallback_models and not asked.default_model:
        violations.append(_violation("policy.default_fallback_models", "need a default_model"))
    return violations


def _violations_of_numbers(asked: pb.Policy) -> list[FieldViolation]:
    return [
        _violation(f"policy.{name}", "must not be negative")
        for name in ("max_output_tokens", "turns_per_minute", "concurrent_turns")
        if getattr(asked, name) < 0
    ]


def _provider(asked: pb.Policy, violations: list[FieldViolation]) -> dict[str, Any] | None:
    """Read routing preferences; what is refused is added to the violations."""
    try:
        return read_preferences(asked.provider_json)
    except ValueError as error:
        violations.append(_violation("policy.provider_json", str(error)))
        return None


def _budgets(asked: Sequence[pb.Budget], violations: list[FieldViolation]) -> tuple[Budget, ...]:
    """Read budgets; what is refused is added to the violations."""
    budgets: dict[BudgetWindow, Budget] = {}
    for place, each in enumerate(asked[: 2 * len(_WINDOWS)]):
        window, limit = _WINDOWS.get(each.window), _limit(each.limit_usd)
        if window is None or window in budgets:
            violations.append(_violation(f"policy.budgets[{place}].window", "must be day, month or total, each once"))
        if limit is None:
            text = f'must be a plain decimal above 0 such as "12.50", {money.AMOUNT_RULE}'
            violations.append(_violation(f"policy.budgets[{place}].limit_usd", text))
        if window is not None and limit is not None:
            budgets[window] = Budget(window=window, limit=limit, hard=each.hard)
    return tuple(budgets[window] for window in BudgetWindow if window in budgets)


def _limit(text: str) -> Decimal | None:
    try:
        amount = money.read_amount(text)
    except ValueError:
        return None
    return amount if amount > 0 else None


def _all(form: re.Pattern[str], texts: Iterable[str]) -> bool:
    return all(form.fullmatch(text) for text in texts)


def _violations_of_id(field: str, text: str) -> list[FieldViolation]:
    if 0 < len(text) <= _ID:
        return []
    return [_violation(field, f"must have 1 to {_ID} characters")]


def _violation(field: str, description: str) -> FieldViolation:
    return FieldViolation(field=field, description=description)


def _refuse(violations: Sequence[FieldViolation]) -> None:
    """Refuse a request that has any.

    Raises:
        InvalidRequest: It has.
    """
    if violations:
        text = "; ".join(f"{each.field}: {each.description}" for each in violations)
        raise InvalidRequest(text, violations=violations)
