"""When the usage books can know of what they take up. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

TICK = timedelta(milliseconds=1)  # the precision of the times that MongoDB keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When the books can know of what a batch takes up.

    Attributes:
        closed: After this time: answers up to it do not change any more; None: there was none.
        end: Not after this time, the database's when the batch was opened; None: not known.
    """

    closed: datetime | None = None
    end: datetime | None = None

    def clamp(self, time: datetime) -> datetime:
        """Return the time within the window that is nearest to another."""
        time = time if self.end is None else min(time, self.end)
        return time if self.closed is None else max(time, self.closed + TICK)
