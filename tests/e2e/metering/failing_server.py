"""A server whose database operations a test can make fail, and checks of what its callers see."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import grpc

from tests.support.caller import Caller, Turn
from tests.support.service import PATIENCE, format_amount

REFUSED = {"errorCode": 91}  # the server is shutting down: the driver tries again until its time is over


CUT_OFF = {"closeConnection": True}


DOUBTFUL = {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}  # written all the same


class FailingServer:
    """A server on a database whose operations can be made to fail.

    Attributes:
        caller: A tenant of it.
    """

    def __init__(self, caller: Caller, stack: AsyncExitStack) -> None:
        self.caller = caller
        self._stack = stack

    async def stop(self) -> None:
        """Stop it gracefully."""
        await self._stack.aclose()

    @contextmanager
    def failing(self, command: str, collection: str, how: dict[str, Any]) -> Iterator[None]:
        """Make each such command of the server on a collection fail."""
        service = self.caller.service
        admin = service.backends.mongo.admin
        data = {
            "failCommands": [command],
            "namespace": f"{service.database.name}.{collection}",
            "appName": "godoty",
            **how,
        }
        admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
        try:
            yield
        finally:
            admin.command({"configureFailPoint": "failCommand", "mode": "off"})


def assert_unavailable(turn: Turn) -> None:
    """Check that the caller may retry."""
    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
    assert turn.failure.retry_after


async def assert_sums_agree(caller: Caller) -> None:
    """Check that the session's cost equals its invoice, and that no call is open."""
    totals = (await caller.metrics()).totals
    assert totals.cost_usd == format_amount(caller.service.invoiced("talk"))
    assert (totals.pending_calls, totals.unresolved_calls) == (0, 0)


async def next_turn(caller: Caller) -> Turn:
    """Run a turn as soon as the session is free."""
    async with asyncio.timeout(PATIENCE):
        while True:
            turn = await caller.converse("Are you there?")
            if turn.failure is None:
                return turn
            assert turn.failure.reason in ("SESSION_BUSY", "SESSION_LOST", "STORAGE_UNAVAILABLE")  # on a busy machine
            await asyncio.sleep(0.1)
