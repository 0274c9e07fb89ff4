"""Counts the work of a server that runs in the test's own loop: the calls that it makes, by package. No clock decides.

A call of a Python function counts, and each time that a coroutine or generator goes on. Of what is written in C, only
what comes from outside Python's own library counts: how often somebody asks for a length says nothing.
"""

import asyncio
import sys
from collections import Counter
from types import FrameType
from typing import Any, Self

_CALLERS = ("tests.", "pytest", "_pytest", "grpc.aio._call", "grpc.aio._channel")
_PYTHON = sys.stdlib_module_names


class Work:
    """What the server has done since the block was entered, in the thread that entered it.

    Each step of the loop is the server's, unless it begins in the tests or on the client's side of gRPC.

    Attributes:
        calls: How many, by the package whose function it was.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._ours = False
        self._loop: FrameType | None = None

    def __enter__(self) -> Self:
        self._loop = _loop_frame()
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, called: Any) -> None:
        if event == "call":
            self._see_function(frame)
        elif event == "c_call" and self._ours:
            package = _package(called.__module__ or type(called.__self__).__module__)
            if package not in _PYTHON:
                self.calls[package] += 1

    def _see_function(self, frame: FrameType) -> None:
        name = frame.f_globals.get("__name__", "")
        if frame.f_back is self._loop:  # a step begins
            self._ours = not name.startswith(_CALLERS)
        if self._ours:
            self.calls[_package(name)] += 1


def _loop_frame() -> FrameType | None:
    """Tell the frame in which the loop runs: uvloop is written in C, so that every step begins right above it."""
    task = asyncio.current_task()
    coroutine = task.get_coro() if task is not None else None
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame is not getattr(coroutine, "cr_frame", None):
        frame = frame.f_back
    return frame.f_back if frame is not None else None


def _package(module: str) -> str:
    return module.partition(".")[0]
