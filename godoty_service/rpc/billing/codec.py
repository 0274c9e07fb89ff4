"""Converts between billing_service.proto and domain values, and checks the requests."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from godoty.v1 import billing_service_pb2 as pb
from godoty.v1 import budget_pb2, ledger_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from godoty_service.aio.cooperative import yielding_batches
from godoty_service.budgets.store import BudgetStatus
from godoty_service.errors import InvalidRequest
from godoty_service.ledger.entries import Adjustment, Entry
from godoty_service.pricing.money import format_usd
from godoty_service.rpc.metering_codec import (
    PURPOSES,
    STATES,
    call_message,
    timestamp,
    totals_message,
    usage_message,
)
from godoty_service.rpc.pagination import CURSOR, Position, decode_time, encoded_size, invalid_token
from godoty_service.rpc.validation import TURN_ID, Violations
from godoty_service.usage.calendar import TimeGroup
from godoty_service.usage.grouping import Group, Grouping, Key, NamedGroup
from godoty_service.usage.ledger_pages import EntryCursor, EntryFilter
from godoty_service.usage.query import UsageQuery, UsageReport

_MAX_RANGE = timedelta(days=400)
_MAX_NAMED_GROUPS = 2  # besides the time group
_LEDGER_STEP = timedelta(milliseconds=1)  # the resolution of the ledger's times
_GROUPS: dict[int, Group] = {
    pb.USAGE_GROUP_HOUR: TimeGroup.HOUR,
    pb.USAGE_GROUP_DAY: TimeGroup.DAY,
    pb.USAGE_GROUP_MONTH: TimeGroup.MONTH,
    pb.USAGE_GROUP_MODEL: NamedGroup.MODEL,
    pb.USAGE_GROUP_PROVIDER: NamedGroup.PROVIDER,
    pb.USAGE_GROUP_AGENT: NamedGroup.AGENT,
    pb.USAGE_GROUP_USER: NamedGroup.USER,
    pb.USAGE_GROUP_SESSION: NamedGroup.SESSION,
    pb.USAGE_GROUP_API_KEY: NamedGroup.API_KEY,
    pb.USAGE_GROUP_AGENT_VERSION: NamedGroup.AGENT_VERSION,
}
_KEY_FIELDS = {
    NamedGroup.MODEL: "model",
    NamedGroup.PROVIDER: "provider",
    NamedGroup.AGENT: "agent",
    NamedGroup.AGENT_VERSION: "agent_version",
    NamedGroup.SESSION: "session_id",
    NamedGroup.API_KEY: "api_key_id",
}


def parse_tenant_id(text: str) -> str:
    """Check the id of the tenant to read; empty: the key's own.

    Raises:
        InvalidRequest: It cannot be an id.
    """
    violations = Violations()
    violations.check_length("tenant_id", text)
    violations.raise_if_any()
    return text


def parse_usage_query(request: pb.GetUsageRequest) -> UsageQuery:
    """Return the usage query of a request.

    Raises:
        InvalidRequest: One or more fields are invalid.
    """
    violations = Violations()
    start, end = _parse_range(request, violations)
    for name, time in (("start_time", start), ("end_time", end)):
        if time is None and not request.HasField(name):
            violations.add(name, "is required")
    if start is not None and end is not None and end - start > _MAX_RANGE:
        violations.add("end_time", f"must be at most {_MAX_RANGE.days} days after start_time")
    groups = _parse_groups(request.group_by, violations)
    if request.time_zone:
        violations.check_time_zone("time_zone", request.time_zone)
    as_of = _parse_time("as_of", request.as_of, _floor, violations) if request.HasField("as_of") else None
    violations.raise_if_any()
    if start is None or end is None:  # refused above
        raise InvalidRequest.of("start_time", "is required")
    zone = ZoneInfo(request.time_zone or "UTC")
    return UsageQuery(start=start, end=end, groups=groups, zone=zone, as_of=as_of)


def parse_entry_filter(request: pb.ListLedgerEntriesRequest | pb.ExportLedgerRequest) -> EntryFilter:
    """Return the filter of ledger entries of a request.

    Raises:
        InvalidRequest: One or more fields are invalid.
    """
    violations = Violations()
    start, end = _parse_range(request, violations)
    if isinstance(request, pb.ExportLedgerRequest):
        violations.raise_if_any()
        return EntryFilter(start=start, end=end)
    _check_names(request, violations)
    if request.state and request.state not in STATES:
        violations.add("state", "must be one of its values")
    as_of = _parse_time("as_of", request.as_of, _floor, violations) if request.HasField("as_of") else None
    violations.raise_if_any()
    return EntryFilter(
        start=start,
        end=end,
        session_id=request.session_id,
        turn_id=request.turn_id,
        user=request.user,
        user_reference=request.user_reference,
        api_key_id=request.api_key_id,
        model=request.model,
        state=STATES.get(request.state),
        visible_at=as_of,
    )


def parse_usage_position(position: Position | None, query: UsageQuery) -> tuple[datetime | None, Key | None]:
    """Return the `as_of` of a page token and the key after which its page starts.

    Raises:
        InvalidRequest: The token has none.
    """
    if position is None:
        return query.as_of, None
    try:
        as_of, *parts = [str(each) for each in position]
        key = Grouping(query.groups, query.zone).parse_key(parts)
        if key is not None:
            return decode_time(as_of), key
    except (ValueError, OverflowError):
        pass
    raise InvalidRequest.of("page_token", "must be the next_page_token of the same query")


def parse_entry_position(position: Position | None) -> EntryCursor | None:
    """Return the ledger position of a page token, or None for the first page.

    Raises:
        InvalidRequest: The token has none.
    """
    match position:
        case None:
            return None
        case [str(start), int(number), str(entry_id)] if 0 <= number < 2**63:
            return EntryCursor(decode_time(start), number, entry_id)
    raise InvalidRequest.of("page_token", "must be the next_page_token of the same query")


def parse_export_position(position: Position | None) -> tuple[datetime | None, EntryCursor | None]:
    """Return the `as_of` of an export's cursor, and the position after which it continues; None: from its beginning.

    Raises:
        InvalidRequest: The cursor has none.
    """
    if position is None:
        return None, None
    match position:
        case [str(as_of)]:
            return decode_time(as_of, field=CURSOR), None
        case [str(as_of), str(start), int(number), str(entry_id)] if 0 <= number < 2**63:
            after = EntryCursor(decode_time(start, field=CURSOR), number, entry_id)
            return decode_time(as_of, field=CURSOR), after
    raise invalid_token(CURSOR)


def cursor_position(cursor: EntryCursor) -> Position:
    """Return the position of a page token for a ledger position."""
    return [cursor.start.isoformat(), cursor.number, cursor.entry_id]


async def usage_report_message(report: UsageReport, query: UsageQuery, *, max_bytes: int) -> pb.GetUsageResponse:
    """Convert a usage report with its first rows, as many as fit `max_bytes`; there may be thousands."""
    message = pb.GetUsageResponse(
        totals=totals_message(report.totals),
        as_of=timestamp(report.as_of),
        adjusted_later_usd=format_usd(report.later_cost),
        time_zone=query.zone.key,
    )
    remaining = max_bytes
    async for rows in yielding_batches(report.rows):
        for row in rows:
            keys = [_key_message(group, key, row.user) for group, key in zip(query.groups, row.key, strict=True)]
            remaining -= encoded_size(message.rows.add(keys=keys, totals=totals_message(row.totals)))
            if remaining < 0 and len(message.rows) > 1:
                del message.rows[-1]
                return message
    return message


def _key_message(group: Group, key: datetime | str, user: str) -> pb.UsageKey:
    """Convert the key of a group; an empty one means that the entries have no value.

    Args:
        group: The group.
        key: Its value.
        user: The name of the end user whose reference the key is; empty: it was erased.
    """
    if isinstance(key, datetime):
        return pb.UsageKey(time=timestamp(key))
    if group is NamedGroup.USER:
        return pb.UsageKey(user=user or None, user_reference=key)
    message = pb.UsageKey()
    if key:
        setattr(message, _KEY_FIELDS[NamedGroup(group)], key)
    return message


async def entry_messages(entries: Sequence[Entry]) -> list[ledger_pb2.LedgerEntry]:
    """Convert ledger entries, of which there may be hundreds."""
    return [_entry_message(entry) async for batch in yielding_batches(entries) for entry in batch]


def budget_messages(budgets: Iterable[BudgetStatus]) -> list[budget_pb2.BudgetStatus]:
    """Convert the status of budgets."""
    return [
        budget_pb2.BudgetStatus(
            window=f"BUDGET_WINDOW_{each.window.name}",
            limit_usd=format_usd(each.limit),
            hard=each.hard,
            spent_usd=format_usd(each.spent),
            reserved_usd=format_usd(each.reserved),
            window_start_time=timestamp(each.window_start) if each.window_start is not None else None,
        )
        for each in budgets
    ]


def adjustment_message(adjustment: Adjustment) -> ledger_pb2.Adjustment:
    """Convert an adjustment."""
    return ledger_pb2.Adjustment(
        adjustment_id=adjustment.entry_id,
        call_id=adjustment.corrects,
        session_id=adjustment.session_id,
        turn_id=adjustment.turn_id,
        number=adjustment.number,
        agent=adjustment.agent,
        agent_version=adjustment.agent_version,
        purpose=PURPOSES[adjustment.purpose],
        api_key_id=adjustment.api_key_id or "",
        cost_usd=format_usd(adjustment.cost),
        usage=usage_message(adjustment.usage) if adjustment.usage is not None else None,
        create_time=timestamp(adjustment.time),
        why=adjustment.why,
        by=adjustment.by,
        resolves=adjustment.resolves,
        request_id=adjustment.request_id or "",
    )


def _entry_message(entry: Entry) -> ledger_pb2.LedgerEntry:
    if isinstance(entry, Adjustment):
        message = ledger_pb2.LedgerEntry(adjustment=adjustment_message(entry))
    else:
        message = ledger_pb2.LedgerEntry(call=call_message(entry))
    message.user, message.user_reference = entry.user or "", entry.user_reference or ""
    return message


def _check_names(request: pb.ListLedgerEntriesRequest, violations: Violations) -> None:
    """Add the conditions that no entry can meet; `model` has no form, since providers choose the names."""
    violations.check_caller_id("session_id", request.session_id)
    if request.turn_id and not TURN_ID.fullmatch(request.turn_id):
        violations.add("turn_id", "must be the id of a turn, or be empty")
    violations.check_length("user", request.user)
    violations.check_length("user_reference", request.user_reference)
    violations.check_length("api_key_id", request.api_key_id)


def _parse_range(
    request: pb.GetUsageRequest | pb.ListLedgerEntriesRequest | pb.ExportLedgerRequest, violations: Violations
) -> tuple[datetime | None, datetime | None]:
    start, end = (
        _parse_time(name, getattr(request, name), _ceil, violations) if request.HasField(name) else None
        for name in ("start_time", "end_time")
    )
    if start is not None and end is not None and _exact(request.end_time) <= _exact(request.start_time):
        violations.add("end_time", "must be after start_time")
    return start, end


def _parse_time(
    field: str, time: Timestamp, convert: Callable[[Timestamp], datetime], violations: Violations
) -> datetime | None:
    try:
        return convert(time)
    except (ValueError, OverflowError):
        violations.add(field, "must be a time between the years 1 and 9999")
        return None


def _parse_groups(values: Sequence[int], violations: Violations) -> tuple[Group, ...]:
    if len(values) > len(_GROUPS):
        violations.add("group_by", f"must be at most {len(_GROUPS)}")
        return ()
    groups = tuple(_GROUPS[each] for each in values if each in _GROUPS)
    if len(groups) < len(values):
        violations.add("group_by", "each must be one of its values")
    elif len(set(groups)) < len(groups):
        violations.add("group_by", "must not repeat a group")
    elif sum(isinstance(each, TimeGroup) for each in groups) > 1:
        violations.add("group_by", "must name at most one of hour, day and month")
    elif sum(isinstance(each, NamedGroup) for each in groups) > _MAX_NAMED_GROUPS:
        violations.add("group_by", f"must name at most {_MAX_NAMED_GROUPS} groups besides the time group")
    return groups


def _exact(time: Timestamp) -> tuple[int, int]:
    return time.seconds, time.nanos


def _ceil(time: Timestamp) -> datetime:
    """Round up to the ledger's milliseconds."""
    floor = _floor(time)
    return floor if time.nanos % 1_000_000 == 0 else floor + _LEDGER_STEP


def _floor(time: Timestamp) -> datetime:
    """Round down to the ledger's milliseconds."""
    exact = time.ToDatetime(tzinfo=UTC)
    return exact.replace(microsecond=exact.microsecond // 1000 * 1000)
