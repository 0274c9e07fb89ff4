"""Input and output formats: times as people write them; tables for people, JSON or CSV for programs."""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from google.protobuf.timestamp_pb2 import Timestamp

Value = str | int | None


class Format(StrEnum):
    """An output format."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


FormatOption = Annotated[
    Format,
    typer.Option("--format", help="A table for people; JSON or CSV for programs. An unknown amount is null, or empty."),
]


def print_json(document: Any) -> None:
    """Print a document as JSON."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> None:
    """Print rows as CSV, after a header with the names of their columns."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)


def parse_time(text: str, zone: ZoneInfo | None = None) -> datetime:
    """Parse a day or a time in ISO 8601, in a zone (None: UTC) unless it has an offset.

    Raises:
        ValueError: It is neither.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text}: must be a time such as 2026-03-01 or 2026-03-01T12:30+01:00") from None
    return found if found.tzinfo else found.replace(tzinfo=zone or UTC)


def parse_timestamp(text: str | None, zone: ZoneInfo | None = None) -> Timestamp | None:
    """Parse a day or a time for a request, or return None if there is none.

    Raises:
        ValueError: It is neither.
    """
    if text is None:
        return None
    message = Timestamp()
    message.FromDatetime(parse_time(text, zone))
    return message


def month_of(time: datetime, zone: ZoneInfo) -> tuple[str, str]:
    """Return the first day of a time's month in a zone, and that of the next month."""
    first = time.astimezone(zone).date().replace(day=1)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return first.isoformat(), following.isoformat()
