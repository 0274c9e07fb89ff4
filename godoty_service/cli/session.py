"""What the commands share: the settings, the rooms, who runs them, and where they print."""

import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from godoty_service.environment import read_environment
from godoty_service.settings import Settings
from godoty_service.telemetry.logs import configure_logs

if TYPE_CHECKING:
    from godoty_service.rooms import ProviderRooms, Rooms

out = Console(highlight=False, soft_wrap=True)
_WIDE = 1000  # columns
err = Console(stderr=True, highlight=False, soft_wrap=True)


def read_settings(*, level: str | None = None) -> Settings:
    """Read the environment, and configure the log by it.

    Raises:
        WrongSettings: It holds wrong settings.
    """
    settings = read_environment().settings
    configure_logs(
        level=level or settings.log_level,
        pretty=settings.log_format == "console",
        log_content=settings.log_content,
    )
    return settings


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | int | datetime | None]]) -> None:
    """Print rows as a table. On a terminal that is too narrow for it, each row is a block with one cell a line."""
    cells = [[_cell(value) for value in row] for row in rows]
    table = Table(*(Column(each, no_wrap=True) for each in columns))
    for row in cells:
        table.add_row(*map(escape, row))
    console = out if out.is_terminal else Console(highlight=False, width=_WIDE)
    wide = console.options.update(width=_WIDE)
    if out.is_terminal and console.measure(table, options=wide).maximum > console.width:
        _print_blocks(columns, cells)
    else:
        console.print(table)


def _print_blocks(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    width = max(map(len, columns))
    for row in rows:
        for name, cell in zip(columns, row, strict=True):
            if cell:
                out.print(f"{name:<{width}}  {cell}", markup=False)
        out.print()


def _cell(value: str | int | datetime | None) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return "" if value is None else str(value)


def user() -> str:
    """Return who runs the command, as the operating system knows it: no variable such as LOGNAME says so."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user may have a number only
        return f"uid {os.getuid()}"


def with_rooms(work: "Callable[[Rooms], Awaitable[None]]", *, indexes: bool = True) -> None:
    """Do something with the rooms, and close them."""
    from godoty_service.rooms import open_rooms  # noqa: PLC0415 - `godoty health` needs none of what it loads

    async def run() -> None:
        async with open_rooms(read_settings(level="WARNING"), indexes=indexes) as rooms:
            await work(rooms)

    asyncio.run(run())


def with_provider(work: "Callable[[Rooms, ProviderRooms], Awaitable[None]]") -> None:
    """Do something with the rooms and what speaks to the provider, and close them."""
    from godoty_service.rooms import open_provider, open_rooms  # noqa: PLC0415 - the same

    async def run() -> None:
        settings = read_settings(level="WARNING")
        async with open_rooms(settings) as rooms, open_provider(settings, rooms, record=lambda _: None) as provider:
            await work(rooms, provider)

    asyncio.run(run())
