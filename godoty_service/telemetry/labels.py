"""Label values with a bound on their number: every new one is a time series that Prometheus keeps."""

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

OTHER: Final = "other"
UNKNOWN: Final = "unknown"

_PROVIDER_FAULTS = frozenset({"timeout", "connection", "stream", UNKNOWN})

T = TypeVar("T", bound=Hashable)


class Bounded(Generic[T]):
    """Lets the first so many distinct values through, and calls the others one name.

    Args:
        limit: How many distinct values pass.
        rest: What stands for all the others.
    """

    def __init__(self, *, limit: int, rest: T) -> None:
        self._limit = limit
        self._rest = rest
        self._seen: set[T] = set()

    def admit(self, value: T) -> T:
        """The value, if it is among those that pass."""
        if value in self._seen:
            return value
        if len(self._seen) >= self._limit:
            return self._rest
        self._seen.add(value)
        return value


def provider_code(code: int | str | None) -> str:
    """An HTTP status, "timeout", "connection" or "stream"; "unknown" for None and "other" for the rest."""
    text = UNKNOWN if code is None else str(code)
    is_status = text.isdecimal() and 100 <= int(text) <= 599  # noqa: PLR2004 - the range of HTTP statuses
    return text if is_status or text in _PROVIDER_FAULTS else OTHER
