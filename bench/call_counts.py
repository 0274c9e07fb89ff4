"""Counts the Python calls of a token and of a turn, by package: `python -m bench.call_counts`.

The counts depend on the code alone, not on the load of the machine: compare them before and after a change on the path
of each token or turn. A call of a Python function counts, and each resumption of a coroutine or generator. Calls of C
functions count unless they belong to Python's standard library.
"""

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any, Self

import grpc
import uvloop

from godoty_service.openrouter.read_pacer import ReadPacer
from godoty_service.server import running
from godoty_service.telemetry.logs import configure_logs
from tests.support.backends import Backends
from tests.support.caller import Caller

_CLIENT = ("bench.", "tests.", "__main__", "grpc.aio._call", "grpc.aio._channel")
_STANDARD_LIBRARY = sys.stdlib_module_names
_WINDOW = 5  # tokens
_MIN_WINDOWS = 10
_TOKENS, _DELAY_MS = 240, 4  # of an answer whose tokens arrive one by one
_ATTEMPTS = 5
_ROUNDS = 3  # of a turn that is counted as a whole
_SHORT, _LONG = 500, 1_500  # tokens that arrive together


class CallCounter:
    """Counts the calls of the server in the thread and event loop of the block.

    A step of the event loop belongs to the server unless it starts in this module, in the tests' support, or on the
    client's side of gRPC.

    Attributes:
        calls: The number of calls by the package of the function.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._in_server = False
        self._loop: FrameType | None = None

    def __enter__(self) -> Self:
        self._loop = _loop_frame()
        sys.setprofile(self._on_event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _on_event(self, frame: FrameType, event: str, function: Any) -> None:
        if event == "call":
            self._on_call(frame)
        elif event == "c_call" and self._in_server:
            package = _package(function.__module__ or type(function.__self__).__module__)
            if package not in _STANDARD_LIBRARY:
                self.calls[package] += 1

    def _on_call(self, frame: FrameType) -> None:
        name = frame.f_globals.get("__name__", "")
        if frame.f_back is self._loop:  # a step begins
            self._in_server = not name.startswith(_CLIENT)
        if self._in_server:
            self.calls[_package(name)] += 1


def _loop_frame() -> FrameType | None:
    """Return the frame that runs the event loop: uvloop is written in C, so each step starts right above it."""
    task = asyncio.current_task()
    coroutine = task.get_coro() if task is not None else None
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - there is no public function for it
    while frame is not None and frame is not getattr(coroutine, "cr_frame", None):
        frame = frame.f_back
    return frame.f_back if frame is not None else None


def _package(module: str) -> str:
    return module.partition(".")[0]


@asynccontextmanager
async def open_caller(backends: Backends) -> AsyncIterator[Caller]:
    """Run a server in this event loop, without periodic work and read pacing, and connect to it."""
    ReadPacer._set = lambda *_, **__: None  # type: ignore[method-assign] # noqa: SLF001 - depends on load
    name = backends.new_database()
    settings = backends.settings(
        name, lease=6_000.0, heartbeat=600.0, reconcile_interval=600.0, turn_watch_interval=600.0
    )
    async with running(settings) as server:
        service = await asyncio.to_thread(backends.service, server.address, name)
        async with grpc.aio.insecure_channel(server.address) as channel:
            caller = Caller(service, channel)
            await caller.converse("hi", session_id="warm")
            yield caller


async def count_single_token(caller: Caller) -> dict[str, float]:
    """Return the calls for a token that arrives alone."""
    for attempt in range(_ATTEMPTS):
        windows = await _windows(caller, f"single{attempt}")
        if len(windows) >= _MIN_WINDOWS:
            names = {name for window in windows for name in window}
            return {name: median(window[name] for window in windows) / _WINDOW for name in names}
    raise RuntimeError("the machine is too busy: no tokens arrive alone")


async def count_batched_token(caller: Caller) -> dict[str, float]:
    """Return the calls for one of many tokens that arrive together."""
    short, long = [await _fewest(caller, f"@sandbox long tokens={tokens}") for tokens in (_SHORT, _LONG)]
    return {name: (calls - short[name]) / (_LONG - _SHORT) for name, calls in long.items()}


async def count_turn(caller: Caller) -> dict[str, float]:
    """Return the calls for a turn with a short answer in a new session, including the write of its log."""
    return dict(await _fewest(caller, "@sandbox plain tokens=1"))


async def _windows(caller: Caller, session_id: str) -> list[Counter[str]]:
    """Count the calls for a few tokens at a time, without those that arrived together."""
    windows: list[Counter[str]] = []
    with CallCounter() as counter:
        since, alone = counter.calls.copy(), 0
        call = caller.start(f"@sandbox plain tokens={_TOKENS} delay_ms={_DELAY_MS}", session_id=session_id)
        async for response in call:
            alone = alone + 1 if len(response.text_delta.text.split()) == 1 else 0
            if alone == _WINDOW:
                windows.append(counter.calls - since)
            if alone in {0, _WINDOW}:
                since, alone = counter.calls.copy(), 0
    return windows


async def _fewest(caller: Caller, text: str) -> Counter[str]:
    """Count a turn a few times, and return the lowest count of each package."""
    found = [await _turn(caller, text, f"{len(text)}-{number}") for number in range(_ROUNDS)]
    names = {name for each in found for name in each}
    return Counter({name: min(each[name] for each in found) for name in names})


async def _turn(caller: Caller, text: str, session_id: str) -> Counter[str]:
    logs = caller.service.database["turn_logs"]
    with CallCounter() as counter:
        turn = await caller.converse(text, session_id=session_id)
        while logs.count_documents({"turn_id": turn.responses[0].turn_id, "ended": True}) == 0:  # noqa: ASYNC110 - the database changes it
            await asyncio.sleep(0.01)
    if turn.failure is not None:
        raise RuntimeError(f"the turn failed: {turn.failure}")
    return counter.calls


def table(title: str, calls: Mapping[str, float]) -> str:
    """Return the counts as Markdown, the highest first; packages below a hundredth of the sum are left out."""
    total = sum(calls.values())
    rows = [(name, count) for name, count in calls.items() if count >= total / 100]
    lines = [f"| {name} | {count:,.1f} |" for name, count in sorted(rows, key=lambda row: -row[1])]
    return "\n".join([f"### {title}", "", "| package | calls |", "|---|---:|", f"| all | {total:,.1f} |", *lines, ""])


async def run(backends: Backends) -> list[str]:
    """Count everything; return the tables."""
    async with open_caller(backends) as caller:
        return [
            table("A token that arrives alone", await count_single_token(caller)),
            table("One of many tokens that arrive together", await count_batched_token(caller)),
            table("A turn with a short answer in a new session", await count_turn(caller)),
        ]


def main() -> None:
    """Count, and print the tables."""
    configure_logs(level="WARNING", pretty=True)
    directory = Path(tempfile.mkdtemp(prefix="godoty-bench-"))
    with Backends(directory, None) as backends, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print("\n".join(runner.run(run(backends))))


if __name__ == "__main__":
    main()
