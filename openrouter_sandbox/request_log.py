"""The request log: the newest requests with their headers, and the bodies of chat requests."""

import time
from collections import deque
from typing import Any

from starlette.requests import Request

_MAX_ENTRIES = 2000


class RequestLog:
    """Retains the newest 2,000 chat requests, and the newest 2,000 other requests."""

    def __init__(self) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=_MAX_ENTRIES)
        self._reads: deque[dict[str, Any]] = deque(maxlen=_MAX_ENTRIES)

    def append(self, request: Request, body: Any, **known: Any) -> None:
        """Append a chat request, with its authorization header masked."""
        self._entries.append({"at": time.time(), "headers": _headers(request), "body": body, **known})

    def append_read(self, request: Request) -> None:
        """Append a GET request, with its authorization header masked."""
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self._reads.append({"at": time.time(), "path": path, "headers": _headers(request)})

    def entries(self) -> list[dict[str, Any]]:
        """Return the retained chat requests, oldest first."""
        return list(self._entries)

    def reads(self) -> list[dict[str, Any]]:
        """Return the retained GET requests, oldest first."""
        return list(self._reads)

    def clear(self) -> None:
        """Remove all requests."""
        self._entries.clear()
        self._reads.clear()


def _headers(request: Request) -> dict[str, str]:
    headers = {name.lower(): value for name, value in request.headers.items()}
    if "authorization" in headers:
        headers["authorization"] = "Bearer ***"
    return headers
