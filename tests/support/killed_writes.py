"""Ends a server's process by SIGKILL at the moment when one of its writes has been applied."""

import os
import signal
from collections.abc import Callable
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection

KILL_AFTER = "GODOTY_TEST_KILL_AFTER"  # in a command's environment: the number of the write, from 1
# Collections that turns write to. The count begins with the turn; writes of background work are not counted.
_COLLECTIONS = ("sessions", "messages", "turns", "turn_logs", "ledger", "actions", "steps")
_BESIDE = ("ledger.update_many", "turns.delete_many")
_FIRST = tuple(
    f"{name}.{method}"
    for name in ("turns", "sessions")
    for method in ("insert_one", "insert_many", "bulk_write", "find_one_and_update")
)
_WRITES = (
    *("insert_one", "insert_many", "update_one", "update_many", "bulk_write"),
    *("find_one_and_update", "delete_one", "delete_many"),
)


def kill_after(number: int) -> None:
    """Have this process killed after a write of a turn, before its caller gets the answer."""
    seen = 0

    def fatal(original: Callable[..., Any]) -> Callable[..., Any]:
        async def write(collection: Any, *given: Any, **named: Any) -> Any:
            nonlocal seen
            kind = f"{collection.name}.{original.__name__}"
            counts = (seen or kind in _FIRST) and collection.name in _COLLECTIONS and kind not in _BESIDE
            seen += bool(counts)
            last = counts and seen == number
            result = await original(collection, *given, **named)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return write

    for name in _WRITES:
        setattr(AsyncCollection, name, fatal(getattr(AsyncCollection, name)))
