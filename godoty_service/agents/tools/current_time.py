"""The tool for the current time."""

from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

from strands import tool
from strands.types.tools import AgentTool


def current_time(*, clock: Callable[[], datetime]) -> AgentTool:
    """Build the tool.

    Args:
        clock: Returns the current time, with its zone.
    """

    @tool(name="current_time")
    async def now_in(timezone: str = "UTC") -> str:
        """Return the current date and time in a time zone, in ISO 8601 with the weekday.

        Args:
            timezone: IANA name of the zone, such as "Europe/Berlin" or "America/New_York".
        """
        now = clock().astimezone(_zone(timezone))
        return f"{now.isoformat(timespec='seconds')} ({now:%A}, {timezone})"

    return now_in


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not a zone name, or a folder of zones
        shown = name if len(name) <= 64 else f"{name[:64]}..."  # noqa: PLR2004 - longer than any zone name
        raise ValueError(f"unknown time zone {shown!r}: use an IANA name such as 'Europe/Berlin' or 'UTC'") from None
