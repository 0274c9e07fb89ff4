"""What the commands share: the settings, the rooms, and where they print."""

import asyncio
from collections.abc import Awaitable, Callable

from rich.console import Console

from godoty_service.rooms import Rooms, open_rooms
from godoty_service.settings import Settings
from godoty_service.telemetry.logs import configure_logs

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def read_settings(*, level: str | None = None) -> Settings:
    """Read the environment, and have log lines look as it says."""
    settings = Settings()
    configure_logs(
        level=level or settings.log_level,
        pretty=settings.log_format == "console",
        log_content=settings.log_content,
    )
    return settings


def with_rooms(work: Callable[[Rooms], Awaitable[None]]) -> None:
    """Do something with the rooms, and close them."""

    async def run() -> None:
        async with open_rooms(read_settings(level="WARNING")) as rooms:
            await work(rooms)

    asyncio.run(run())
