"""Drives a turn's task step by step, and cancels it at a given await."""

import asyncio
import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

from godoty_service.turns.runner import TurnRunner
from godoty_service.turns.turn import Turn


class CancelInjector:
    """Cancels one turn at one of its awaits.

    Attributes:
        awaits: The number of awaits of the last turn.
        at: The await at which the next turn is cancelled; None: at none. 0: before it has begun.
        late: Cancel in the loop's next step, when the awaited operation has begun; else at once.
        fired_at: The time of the cancel, in Unix seconds; None: the turn ended before.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.awaits = 0
        self.at: int | None = None
        self.late = False
        self.fired_at: float | None = None
        self._run = TurnRunner.run
        monkeypatch.setattr(TurnRunner, "run", self._as_run())

    def arm(self, at: int | None, *, late: bool = False) -> None:
        """Set the await at which the next turn is cancelled."""
        self.at, self.late, self.fired_at = at, late, None

    def _as_run(self) -> Callable[[TurnRunner, Turn], Coroutine[Any, Any, None]]:
        def run(runner: TurnRunner, turn: Turn) -> Coroutine[Any, Any, None]:
            if self.at == 0:
                asyncio.get_running_loop().call_soon(self._fire, turn)
            return self._drive(runner, turn)

        return run

    async def _drive(self, runner: TurnRunner, turn: Turn) -> None:
        await self._steps(self._run(runner, turn), turn)

    @types.coroutine
    def _steps(self, work: Coroutine[Any, Any, None], turn: Turn) -> Generator[Any, Any, None]:
        self.awaits, at = 0, self.at
        thrown: BaseException | None = None
        while True:
            try:
                waiting = work.send(None) if thrown is None else work.throw(thrown)
            except StopIteration:
                return
            self.awaits += 1
            if self.awaits == at and self.late:
                asyncio.get_running_loop().call_soon(self._fire, turn)
            elif self.awaits == at:
                self._fire(turn)
            try:
                yield waiting
            except BaseException as error:  # noqa: BLE001 - the cancel, or what was waited for
                thrown = error
            else:
                thrown = None

    def _fire(self, turn: Turn) -> None:
        self.fired_at = time.time()
        turn.cancel()
