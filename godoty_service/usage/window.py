"""The time bounds within which the entries of a batch become visible to reports. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

TICK = timedelta(milliseconds=1)  # the precision of MongoDB's dates


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The times at which the entries of a batch can become visible.

    Attributes:
        watermark: Entries become visible after this time, since reports up to it do not change; None: no bound.
        end: Entries become visible by this time, the database's at the start of the batch; None: no bound.
    """

    watermark: datetime | None = None
    end: datetime | None = None

    def clamp(self, time: datetime) -> datetime:
        """Return the time within the window that is nearest to `time`."""
        time = time if self.end is None else min(time, self.end)
        return time if self.watermark is None else max(time, self.watermark + TICK)
