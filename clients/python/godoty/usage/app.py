"""The command line of `godoty-usage`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import Any, TextIO
from zoneinfo import ZoneInfo

from godoty.client import Godoty
from godoty.environment import dial_address
from godoty.errors import GodotyError
from godoty.types import UsageGroup
from godoty.usage.files import write_csv, write_json, write_table
from godoty.usage.report import Query, fetch, name_of
from godoty.usage.view import Screen, overview, single

_GROUPS = {name_of(each): each for each in UsageGroup if each is not UsageGroup.UNSPECIFIED}
_FORMATS = ("table", "csv", "json", "parquet")
_EPILOG = """\
The server and the API key come from GODOTY_LISTEN and GODOTY_API_KEY; the key needs the scope billing. Without --by,
tables show the spending by day, model, agent and end user; the other formats have the total alone. Times are days such
as 2026-03-01, or times such as 2026-03-01T12:30+01:00."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, and print an error as one line."""
    try:
        return _run(_parser().parse_args(arguments))
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        return _failed("pyarrow is missing: pip install 'godoty-client[parquet]'")
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # its reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (GodotyError, ValueError, OSError) as error:
        return _failed(str(error))


def _failed(text: str) -> int:
    print(f"godoty-usage: {text}", file=sys.stderr)  # noqa: T201 - a command
    return 1


def _run(options: argparse.Namespace) -> int:
    form = options.format or _format_of(options.output)
    groups = tuple(_GROUPS[name] for name in options.by or ())
    query = _query(options)
    target = None if options.target is None else dial_address(options.target)
    if form == "parquet" and options.output is None:
        raise ValueError("--format parquet needs a file: --output usage.parquet")
    write: Callable[[Any], None]  # to a text file, or for Parquet to a path
    with Godoty(target, timeout=options.timeout) as client:
        if form == "table":
            write = partial(_write_tables, client, query, groups, options)
        else:
            write = partial({"csv": write_csv, "json": write_json}.get(form, write_table), fetch(client, query, groups))
        if options.output is None:
            write(sys.stdout)
            sys.stdout.flush()
            return 0
        with _replaced(options.output) as part:
            if form == "parquet":
                write(part)
            else:
                with part.open("w", encoding="utf-8", newline="") as file:
                    write(file)
    return 0


def _write_tables(
    client: Godoty, query: Query, groups: tuple[UsageGroup, ...], options: argparse.Namespace, file: TextIO
) -> None:
    screen = Screen(width=_width(options.width), top=options.top, blocks=_shows_blocks(file))
    lines = single(client, query, groups, screen) if groups else overview(client, query, screen)
    file.writelines(f"{line}\n" for line in lines)


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """Yield a file to write, which then takes the place of another one: that is complete, or as it was."""
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _query(options: argparse.Namespace) -> Query:
    """Return what is asked.

    Raises:
        ValueError: A time or the zone is none.
    """
    zone = _zone(options.zone)
    this_month = datetime.now(zone).date().replace(day=1)  # noqa: TID251 - it stands for what the user would type
    next_month = this_month.replace(year=this_month.year + this_month.month // 12, month=this_month.month % 12 + 1)
    return Query(
        start=_time(options.start or this_month.isoformat(), zone),
        end=_time(options.end or next_month.isoformat(), zone),
        zone=zone,
        zone_name=options.zone,
        as_of=None if options.as_of is None else _time(options.as_of, zone),
        tenant_id=options.tenant,
    )


def _zone(name: str) -> tzinfo:
    if not name:
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"--zone {name}: must be the IANA name of a time zone, such as Europe/Berlin") from None


def _time(text: str, zone: tzinfo) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text}: must be a time such as 2026-03-01 or 2026-03-01T12:30+01:00") from None
    return found if found.tzinfo else found.replace(tzinfo=zone)


def _format_of(path: Path | None) -> str:
    suffix = "" if path is None else path.suffix.removeprefix(".")
    return suffix if suffix in _FORMATS else "table"


def _width(given: int | None) -> int:
    return given or shutil.get_terminal_size((100, 24)).columns


def _shows_blocks(file: TextIO) -> bool:
    try:
        "█▏".encode(file.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="godoty-usage",
        description="Print what a tenant has spent, as tables with bars or for programs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--from", dest="start", metavar="TIME", help="first day or time; default: this month's")
    add("--to", dest="end", metavar="TIME", help="the end, exclusive; default: this month's")
    add("--by", action="append", choices=_GROUPS, help="group by this; repeatable: one of time, two others")
    add("--zone", default="", help="zone of hours, days and months, such as Europe/Berlin; default: UTC")
    add("--as-of", metavar="TIME", help="report what was known at this time; default: now")
    add("--format", choices=_FORMATS, help="default: by the end of the name of --output, else table")
    add("--output", type=Path, metavar="FILE", help="write a file; default: standard output")
    add("--top", type=_positive, default=10, help="lines of a table that is not by time; default: 10")
    add("--width", type=_positive, help="columns of a table; default: those of the terminal, else 100")
    add("--tenant", default="", metavar="ID", help="another tenant, by a key of the scope admin")
    add("--target", metavar="HOST:PORT", help="the server; default: GODOTY_LISTEN, else 127.0.0.1:50051")
    add("--timeout", type=float, default=60.0, metavar="SECONDS", help="for each request; default: 60")
    return parser
