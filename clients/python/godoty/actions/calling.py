"""Calls functions of the caller's within a time, from blocking programs and from event loops."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


def call(function: Callable[[], Any], timeout: float | None) -> Any:
    """Call a function and return its result, or that of the awaitable which it returns.

    Without a timeout a function runs in the caller's thread, otherwise in one of its own, as an awaitable does.

    Raises:
        TimeoutError: The time has passed; the function runs on without effect.
    """
    if timeout is not None:
        future = _in_thread(lambda: _completed(function(), timeout))
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.done():  # it is the function's own
                raise
            raise _late(timeout) from None
    value = function()
    return _in_thread(lambda: _completed(value, None)).result() if inspect.isawaitable(value) else value


async def call_async(function: Callable[[], Any], timeout: float | None, *, asynchronous: bool) -> Any:  # noqa: ASYNC109
    """Call a function and return its result, or that of the awaitable which it returns.

    Args:
        function: The function.
        timeout: The seconds that it may take.
        asynchronous: It is called within the event loop, otherwise in a thread of its own.

    Raises:
        TimeoutError: The time has passed. An awaitable is cancelled; a function in a thread runs on without effect.
    """
    try:
        async with asyncio.timeout(timeout) as scope:
            value = function() if asynchronous else await asyncio.wrap_future(_in_thread(function))
            return await value if inspect.isawaitable(value) else value
    except TimeoutError:
        if timeout is None or not scope.expired():
            raise
        raise _late(timeout) from None


def _in_thread(function: Callable[[], Any]) -> Future[Any]:
    """Run a function in a thread that does not hold up the end of the program."""
    future: Future[Any] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(context.run(function))
        except StopIteration as error:  # no future can have it
            future.set_exception(RuntimeError(repr(error)))
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            future.set_exception(error)

    threading.Thread(target=run, name="godoty-tool", daemon=True).start()
    return future


def _completed(value: Any, timeout: float | None) -> Any:
    """Return a value, or the result of an awaitable, for which an event loop is run."""
    if not inspect.isawaitable(value):
        return value
    return asyncio.run(call_async(lambda: value, timeout, asynchronous=True))


def _late(timeout: float) -> TimeoutError:
    return TimeoutError(f"it took longer than {timeout:g} seconds")
