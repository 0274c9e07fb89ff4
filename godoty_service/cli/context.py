"""Shared by the commands: settings, components, the user, and output."""

import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from godoty_service.settings.environment import read_environment
from godoty_service.settings.settings import Settings
from godoty_service.telemetry.logs import configure_logs

if TYPE_CHECKING:
    from godoty_service.bootstrap.components import Components
    from godoty_service.bootstrap.provider import ProviderComponents
    from godoty_service.tenancy.audit import Actor

out = Console(highlight=False, soft_wrap=True, emoji=False)
_WIDE = 1000  # columns, for output that is not a terminal
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def read_settings(*, level: str | None = None) -> Settings:
    """Read the settings from the environment, and configure logging.

    Args:
        level: Log level; None: that of the settings.

    Raises:
        WrongSettings: The environment has wrong settings.
    """
    settings = read_environment().settings
    configure_logs(
        level=level or settings.log_level,
        pretty=settings.log_format == "console",
        log_content=settings.log_content,
    )
    return settings


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | int | datetime | None]]) -> None:
    """Print rows as a table; on a terminal that is too narrow, print each row as a block with one cell per line."""
    cells = [[_cell(value) for value in row] for row in rows]
    table = Table(*(Column(each, no_wrap=True) for each in columns))
    for row in cells:
        table.add_row(*map(escape, row))
    console = out if out.is_terminal else Console(highlight=False, width=_WIDE, emoji=False)
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
    """Return the operating system's name of the user: environment variables such as LOGNAME could be forged."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user may lack a name
        return f"uid {os.getuid()}"


def actor() -> "Actor":
    """Return the user of the command as the author of changes."""
    from godoty_service.tenancy.audit import Actor, ActorKind  # noqa: PLC0415 - `godoty health` does not need it

    return Actor(kind=ActorKind.CLI, id=user())


def with_components(work: "Callable[[Components], Awaitable[None]]", *, indexes: bool = True) -> None:
    """Run `work` with the components, then close them.

    Args:
        work: Gets the components.
        indexes: Create missing indexes first.
    """
    from godoty_service.bootstrap.components import open_components  # noqa: PLC0415 - `godoty health` does not need it

    async def run() -> None:
        async with open_components(read_settings(level="WARNING"), indexes=indexes) as components:
            await work(components)

    asyncio.run(run())


def with_provider(work: "Callable[[Components, ProviderComponents], Awaitable[None]]") -> None:
    """Run `work` with the components and those of the provider, then close them."""
    from godoty_service.bootstrap.components import open_components  # noqa: PLC0415 - the same
    from godoty_service.bootstrap.provider import open_provider  # noqa: PLC0415 - the same

    async def run() -> None:
        settings = read_settings(level="WARNING")
        async with (
            open_components(settings) as components,
            open_provider(settings, components, record=lambda _: None) as provider,
        ):
            await work(components, provider)

    asyncio.run(run())
