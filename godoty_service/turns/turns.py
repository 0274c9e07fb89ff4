"""The turns that run in this server."""

import asyncio

from godoty_service.errors import ShuttingDown
from godoty_service.ids import new_id
from godoty_service.turns.runner import TurnRunner
from godoty_service.turns.turn import Turn, TurnRequest


class Turns:
    """Starts turns, and waits for them when the server stops."""

    def __init__(self, runner: TurnRunner) -> None:
        self._runner = runner
        self._turns: dict[asyncio.Task[None], Turn] = {}
        self._draining = False

    @property
    def running(self) -> int:
        """How many turns run now."""
        return len(self._turns)

    def start(self, tenant_id: str, request: TurnRequest) -> Turn:
        """Start a turn; what becomes of it stands in its log.

        Raises:
            ShuttingDown: The server takes no new turns.
        """
        if self._draining:
            raise ShuttingDown("The server is stopping.", retry_after=1.0)
        turn = Turn(tenant_id=tenant_id, turn_id=new_id("turn"), request=request)
        task = asyncio.create_task(self._runner.run(turn))
        turn.task = task
        self._turns[task] = turn
        task.add_done_callback(self._turns.pop)
        return turn

    async def drain(self, grace: float) -> None:
        """Take no new turns, let the running ones finish for so many seconds, then cancel them and settle."""
        self._draining = True
        if self._turns:
            await asyncio.wait(list(self._turns), timeout=grace)
        for turn in list(self._turns.values()):
            turn.cancel()
        if self._turns:
            await asyncio.wait(list(self._turns), timeout=grace)
