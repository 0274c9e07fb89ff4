"""Corrects what a call cost, by gRPC or by the command line: checked, recorded as an administrator's change, made."""

import re
from decimal import Decimal

from godoty.v1 import admin_service_pb2 as pb

from godoty_service.errors import FieldViolation, InvalidRequest
from godoty_service.metering import money
from godoty_service.metering.adjustment_order import AdjustmentOrder
from godoty_service.metering.adjustments import Adjustments
from godoty_service.metering.call import Adjustment
from godoty_service.tenancy.administration import Administration

_ID = 128  # characters
_WHY = 1000  # the same
_BY = 200  # the same
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class CallAdjuster:
    """Makes adjustments for administrators."""

    def __init__(self, *, adjustments: Adjustments, administration: Administration) -> None:
        """Build it.

        Args:
            adjustments: Makes them.
            administration: Records them first.
        """
        self._adjustments = adjustments
        self._administration = administration

    async def adjust(self, by: str, order: AdjustmentOrder) -> tuple[Adjustment, Decimal]:
        """Make an adjustment, or find the one that the same request made; return it and the call's total now.

        Args:
            by: Whose change it is recorded as: an API key's id, or the user of the command line.
            order: What is asked.

        Raises:
            CallNotFound: The tenant has no such call.
            CallNotAdjustable: The call is pending, or unresolved.
            AmountRefused: No call can cost what it would cost.
            RequestIdReused: The request id was used for another adjustment.
        """
        found = await self._adjustments.find(order)
        if found is None:
            draft = await self._adjustments.draft(order)
            await self._administration.adjusting_call(by, order.tenant_id, _details(order, draft))
            found = await self._adjustments.adjust(order)
        return found, await self._adjustments.total(order.tenant_id, order.call_id)


def adjustment_order(request: pb.AdjustCallRequest, *, by: str) -> AdjustmentOrder:
    """Check what is asked to be adjusted.

    Args:
        request: The request.
        by: Who asks.

    Raises:
        InvalidRequest: Fields are refused.
    """
    violations = [
        _violation(name, f"must have 1 to {_ID} characters")
        for name in ("tenant_id", "call_id")
        if not 0 < len(getattr(request, name)) <= _ID
    ]
    amount = _amount(request, violations)
    violations.extend(attribution_violations(why=request.why, by=by))
    if not _REQUEST_ID.fullmatch(request.request_id):
        violations.append(_violation("request_id", "must match [A-Za-z0-9._:-]{1,128}"))
    if violations:
        text = "; ".join(f"{each.field}: {each.description}" for each in violations)
        raise InvalidRequest(text, violations=violations)
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


def attribution_violations(*, why: str, by: str) -> list[FieldViolation]:
    """Return what is wrong with the reason of a ledger entry, and with the name of the person who states it."""
    return [
        _violation(name, f"must have 1 to {longest} printable characters")
        for name, text, longest in (("why", why, _WHY), ("by", by, _BY))
        if len(text) > longest or not text.strip() or not text.isprintable()
    ]


def _amount(request: pb.AdjustCallRequest, violations: list[FieldViolation]) -> Decimal:
    """Read the amount; what is refused is added to the violations."""
    name = request.WhichOneof("change")
    if name is None:
        violations.append(_violation("change", "cost_usd or add_usd is required"))
        return money.ZERO
    try:
        amount = money.read_amount(getattr(request, name))
    except ValueError as error:
        violations.append(_violation(name, str(error)))
        return money.ZERO
    if name == "cost_usd" and amount < 0:
        violations.append(_violation(name, "must not be negative"))
    if name == "add_usd" and amount == 0:
        violations.append(_violation(name, "must not be 0"))
    return amount


def _details(order: AdjustmentOrder, draft: Adjustment) -> dict[str, object]:
    asked = "cost_usd" if order.is_new_cost else "add_usd"
    return {
        "call_id": order.call_id,
        "adjustment_id": draft.entry_id,
        asked: money.format_usd(order.amount),
        "why": order.why,
        "by": order.by,
        "request_id": order.request_id,
        "above_bound": order.above_bound,
    }


def _violation(field: str, description: str) -> FieldViolation:
    return FieldViolation(field=field, description=description)
