"""The open upstream responses, and when each aborted one was noticed closed."""

import time
from collections import deque
from typing import Any

_KEPT = 2000


class Connection:
    """One upstream response while it is open; times are Unix seconds."""

    def __init__(self) -> None:
        self.opened_at = time.time()


class Connections:
    """Counts open responses and remembers the newest aborted ones."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._aborted: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    def opened(self) -> Connection:
        """A request has arrived whose response is now open."""
        connection = Connection()
        self._open.add(connection)
        return connection

    def closed(self, connection: Connection) -> None:
        """The response is over, one way or the other."""
        self._open.discard(connection)

    def aborted(self, connection: Connection, **known: Any) -> None:
        """The client closed the connection before the response was complete."""
        self._aborted.append({"opened_at": connection.opened_at, "noticed_at": time.time(), **known})

    @property
    def open(self) -> int:
        """How many responses are open now."""
        return len(self._open)

    def as_dict(self) -> dict[str, Any]:
        """What `/_sandbox/connections` shows."""
        return {"open": self.open, "aborted": list(self._aborted)}

    def clear(self) -> None:
        """Forget the aborted ones."""
        self._aborted.clear()
