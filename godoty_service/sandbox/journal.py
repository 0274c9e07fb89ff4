"""The journal of what arrived: the newest requests with their headers and bodies."""

import time
from collections import deque
from typing import Any

from starlette.requests import Request

_KEPT = 2000


class Journal:
    """Keeps the newest 2,000 chat requests."""

    def __init__(self) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    def note(self, request: Request, body: Any, **known: Any) -> None:
        """Keep a request; its authorization is masked."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        if "authorization" in headers:
            headers["authorization"] = "Bearer ***"
        self._entries.append({"at": time.time(), "headers": headers, "body": body, **known})

    def entries(self) -> list[dict[str, Any]]:
        """The kept requests, oldest first."""
        return list(self._entries)

    def clear(self) -> None:
        """Forget them."""
        self._entries.clear()
