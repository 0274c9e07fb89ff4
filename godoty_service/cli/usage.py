"""`godoty usage`: a tenant's usage and its cost."""

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer
from godoty.v1 import billing_service_pb2 as pb

from godoty_service.cli.context import err, out, print_table, with_components
from godoty_service.cli.formats import Format, FormatOption, Value, month_of, parse_timestamp, print_csv, print_json
from godoty_service.ledger.totals import Totals
from godoty_service.pricing.money import format_usd
from godoty_service.usage.query import Page, UsageQuery, UsageReport

if TYPE_CHECKING:
    from godoty_service.bootstrap.components import Components

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
    """A group of usage."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    MODEL = "model"
    PROVIDER = "provider"
    AGENT = "agent"
    AGENT_VERSION = "agent_version"
    USER = "user"
    SESSION = "session"
    API_KEY = "api_key"


def usage(
    tenant: Annotated[str, typer.Argument(help="The tenant's id.")],
    *,
    start: Annotated[str | None, typer.Option("--from", help="First day or time; default: this month's.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Exclusive end; default: this month's.")] = None,
    by: Annotated[list[By] | None, typer.Option(help="Group by this; repeatable.")] = None,
    zone: Annotated[str, typer.Option(help="Time zone of hours, days and months, such as Europe/Berlin.")] = "UTC",
    as_of: Annotated[str | None, typer.Option(help="Report what was known at this time; default: now.")] = None,
    shape: FormatOption = Format.TABLE,
) -> None:
    """Print a tenant's usage and its cost, as BillingService.GetUsage returns them."""
    from godoty_service.rpc.billing import codec  # noqa: PLC0415 - `godoty health` does not need it

    def usage_query(components: "Components") -> UsageQuery:
        first, following = month_of(components.clock(), _zone(zone))
        request = pb.GetUsageRequest(
            tenant_id=tenant,
            start_time=parse_timestamp(start or first, _zone(zone)),
            end_time=parse_timestamp(end or following, _zone(zone)),
            group_by=[f"USAGE_GROUP_{each.name}" for each in by or ()],
            time_zone=zone,
            as_of=parse_timestamp(as_of, _zone(zone)),
        )
        return codec.parse_usage_query(request)

    async def work(components: "Components") -> None:
        query = usage_query(components)
        await components.tenancy.tenants.require(tenant)
        report = await components.usage.queries.run(tenant, query)
        rows, end = [*report.rows], report.end
        while end is not None:  # as of the first page's time
            more = await components.usage.queries.run(tenant, replace(query, as_of=report.as_of), Page(after=end))
            rows, end = [*rows, *more.rows], more.end
        _print(replace(report, rows=tuple(rows)), [each.value for each in by or ()], shape)

    with_components(work)


def _print(report: UsageReport, groups: list[str], shape: Format) -> None:
    """Print a report. With CSV, its `as_of` is printed to standard error."""
    total, later = _numbers(report.totals), format_usd(report.later_cost)
    rows = [(*(key or None for key in row.keys), *_numbers(row.totals)) for row in report.rows] if groups else []
    if shape is Format.JSON:
        names = (*groups, *_KEYS)
        print_json(
            {
                "as_of": report.as_of.isoformat(),
                "groups": [dict(zip(names, row, strict=True)) for row in rows],
                "total": dict(zip(_KEYS, total, strict=True)),
                "known_later_usd": later,
            }
        )
        return
    if shape is Format.CSV:
        print_csv((*groups, *_KEYS), rows if groups else [total])
    else:
        total_row = ("total", *[""] * (len(groups) - 1), *total)
        print_table((*(groups or [""]), *_COLUMNS), [*rows, total_row])
    notes = err if shape is Format.CSV else out
    notes.print(f"as of {report.as_of.isoformat()}: --as-of with this time prints the same report again")
    if later is not None:
        notes.print(f"became known later: {later} USD")


def _zone(name: str) -> ZoneInfo:
    """Return a time zone.

    Raises:
        ValueError: There is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"--zone {name}: must be the IANA name of a time zone, such as Europe/Berlin") from None


def _numbers(totals: Totals) -> tuple[Value, ...]:
    """Return the totals in the order of `_KEYS`."""
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
