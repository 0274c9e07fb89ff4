"""Usage, ledger and budgets (scope billing)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from godoty.calls import Call, Pages, Stream
from godoty.codec import all_from, enum_number, from_message, to_timestamp
from godoty.types import BudgetStatus, CallState, LedgerEntry, UsageGroup, UsageReport, UsageRow
from godoty.v1 import billing_service_pb2 as pb
from godoty.v1 import metering_pb2


def usage(
    start_time: datetime,
    end_time: datetime,
    *,
    group_by: Sequence[UsageGroup | str] = (),
    time_zone: str = "",
    as_of: datetime | None = None,
    tenant_id: str = "",
) -> Call[UsageReport]:
    """Return the totals of a time range, with the rows of the first page; `usage_rows` has all of them.

    Args:
        start_time: The start of the range, inclusive.
        end_time: The end, exclusive; at most 400 days after its start.
        group_by: The groups of the rows, such as "day" and "model": at most one of time.
        time_zone: The IANA name of the zone of hours, days and months; empty for UTC.
        as_of: The totals as known at this time, which reproduces an earlier report. None: now.
        tenant_id: Another tenant, which needs the scope admin; empty for the key's own.
    """
    request = _usage_request(tenant_id, time_zone, group_by, start_time=start_time, end_time=end_time, as_of=as_of)
    return Call("BillingService.GetUsage", request, lambda response: from_message(UsageReport, response))


def usage_rows(
    start_time: datetime,
    end_time: datetime,
    *,
    group_by: Sequence[UsageGroup | str] = (),
    time_zone: str = "",
    as_of: datetime | None = None,
    tenant_id: str = "",
    page_size: int = 0,
) -> Pages[UsageRow]:
    """Yield the totals of each group, all known at the same time; the arguments are those of `usage`."""
    request = _usage_request(tenant_id, time_zone, group_by, start_time=start_time, end_time=end_time, as_of=as_of)
    request.page_size = page_size
    return Pages("BillingService.GetUsage", request, lambda page: all_from(UsageRow, page.rows))


def entries(
    *,
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    session_id: str = "",
    turn_id: str = "",
    user: str = "",
    user_reference: str = "",
    api_key_id: str = "",
    model: str = "",
    state: CallState | str = CallState.UNSPECIFIED,
    as_of: datetime | None = None,
    tenant_id: str = "",
    page_size: int = 0,
) -> Pages[LedgerEntry]:
    """Yield ledger entries, oldest first; all conditions must hold."""
    request = pb.ListLedgerEntriesRequest(
        tenant_id=tenant_id,
        session_id=session_id,
        turn_id=turn_id,
        user=user,
        user_reference=user_reference,
        api_key_id=api_key_id,
        model=model,
        page_size=page_size,
    )
    request.state = enum_number(metering_pb2.CallState.DESCRIPTOR, state)  # type: ignore[assignment] # a number
    _set_times(request, start_time=start_time, end_time=end_time, as_of=as_of)
    return Pages("BillingService.ListLedgerEntries", request, lambda page: all_from(LedgerEntry, page.entries))


def export(
    *, start_time: datetime | None = None, end_time: datetime | None = None, tenant_id: str = ""
) -> Stream[LedgerEntry]:
    """Yield all ledger entries of a time range, oldest first, each once; it goes on after a lost connection."""
    request = pb.ExportLedgerRequest(tenant_id=tenant_id)
    _set_times(request, start_time=start_time, end_time=end_time)

    def resume(asked: pb.ExportLedgerRequest, response: pb.ExportLedgerResponse) -> None:
        asked.cursor = response.cursor

    return Stream(
        "BillingService.ExportLedger", request, lambda response: all_from(LedgerEntry, response.entries), resume
    )


def budgets(*, tenant_id: str = "") -> Call[tuple[BudgetStatus, ...]]:
    """Return the spent and reserved amount of each budget."""
    request = pb.GetBudgetRequest(tenant_id=tenant_id)
    return Call("BillingService.GetBudget", request, lambda response: all_from(BudgetStatus, response.budgets))


def _usage_request(
    tenant_id: str, time_zone: str, group_by: Sequence[UsageGroup | str], **times: datetime | None
) -> pb.GetUsageRequest:
    request = pb.GetUsageRequest(tenant_id=tenant_id, time_zone=time_zone)
    request.group_by.extend(enum_number(pb.UsageGroup.DESCRIPTOR, each) for each in group_by)  # type: ignore[misc] # of the enum
    _set_times(request, **times)
    return request


def _set_times(request: Any, **times: datetime | None) -> None:
    for name, time in times.items():
        if time is not None:
            getattr(request, name).CopyFrom(to_timestamp(time))
