"""Checks what BillingService is asked, and turns it into domain values. All that is refused is named at once."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, available_timezones

from godoty.v1 import billing_service_pb2 as pb
from godoty.v1 import metering_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from godoty_service.errors import FieldViolation, InvalidRequest
from godoty_service.metering.call import CallState
from godoty_service.metering.ledger_pages import EntryFilter, Place
from godoty_service.metering.time_cells import TimeGroup
from godoty_service.metering.usage_groups import Group, Grouping, Key, NamedGroup
from godoty_service.metering.usage_query import UsageQuestion
from godoty_service.rpc.paging import read_time

T = TypeVar("T")

_LONGEST = timedelta(days=400)
_NAMED = 2  # groups beside the one of time
_TICK = timedelta(milliseconds=1)
_GROUPS: dict[int, Group] = {
    pb.USAGE_GROUP_HOUR: TimeGroup.HOUR,
    pb.USAGE_GROUP_DAY: TimeGroup.DAY,
    pb.USAGE_GROUP_MONTH: TimeGroup.MONTH,
    pb.USAGE_GROUP_MODEL: NamedGroup.MODEL,
    pb.USAGE_GROUP_PROVIDER: NamedGroup.PROVIDER,
    pb.USAGE_GROUP_AGENT: NamedGroup.AGENT,
    pb.USAGE_GROUP_USER: NamedGroup.USER,
    pb.USAGE_GROUP_SESSION: NamedGroup.SESSION,
}
_STATES: dict[int, CallState] = {
    metering_pb2.CALL_STATE_PENDING: CallState.PENDING,
    metering_pb2.CALL_STATE_SETTLED: CallState.SETTLED,
    metering_pb2.CALL_STATE_UNRESOLVED: CallState.UNRESOLVED,
    metering_pb2.CALL_STATE_VOID: CallState.VOID,
}


class _Checked:
    """Collects what is refused while a request is read."""

    def __init__(self) -> None:
        self.violations: list[FieldViolation] = []

    def refuse(self, field: str, description: str) -> None:
        self.violations.append(FieldViolation(field=field, description=description))

    def read(self, field: str, value: T, convert: Callable[[T], datetime]) -> datetime | None:
        try:
            return convert(value)
        except (ValueError, OverflowError):
            self.refuse(field, "must be a time between the years 1 and 9999")
            return None

    def done(self) -> None:
        if self.violations:
            text = "; ".join(f"{each.field}: {each.description}" for each in self.violations)
            raise InvalidRequest(text, violations=self.violations)


def usage_question(request: pb.GetUsageRequest) -> UsageQuestion:
    """Check which sums are asked for.

    Raises:
        InvalidRequest: Fields are refused.
    """
    checked = _Checked()
    start, end = _range(request, checked)
    for name, time in (("start_time", start), ("end_time", end)):
        if time is None and not request.HasField(name):
            checked.refuse(name, "is required")
    if start is not None and end is not None and end - start > _LONGEST:
        checked.refuse("end_time", f"must be at most {_LONGEST.days} days after start_time")
    groups = _groups(request.group_by, checked)
    if request.time_zone and request.time_zone not in _zones():
        checked.refuse("time_zone", "must be the IANA name of a time zone, such as Europe/Berlin")
    as_of = checked.read("as_of", request.as_of, _floor) if request.HasField("as_of") else None
    checked.done()
    if start is None or end is None:  # refused above
        raise InvalidRequest.of("start_time", "is required")
    zone = ZoneInfo(request.time_zone or "UTC")
    return UsageQuestion(start=start, end=end, groups=groups, zone=zone, as_of=as_of)


def entry_filter(request: pb.ListLedgerEntriesRequest | pb.ExportLedgerRequest) -> EntryFilter:
    """Check which entries are asked for.

    Raises:
        InvalidRequest: Fields are refused.
    """
    checked = _Checked()
    start, end = _range(request, checked)
    if isinstance(request, pb.ExportLedgerRequest):
        checked.done()
        return EntryFilter(start=start, end=end)
    if request.state and request.state not in _STATES:
        checked.refuse("state", "must be one of its values")
    checked.done()
    return EntryFilter(
        start=start,
        end=end,
        session_id=request.session_id,
        model=request.model,
        state=_STATES.get(request.state),
    )


def usage_place(values: list[Any] | None, question: UsageQuestion) -> tuple[datetime | None, Key | None]:
    """Return the `as_of` that a page token holds and the key after which its page begins.

    Raises:
        InvalidRequest: It holds none.
    """
    if values is None:
        return question.as_of, None
    try:
        as_of, *parts = [str(each) for each in values]
        key = Grouping(question.groups, question.zone).parse(parts)
        if key is not None:
            return read_time(as_of), key
    except (ValueError, OverflowError):
        pass
    raise InvalidRequest.of("page_token", "must be the next_page_token of the same query")


def place(values: list[Any] | None) -> Place | None:
    """Check the place that a page token holds; None: the first page.

    Raises:
        InvalidRequest: It is none of ours.
    """
    match values:
        case None:
            return None
        case [str(start), int(number), str(entry_id)] if 0 <= number < 2**63:
            return Place(read_time(start), number, entry_id)
    raise InvalidRequest.of("page_token", "must be the next_page_token of the same query")


def _range(
    request: pb.GetUsageRequest | pb.ListLedgerEntriesRequest | pb.ExportLedgerRequest, checked: _Checked
) -> tuple[datetime | None, datetime | None]:
    start = checked.read("start_time", request.start_time, _ceil) if request.HasField("start_time") else None
    end = checked.read("end_time", request.end_time, _ceil) if request.HasField("end_time") else None
    if start is not None and end is not None and _exact(request.end_time) <= _exact(request.start_time):
        checked.refuse("end_time", "must be after start_time")
    return start, end


def _groups(asked: Sequence[int], checked: _Checked) -> tuple[Group, ...]:
    if len(asked) > len(_GROUPS):
        checked.refuse("group_by", f"must be at most {len(_GROUPS)}")
        return ()
    unknown = [each for each in asked if each not in _GROUPS]
    groups = tuple(_GROUPS[each] for each in asked if each in _GROUPS)
    if unknown:
        checked.refuse("group_by", "each must be one of its values")
    elif len(set(groups)) < len(groups):
        checked.refuse("group_by", "must not repeat a group")
    elif sum(isinstance(each, TimeGroup) for each in groups) > 1:
        checked.refuse("group_by", "must name at most one of hour, day and month")
    elif sum(isinstance(each, NamedGroup) for each in groups) > _NAMED:
        checked.refuse("group_by", f"must name at most {_NAMED} groups beside the one of time")
    return groups


@cache
def _zones() -> frozenset[str]:
    """The zones' names: nothing else becomes the name of a file."""
    return frozenset(available_timezones())


def _exact(time: Timestamp) -> tuple[int, int]:
    return time.seconds, time.nanos


def _ceil(time: Timestamp) -> datetime:
    """The first time in the ledger's milliseconds that is not before."""
    floor = _floor(time)
    return floor if time.nanos % 1_000_000 == 0 else floor + _TICK


def _floor(time: Timestamp) -> datetime:
    """The last time in the ledger's milliseconds that is not after."""
    found = time.ToDatetime(tzinfo=UTC)
    return found.replace(microsecond=found.microsecond // 1000 * 1000)
