"""A bookkeeper: what another server brings to the books, run by hand and on a clock that a test turns."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from godoty.v1 import agent_service_pb2 as pb
from pymongo.read_concern import ReadConcern

from godoty_service.clock import utc_now
from godoty_service.metering.adjustments import Adjustments
from godoty_service.metering.call import CallState, ModelCall
from godoty_service.metering.documents import call_from_document
from godoty_service.metering.ledger import Ledger
from godoty_service.metering.reconciler import Patience, Reconciler
from godoty_service.metering.session_folds import SessionFolds
from godoty_service.metering.verification import verify
from godoty_service.rooms import ProviderRooms, Rooms
from tests.service.caller import Caller

PATIENCE = Patience()


class Bookkeeper:
    """A reconciler with a ledger, folds and adjustments of its own.

    Attributes:
        ahead: How much later than in the world it is, for its clock and for the database's.
        clock_ahead: How far its own clock is ahead of the database's.
        closed: The calls that it closed, in order.
        owner: The server that it works for.
    """

    def __init__(self, rooms: Rooms, provider: ProviderRooms, *, patience: Patience = PATIENCE) -> None:
        self.ahead = timedelta()
        self.clock_ahead = timedelta()
        self._stored_now = rooms.database.now
        self.closed: list[ModelCall] = []
        self._key_id = provider.key_id
        self.owner = rooms.replicas.replica_id
        self.database = rooms.database
        self.sessions = rooms.sessions
        self.ledger = Ledger(rooms.database.collection("ledger"), clock=self._now)
        self.folds = SessionFolds(rooms.sessions, self.ledger)
        self.adjustments = Adjustments(self.ledger, self.folds, clock=self._now)
        self.reconciler = Reconciler(
            ledger=self.ledger,
            oracle=provider.oracle,
            folds=self.folds,
            read_generation=provider.accounts.generation,
            living=rooms.replicas.living,
            owner=self.owner,
            readable_keys=self._keys,
            record=self.closed.append,
            patience=patience,
            keeps_records=provider.accounts.keeps_records,
            now=self._database_now,
            clock=self._now,
        )

    async def differences(self, tenant_id: str | None = None) -> list[str]:
        """What the books' own proof finds."""
        found = verify(database=self.database, ledger=self.ledger, folds=self.sessions, tenant_id=tenant_id)
        return [each.what async for each in found]

    async def _keys(self) -> list[str]:
        return [self._key_id]

    async def _database_now(self) -> datetime:
        return await self._stored_now() + self.ahead

    def _now(self) -> datetime:
        return utc_now() + self.ahead + self.clock_ahead


async def cancelled(caller: Caller, directive: str, **fields: Any) -> ModelCall:
    """Take a turn, hang up at its first text, and return its entry once the turn is over."""
    # A session whose turn is written to its end is held here for a moment yet: the next one waits in line.
    call = caller.start(directive, **{"on_busy": pb.ON_BUSY_WAIT, **fields})
    async for response in call:
        if response.HasField("text_delta"):
            break
    call.cancel()
    return await left(caller)


async def left(caller: Caller) -> ModelCall:
    """The session's last entry, once no turn runs."""
    await eventually(lambda: (caller.service.session("talk") or {"lease": 1})["lease"] is None)
    return calls(caller)[-1]


async def closed(caller: Caller, *, within: float = 10.0) -> ModelCall:
    """The session's last entry, once it is not pending any more."""
    await eventually(lambda: calls(caller)[-1].state is not CallState.PENDING, within=within)
    return calls(caller)[-1]


def calls(caller: Caller) -> list[ModelCall]:
    """The session's calls, also where adjustments stand among its entries; as the service reads them.

    A write that is not yet journaled is not there for it, and must not be there for the test.
    """
    ledger = caller.service.database["ledger"].with_options(read_concern=ReadConcern("majority"))
    query = {"tenant_id": caller.service.tenant_id, "session_id": "talk", "kind": "call"}
    return [call_from_document(each) for each in ledger.find(query).sort([("start_time", 1), ("number", 1)])]


async def eventually(condition: Callable[[], bool], *, within: float = 10.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.02)


async def steadily(condition: Callable[[], Awaitable[bool]], *, for_: float) -> None:
    """Check that something holds for some seconds."""
    end = asyncio.get_running_loop().time() + for_
    while asyncio.get_running_loop().time() < end:
        assert await condition()
        await asyncio.sleep(0.05)


def billed(caller: Caller, entry: ModelCall) -> Decimal:
    """What the provider's invoice says of a call."""
    (line,) = [each for each in caller.service.invoice("talk") if each.generation_id == entry.generation_id]
    return line.cost
