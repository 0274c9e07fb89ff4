"""`godoty ledger list | export`: the entries themselves."""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from godoty.v1 import billing_service_pb2 as pb
from google.protobuf import json_format

from godoty_service.cli.formats import Format, FormatOption, Value, print_csv, print_json
from godoty_service.cli.session import err, out, print_table, with_rooms
from godoty_service.cli.times import timestamp
from godoty_service.metering.call import Adjustment, CallState, Entry
from godoty_service.metering.money import format_usd
from godoty_service.metering.usage_entries import entry_id, start_time

if TYPE_CHECKING:
    from godoty_service.rooms import Rooms

Tenant = Annotated[str, typer.Argument(help="The tenant's id.")]
Start = Annotated[str | None, typer.Option("--from", help="Only those that started on this day or later.")]
End = Annotated[str | None, typer.Option("--to", help="Only those that started before this day or time.")]
_COLUMNS = (
    "entry",
    "started",
    "session",
    "number",
    "state",
    "model",
    "provider",
    "cost USD",
    "at most USD",
    "user",
    "error",
)
_KEYS = (
    "entry_id",
    "start_time",
    "session_id",
    "number",
    "state",
    "model",
    "provider",
    "cost_usd",
    "upper_bound_usd",
    "user",
    "error",
)


def list_entries(
    tenant: Tenant,
    *,
    start: Start = None,
    end: End = None,
    session: Annotated[str, typer.Option(help="Only those of this session.")] = "",
    model: Annotated[str, typer.Option(help="Only those of this model, by its id or its slug.")] = "",
    state: Annotated[CallState | None, typer.Option(help="Only calls in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
    shape: FormatOption = Format.TABLE,
) -> None:
    """Print ledger entries, the oldest first. Times without an offset are UTC."""
    from godoty_service.metering.oracle import newest_catalogue  # noqa: PLC0415 - `godoty health` needs none of it
    from godoty_service.rpc import billing_requests  # noqa: PLC0415 - the same

    request = pb.ListLedgerEntriesRequest(
        start_time=timestamp(start),
        end_time=timestamp(end),
        session_id=session,
        model=model,
        state=f"CALL_STATE_{state.name}" if state else None,
    )
    which = billing_requests.entry_filter(request)

    async def work(rooms: "Rooms") -> None:
        await rooms.tenants.need(tenant)
        catalogue = await newest_catalogue(rooms.database.collection("catalogues")) if model else None
        names = catalogue.other_names(model) if catalogue is not None else ()
        found = await rooms.usage.pages.page(tenant, replace(which, other_names=names), after=None, limit=limit + 1)
        _print([_row(each) for each in found[:limit]], shape)
        if len(found) > limit:
            notes = out if shape is Format.TABLE else err
            notes.print("there are more: --limit, or --from a later time")

    with_rooms(work)


def _print(rows: list[tuple[Value, ...]], shape: Format) -> None:
    match shape:
        case Format.JSON:
            print_json([dict(zip(_KEYS, row, strict=True)) for row in rows])
        case Format.CSV:
            print_csv(_KEYS, rows)
        case Format.TABLE:
            print_table(_COLUMNS, rows)


def export_entries(tenant: Tenant, *, start: Start = None, end: End = None) -> None:
    """Write all ledger entries, the oldest first, as JSON: one a line, as BillingService.ExportLedger has them.

    The time as of which they are is printed to standard error.
    """
    from godoty_service.rpc import billing_requests  # noqa: PLC0415 - `godoty health` needs none of it
    from godoty_service.rpc.billing_messages import entry_messages  # noqa: PLC0415 - the same

    request = pb.ExportLedgerRequest(start_time=timestamp(start), end_time=timestamp(end))
    which = billing_requests.entry_filter(request)

    async def work(rooms: "Rooms") -> None:
        await rooms.tenants.need(tenant)
        export = await rooms.usage.exports.begin(tenant, which)
        err.print(f"as of {export.as_of.isoformat(timespec='milliseconds')}")
        async for page in export.pages:
            for each in await entry_messages(page):
                line = json_format.MessageToJson(each, preserving_proto_field_name=True, indent=None)
                sys.stdout.write(f"{line}\n")

    with_rooms(work)


def _row(entry: Entry) -> tuple[Value, ...]:
    """Return what is printed of an entry, in the order of `_KEYS`."""
    call = None if isinstance(entry, Adjustment) else entry
    return (
        entry_id(entry),
        start_time(entry).isoformat(timespec="milliseconds"),
        entry.session_id,
        entry.number,
        "adjustment" if call is None else call.state.value,
        entry.model,
        entry.provider,
        format_usd(entry.cost),
        format_usd(call.upper_bound) if call is not None and call.cost is None else None,
        entry.user,
        ": ".join(filter(None, (call.error, call.error_message))) if call is not None else None,
    )
