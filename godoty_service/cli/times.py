"""Times as people write them."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from google.protobuf.timestamp_pb2 import Timestamp


def moment(text: str, zone: ZoneInfo | None = None) -> datetime:
    """Read a day or a time: ISO 8601, in a zone (None: UTC) unless it has an offset.

    Raises:
        ValueError: It is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text}: must be a time such as 2026-03-01 or 2026-03-01T12:30+01:00") from None
    return found if found.tzinfo else found.replace(tzinfo=zone or UTC)


def timestamp(text: str | None, zone: ZoneInfo | None = None) -> Timestamp | None:
    """Read the same for a request; None stays None."""
    if text is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment(text, zone))
    return message


def month_of(time: datetime, zone: ZoneInfo) -> tuple[str, str]:
    """Return when the month of a time began in a zone, and when the next one does."""
    first = time.astimezone(zone).date().replace(day=1)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return first.isoformat(), following.isoformat()
