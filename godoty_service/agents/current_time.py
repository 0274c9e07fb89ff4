"""The tool that tells the time."""

from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

from strands import tool
from strands.types.tools import AgentTool


def current_time(*, clock: Callable[[], datetime]) -> AgentTool:
    """Make the tool.

    Args:
        clock: The present instant, with its zone.
    """

    @tool(name="current_time")
    async def tell(timezone: str = "UTC") -> str:
        """Tell the current date and time in a time zone, in ISO 8601 with the weekday.

        Args:
            timezone: IANA name of the zone, such as "Europe/Berlin" or "America/New_York".
        """
        now = clock().astimezone(_zone(timezone))
        return f"{now.isoformat(timespec='seconds')} ({now:%A}, {timezone})"

    return tell


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not a zone's name, a folder of zones
        shown = name if len(name) <= 64 else f"{name[:64]}..."  # noqa: PLR2004 - no zone's name is as long
        raise ValueError(f"unknown time zone {shown!r}: use an IANA name such as 'Europe/Berlin' or 'UTC'") from None
