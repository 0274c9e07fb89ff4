"""Tracks open responses, and responses that clients aborted."""

import time
from collections import deque
from typing import Any

_MAX_ABORTED = 2000


class OpenResponse:
    """A response in progress; times are Unix seconds."""

    def __init__(self) -> None:
        self.opened_at = time.time()


class Connections:
    """Counts open responses and retains the newest 2,000 aborted ones."""

    def __init__(self) -> None:
        self._open: set[OpenResponse] = set()
        self._aborted: deque[dict[str, Any]] = deque(maxlen=_MAX_ABORTED)

    def opened(self) -> OpenResponse:
        """Register the response to a new request."""
        response = OpenResponse()
        self._open.add(response)
        return response

    def closed(self, response: OpenResponse) -> None:
        """Remove a response that has ended, complete or not."""
        self._open.discard(response)

    def aborted(self, response: OpenResponse, **known: Any) -> None:
        """Record that the client closed the connection before the response was complete."""
        self._aborted.append({"opened_at": response.opened_at, "noticed_at": time.time(), **known})

    @property
    def open(self) -> int:
        """The number of open responses."""
        return len(self._open)

    def as_dict(self) -> dict[str, Any]:
        """Return the body of `GET /_sandbox/connections`."""
        return {"open": self.open, "aborted": list(self._aborted)}

    def clear(self) -> None:
        """Remove the aborted responses."""
        self._aborted.clear()
