"""`godoty usage`: what a tenant has used and what it cost."""

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from godoty.v1 import billing_service_pb2 as pb

from godoty_service.cli.formats import Format, FormatOption, Value, print_csv, print_json
from godoty_service.cli.session import err, out, print_table, with_rooms
from godoty_service.cli.times import month_of, timestamp
from godoty_service.metering.money import format_usd
from godoty_service.metering.totals import Totals
from godoty_service.metering.usage_query import Page, UsageAnswer, UsageQuestion

if TYPE_CHECKING:
    from godoty_service.rooms import Rooms

_COLUMNS = ("cost USD", "calls", "turns", "input tokens", "output tokens", "open", "unresolved", "at most USD")
_KEYS = (
    "cost_usd",
    "model_calls",
    "turns",
    "input_tokens",
    "output_tokens",
    "pending_calls",
    "unresolved_calls",
    "unresolved_bound_usd",
)


class By(StrEnum):
    """What may be grouped by."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    MODEL = "model"
    PROVIDER = "provider"
    AGENT = "agent"
    USER = "user"
    SESSION = "session"


def usage(
    tenant: Annotated[str, typer.Argument(help="The tenant's id.")],
    *,
    start: Annotated[str | None, typer.Option("--from", help="From this day or time on; default: this month.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Until just before this day or time.")] = None,
    by: Annotated[list[By] | None, typer.Option(help="Group by it; repeatable.")] = None,
    zone: Annotated[str, typer.Option(help="Where hours, days and months are cut, such as Europe/Berlin.")] = "UTC",
    as_of: Annotated[str | None, typer.Option(help="What was known at this time; default: now.")] = None,
    shape: FormatOption = Format.TABLE,
) -> None:
    """Print what a tenant has used and what it cost, as BillingService.GetUsage sums it up."""
    from godoty_service.rpc import billing_requests  # noqa: PLC0415 - `godoty health` needs none of it

    def question(rooms: "Rooms") -> UsageQuestion:
        first, following = month_of(rooms.clock(), _zone(zone))
        request = pb.GetUsageRequest(
            tenant_id=tenant,
            start_time=timestamp(start or first, _zone(zone)),
            end_time=timestamp(end or following, _zone(zone)),
            group_by=[f"USAGE_GROUP_{each.name}" for each in by or ()],
            time_zone=zone,
            as_of=timestamp(as_of, _zone(zone)),
        )
        return billing_requests.usage_question(request)

    async def work(rooms: "Rooms") -> None:
        asked = question(rooms)
        await rooms.tenants.need(tenant)
        answer = await rooms.usage.query.ask(tenant, asked)
        rows, end = [*answer.rows], answer.end
        while end is not None:  # as it was when the first page was summed
            more = await rooms.usage.query.ask(tenant, replace(asked, as_of=answer.as_of), Page(after=end))
            rows, end = [*rows, *more.rows], more.end
        _print(replace(answer, rows=tuple(rows)), [each.value for each in by or ()], shape)

    with_rooms(work)


def _print(answer: UsageAnswer, groups: list[str], shape: Format) -> None:
    """Print sums. Beside CSV, the time as of which they are is printed to standard error."""
    total, later = _numbers(answer.totals), format_usd(answer.later)
    rows = [(*row.keys, *_numbers(row.totals)) for row in answer.rows] if groups else []
    if shape is Format.JSON:
        names = (*groups, *_KEYS)
        print_json(
            {
                "as_of": answer.as_of.isoformat(),
                "groups": [dict(zip(names, row, strict=True)) for row in rows],
                "total": dict(zip(_KEYS, total, strict=True)),
                "known_later_usd": later,
            }
        )
        return
    if shape is Format.CSV:
        print_csv((*groups, *_KEYS), rows if groups else [total])
    else:
        in_all = ("in all", *[""] * (len(groups) - 1), *total)
        print_table((*(groups or [""]), *_COLUMNS), [*rows, in_all])
    notes = err if shape is Format.CSV else out
    notes.print(f"as of {answer.as_of.isoformat()}: --as-of with it gives the same again")
    if later is not None:
        notes.print(f"became known later: {later} USD")


def _zone(name: str) -> ZoneInfo:
    """Find a zone.

    Raises:
        ValueError: There is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"--zone {name}: must be the IANA name of a time zone, such as Europe/Berlin") from None


def _numbers(totals: Totals) -> tuple[Value, ...]:
    """Return the sums in the order of `_KEYS`."""
    bound = None if totals.unbounded_calls else format_usd(totals.unresolved_bound)
    return (
        format_usd(totals.cost),
        totals.model_calls,
        totals.turns,
        totals.usage.input_tokens,
        totals.usage.output_tokens,
        totals.pending_calls,
        totals.unresolved_calls,
        bound if totals.unresolved_calls else None,
    )
