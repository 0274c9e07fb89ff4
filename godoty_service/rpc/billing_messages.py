"""Usage, ledger entries and budgets as messages of billing_service.proto."""

from collections.abc import Iterable, Sequence

from godoty.v1 import billing_service_pb2 as pb

from godoty_service.metering.budgets import BudgetStatus
from godoty_service.metering.call import Adjustment, Entry
from godoty_service.metering.money import format_usd
from godoty_service.metering.usage_query import UsageAnswer
from godoty_service.pieces import in_pieces
from godoty_service.rpc.metering_messages import call_message, timestamp, totals_message, usage_message
from godoty_service.rpc.paging import encoded_size


async def usage_answer_message(answer: UsageAnswer, *, most_bytes: int) -> pb.GetUsageResponse:
    """Convert sums, of which there may be thousands: as many rows as have at most so many bytes together."""
    message = pb.GetUsageResponse(
        totals=totals_message(answer.totals),
        as_of=timestamp(answer.as_of),
        adjusted_later_usd=format_usd(answer.later),
    )
    left = most_bytes
    async for rows in in_pieces(answer.rows):
        for row in rows:
            converted = pb.UsageRow(keys=row.keys, totals=totals_message(row.totals))
            left -= encoded_size(converted)
            if left < 0 and message.rows:
                return message
            message.rows.append(converted)
    return message


async def entry_messages(entries: Sequence[Entry]) -> list[pb.LedgerEntry]:
    """Convert entries: there may be hundreds."""
    return [_entry_message(entry) async for some in in_pieces(entries) for entry in some]


def budget_messages(budgets: Iterable[BudgetStatus]) -> list[pb.BudgetStatus]:
    """Convert budgets."""
    return [
        pb.BudgetStatus(
            window=f"BUDGET_WINDOW_{each.window.name}",
            limit_usd=format_usd(each.limit),
            hard=each.hard,
            spent_usd=format_usd(each.spent),
            reserved_usd=format_usd(each.reserved),
            window_start_time=timestamp(each.window_start) if each.window_start is not None else None,
        )
        for each in budgets
    ]


def _entry_message(entry: Entry) -> pb.LedgerEntry:
    if isinstance(entry, Adjustment):
        return pb.LedgerEntry(adjustment=adjustment_message(entry), user=entry.user or "")
    return pb.LedgerEntry(call=call_message(entry), user=entry.user or "")


def adjustment_message(adjustment: Adjustment) -> pb.Adjustment:
    """Convert an adjustment."""
    return pb.Adjustment(
        adjustment_id=adjustment.entry_id,
        call_id=adjustment.corrects,
        session_id=adjustment.session_id,
        number=adjustment.number,
        cost_usd=format_usd(adjustment.cost),
        usage=usage_message(adjustment.usage) if adjustment.usage is not None else None,
        create_time=timestamp(adjustment.time),
        why=adjustment.why,
        by=adjustment.by,
        resolves=adjustment.resolves,
        request_id=adjustment.request_id or "",
    )
