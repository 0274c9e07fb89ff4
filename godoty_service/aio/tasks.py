"""What is done with tasks whose waiter may have left."""

import asyncio
from typing import Any


def retrieve_exception(task: "asyncio.Future[Any]") -> None:
    """Retrieve the exception of a task that has ended: asyncio would log it as never retrieved if no one waits for it.

    A callback for `add_done_callback`.
    """
    if not task.cancelled():
        task.exception()
