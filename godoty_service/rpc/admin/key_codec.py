"""Converts between `ApiKey` of tenant.proto and its domain value, and checks the requests that concern API keys."""

from datetime import UTC, datetime, timedelta

from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import tenant_pb2

from godoty_service.clock import to_millisecond
from godoty_service.rpc.metering_codec import timestamp
from godoty_service.rpc.validation import COUNTS, LENGTHS, MODEL_PATTERN, Violations
from godoty_service.tenancy.api_keys import ApiKey, ApiKeyTerms
from godoty_service.tenancy.auth import KeyLimits, Scope

_MAX_OVERLAP = timedelta(days=30)

_SCOPE_NAMES = {
    Scope.CONVERSE: "API_SCOPE_CONVERSE",
    Scope.BILLING: "API_SCOPE_BILLING",
    Scope.AGENTS: "API_SCOPE_AGENTS",
    Scope.APPROVE: "API_SCOPE_APPROVE",
    Scope.TENANT_ADMIN: "API_SCOPE_ADMIN",  # Scope.ADMIN is the same with `operator`
}
_SCOPES = {tenant_pb2.ApiScope.Value(name): scope for scope, name in _SCOPE_NAMES.items()}

KeyRequest = pb.GetApiKeyRequest | pb.RevokeApiKeyRequest | pb.RotateApiKeyRequest


def parse_key_ids(request: KeyRequest) -> tuple[str, str]:
    """Return the ids of the request's tenant and key.

    Raises:
        InvalidRequest: One or more fields are invalid.
    """
    violations = Violations()
    _check_key_ids(request, violations)
    violations.raise_if_any()
    return request.tenant_id, request.api_key_id


def parse_rotation(request: pb.RotateApiKeyRequest) -> tuple[str, str, timedelta]:
    """Return the ids of the request's tenant and key, and how long the key stays valid.

    Raises:
        InvalidRequest: One or more fields are invalid.
    """
    violations = Violations()
    _check_key_ids(request, violations)
    overlap = violations.read_duration("overlap", request.overlap, most=_MAX_OVERLAP)
    violations.check_caller_id("request_id", request.request_id)
    violations.raise_if_any()
    return request.tenant_id, request.api_key_id, overlap


def parse_new_key(request: pb.CreateApiKeyRequest, *, now: datetime) -> tuple[str, ApiKeyTerms]:
    """Return the tenant's id, and what its new key may do.

    Raises:
        InvalidRequest: One or more fields are invalid.
    """
    violations = Violations()
    violations.check_id("tenant_id", request.tenant_id)
    name = request.display_name
    if len(name) > LENGTHS["display_name"] or not name.isprintable():
        violations.add("display_name", f"must have at most {LENGTHS['display_name']} printable characters")
    scopes = _parse_scopes(request, violations)
    limits = _parse_limits(request, violations)
    expire_time = _parse_expire_time(request, violations, now=now)
    violations.check_caller_id("request_id", request.request_id)
    violations.raise_if_any()
    terms = ApiKeyTerms(scopes=scopes, display_name=name, limits=limits, expire_time=expire_time)
    return request.tenant_id, terms


def scope_names(scopes: frozenset[Scope]) -> list[str]:
    """Return the contract's names of scopes; the operator's `admin` is the same scope as a tenant's."""
    known = scopes | ({Scope.TENANT_ADMIN} if Scope.ADMIN in scopes else set())
    return [name for scope, name in _SCOPE_NAMES.items() if scope in known]


def key_message(key: ApiKey) -> tenant_pb2.ApiKey:
    """Convert an API key."""
    return tenant_pb2.ApiKey(
        api_key_id=key.key_id,
        tenant_id=key.tenant_id,
        display_name=key.display_name,
        scopes=scope_names(key.scopes),
        operator=Scope.ADMIN in key.scopes,
        models=key.limits.models,
        turns_per_minute=key.limits.turns_per_minute,
        create_time=timestamp(key.create_time),
        expire_time=timestamp(key.expire_time) if key.expire_time else None,
        revoke_time=timestamp(key.revoke_time) if key.revoke_time else None,
        last_use_time=timestamp(key.last_use_time) if key.last_use_time else None,
    )


def _check_key_ids(request: KeyRequest, violations: Violations) -> None:
    violations.check_id("tenant_id", request.tenant_id)
    violations.check_id("api_key_id", request.api_key_id)


def _parse_scopes(request: pb.CreateApiKeyRequest, violations: Violations) -> frozenset[Scope]:
    """Return the scopes; add a violation if one is unknown or there is none."""
    most = COUNTS["scopes"]
    if not 0 < len(request.scopes) <= most or not all(scope in _SCOPES for scope in request.scopes):
        violations.add("scopes", f"must be 1 to {most}, each one of its values")
        return frozenset()
    scopes = frozenset(_SCOPES[scope] for scope in request.scopes)
    if not request.operator:
        return scopes
    if Scope.TENANT_ADMIN not in scopes:
        violations.add("operator", "needs the scope API_SCOPE_ADMIN")
    return scopes - {Scope.TENANT_ADMIN} | {Scope.ADMIN}


def _parse_limits(request: pb.CreateApiKeyRequest, violations: Violations) -> KeyLimits:
    """Return the key's own limits; add a violation for each that is invalid."""
    most = COUNTS["models"]
    models = request.models[: most + 1]
    if len(models) > most or not all(MODEL_PATTERN.fullmatch(each) for each in models):
        text = f"must be at most {most}, each the id of a model or a pattern with `*`, such as openai/*"
        violations.add("models", text)
    rate = request.turns_per_minute if request.HasField("turns_per_minute") else None
    if rate is not None and rate < 0:
        violations.add("turns_per_minute", "must not be negative")
    return KeyLimits(models=tuple(models), turns_per_minute=rate)


def _parse_expire_time(request: pb.CreateApiKeyRequest, violations: Violations, *, now: datetime) -> datetime | None:
    if not request.HasField("expire_time"):
        return None
    try:
        expire_time = to_millisecond(request.expire_time.ToDatetime(tzinfo=UTC))
    except (ValueError, OverflowError):
        violations.add("expire_time", "must be a time")
        return None
    if expire_time <= now:
        violations.add("expire_time", "must be in the future")
    return expire_time
