"""Converts between admin_service.proto and domain values, and checks the requests; the command line uses it, too."""

import re
from datetime import UTC, datetime
from decimal import Decimal

from godoty.v1 import admin_service_pb2 as pb
from godoty.v1 import tenant_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from godoty_service.clock import to_millisecond
from godoty_service.ledger.adjustment_order import AdjustmentOrder
from godoty_service.pricing import money
from godoty_service.rpc.metering_codec import timestamp
from godoty_service.rpc.validation import CALLER_ID, Violations
from godoty_service.tenancy.audit import Actor, AdminChange, ChangeFilter
from godoty_service.tenancy.request_ids import AdminRequest
from godoty_service.users.erasures import ErasureOrder

_MAX_WHY = 1000  # characters
_MAX_BY = 200  # characters
_PROVIDER_KEY = re.compile(r"[!-~]{8,256}")


def admin_request(
    request: pb.CreateTenantRequest | pb.CreateApiKeyRequest | pb.RotateApiKeyRequest, actor: Actor
) -> AdminRequest | None:
    """Return the identity of a request; None: it has no id."""
    return AdminRequest.of(
        request.request_id,
        actor=actor,
        method=request.DESCRIPTOR.name,
        content=request.SerializeToString(deterministic=True),
    )


def parse_tenant_id(text: str) -> str:
    """Check the id of a tenant.

    Raises:
        InvalidRequest: It cannot be an id.
    """
    violations = Violations()
    violations.check_id("tenant_id", text)
    violations.raise_if_any()
    return text


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


def parse_erasure(request: pb.EraseUserRequest) -> tuple[str, str]:
    """Return the tenant's id and the name of the user to erase.

    Raises:
        InvalidRequest: One or more fields are invalid.
    """
    violations = Violations()
    violations.check_id("tenant_id", request.tenant_id)
    violations.check_id("user", request.user)
    violations.check_caller_id("request_id", request.request_id)
    violations.raise_if_any()
    return request.tenant_id, request.user


def erasure_message(order: ErasureOrder) -> pb.EraseUserResponse:
    """Convert an erasure that is done."""
    return pb.EraseUserResponse(
        user_reference=order.reference,
        sessions=order.contents.sessions,
        messages=order.contents.messages,
        turns=order.contents.turns,
        erase_time=timestamp(order.end_time) if order.end_time is not None else None,
    )


def check_attribution(violations: Violations, *, why: str, by: str) -> None:
    """Check the reason of a ledger entry and the name of its author; add those that are invalid."""
    for name, text, longest in (("why", why, _MAX_WHY), ("by", by, _MAX_BY)):
        if len(text) > longest or not text.strip() or not text.isprintable():
            violations.add(name, f"must have 1 to {longest} printable characters")


def parse_change_filter(request: pb.ListAdminChangesRequest) -> ChangeFilter:
    """Return which changes to list.

    Raises:
        InvalidRequest: One or more fields are invalid.
    """
    violations = Violations()
    if request.tenant_id:
        violations.check_id("tenant_id", request.tenant_id)
    start = _parse_time("start_time", request.start_time, violations) if request.HasField("start_time") else None
    end = _parse_time("end_time", request.end_time, violations) if request.HasField("end_time") else None
    if start is not None and end is not None and end <= start:
        violations.add("end_time", "must be after start_time")
    violations.raise_if_any()
    return ChangeFilter(tenant_id=request.tenant_id or None, start=start, end=end)


def change_message(change: AdminChange) -> tenant_pb2.AdminChange:
    """Convert an audited change."""
    return tenant_pb2.AdminChange(
        change_id=change.change_id,
        time=timestamp(change.time),
        actor=tenant_pb2.AdminActor(
            kind=f"ADMIN_ACTOR_KIND_{change.actor.kind.name}", id=change.actor.id, peer=change.actor.peer
        ),
        method=change.method,
        tenant_id=change.tenant_id,
        old_value_json=change.old_value,
        new_value_json=change.new_value,
    )


def _parse_time(field: str, time: Timestamp, violations: Violations) -> datetime | None:
    """Return a time; add a violation if it is none."""
    try:
        return to_millisecond(time.ToDatetime(tzinfo=UTC))
    except (ValueError, OverflowError):
        violations.add(field, "must be a time")
        return None


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
