"""Reports for programs: CSV, JSON and Parquet, written row by row."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from os import PathLike
from typing import IO

from godoty.frames import write_parquet
from godoty.usage.report import Report, Row, Value, numbers


def write_csv(report: Report, file: IO[str]) -> None:
    """Write a row for each group, after the names of the columns. What is unknown, or none, is empty."""
    writer = csv.DictWriter(file, list(report.columns), lineterminator="\n")
    writer.writeheader()
    for row in _rows(report):
        writer.writerow({name: _text(value) for name, value in row.items()})


def write_json(report: Report, file: IO[str]) -> None:
    """Write an object with the range, the rows and their total. Amounts are texts, and what is unknown is null."""
    query = report.query
    head = {
        "start_time": query.start.isoformat(),
        "end_time": query.end.isoformat(),
        "time_zone": query.zone_name or "UTC",
        "as_of": report.as_of.isoformat(),
        "total": _plain(numbers(report.totals)),
    }
    file.write(json.dumps(head, indent=2, ensure_ascii=False).removesuffix("\n}") + ',\n  "rows": [')
    separator = "\n"
    for row in _rows(report):
        file.write(f"{separator}    {json.dumps(_plain(row), ensure_ascii=False)}")
        separator = ",\n"
    file.write("\n  ]\n}\n")


def write_table(report: Report, path: str | PathLike[str]) -> None:
    """Write a Parquet file. Amounts are decimal128(38, 25), and thus exact."""
    write_parquet(_rows(report), report.columns, path)


def _rows(report: Report) -> Iterator[Row]:
    """Yield the rows; of a report without groups, its total."""
    if not report.groups:
        yield numbers(report.totals)
        return
    for row in report.rows:
        yield report.row(row)


def _plain(row: Row) -> dict[str, str | int | None]:
    return {name: value if isinstance(value, int) or value is None else _text(value) for name, value in row.items()}


def _text(value: Value) -> str:
    match value:
        case None:
            return ""
        case Decimal():
            return f"{value:f}"
        case date():
            return value.isoformat()
        case _:
            return str(value)
