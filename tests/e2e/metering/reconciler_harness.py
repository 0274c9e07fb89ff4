"""A second server's reconciler, which a test runs by hand and on a clock that it controls."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from godoty.v1 import turn_pb2 as turn_pb
from pymongo.read_concern import ReadConcern

from godoty_service.bootstrap.components import Components
from godoty_service.bootstrap.provider import ProviderComponents
from godoty_service.clock import utc_now
from godoty_service.ledger.codec import call_from_document
from godoty_service.ledger.entries import ModelCall
from godoty_service.ledger.ledger import Ledger
from godoty_service.ledger.session_totals import SessionTotalsUpdater
from godoty_service.ledger.states import CallState
from godoty_service.ledger.verification import verify
from godoty_service.metering.adjustments import Adjustments
from godoty_service.metering.reconciler import Reconciler
from godoty_service.metering.settlement import ReadGeneration, RecordTimeouts
from tests.support.caller import Caller
from tests.support.service import soon

TIMEOUTS = RecordTimeouts()


class ReconcilerHarness:
    """A reconciler with a ledger, session totals and adjustments of its own.

    Attributes:
        ahead: How far its clock and the database's are ahead of the system clock's.
        clock_ahead: How far its own clock is ahead of the database's.
        closed: The calls that it closed, in order.
        owner: The server that it works for.
        read_generation: Reads the provider's records; a test may replace it.
    """

    def __init__(
        self, components: Components, provider: ProviderComponents, *, timeouts: RecordTimeouts = TIMEOUTS
    ) -> None:
        self.ahead = timedelta()
        self.clock_ahead = timedelta()
        self._stored_now: Callable[[], Awaitable[datetime]] = components.database.now
        self.closed: list[ModelCall] = []
        self._key_id = provider.key_id
        self.read_generation: ReadGeneration = provider.client_pool.generation
        self.owner = components.replicas.replica_id
        self.database = components.database
        self.sessions = components.conversations.sessions
        self.ledger = Ledger(components.database.collection("ledger"))
        self.totals_updater = SessionTotalsUpdater(components.conversations.sessions, self.ledger)
        self.adjustments = Adjustments(self.ledger, self.totals_updater, clock=self._now)
        self.reconciler = Reconciler(
            ledger=self.ledger,
            oracle=provider.oracle,
            totals_updater=self.totals_updater,
            adjustments=self.adjustments,
            read_generation=self._read,
            alive=components.replicas.alive,
            owner=self.owner,
            readable_keys=self._keys,
            record=self.closed.append,
            timeouts=timeouts,
            keeps_records=provider.client_pool.keeps_records,
            now=self._database_now,
            clock=self._now,
        )

    async def stop_clock(self) -> datetime:
        """Stop the database's time, which from now on only `ahead` changes, and return it."""
        stopped = await self._stored_now()

        async def stored_now() -> datetime:
            return stopped

        self._stored_now = stored_now
        return stopped

    async def differences(self, tenant_id: str | None = None) -> list[str]:
        """Return the differences that verification finds."""
        found = verify(database=self.database, ledger=self.ledger, totals_store=self.sessions, tenant_id=tenant_id)
        return [each.what async for each in found]

    async def _read(self, key_id: str, generation_id: str) -> bytes | None:
        return await self.read_generation(key_id, generation_id)

    async def _keys(self) -> list[str]:
        return [self._key_id]

    async def _database_now(self) -> datetime:
        return await self._stored_now() + self.ahead

    def _now(self) -> datetime:
        return utc_now() + self.ahead + self.clock_ahead


async def cancelled(caller: Caller, directive: str, **fields: Any) -> ModelCall:
    """Start a turn, disconnect at its first text, and return its entry once the turn is over.

    Its answer is held after ten tokens: it cannot end before the disconnect.
    """
    # A session whose turn is written to its end is held here for a moment yet: the next one waits in line.
    call = caller.start(f"{directive} hold_after=10", **{"on_busy": turn_pb.ON_BUSY_WAIT, **fields})
    async for response in call:
        if response.HasField("text_delta"):
            break
    call.cancel()
    return await last_call_after_turn(caller)


async def last_call_after_turn(caller: Caller) -> ModelCall:
    """Return the session's last call, once no turn runs."""
    await soon(lambda: (caller.service.session("talk") or {"lease": 1})["lease"] is None)
    return calls(caller)[-1]


async def closed(caller: Caller) -> ModelCall:
    """Return the session's last call, once all are closed; there is one at least, which a majority may not have yet."""

    def all_closed() -> list[ModelCall]:
        found = calls(caller)
        return [] if any(each.state is CallState.PENDING for each in found) else found

    return (await soon(all_closed))[-1]


async def serve_record(caller: Caller, entry: ModelCall) -> None:
    """Let the provider serve the record of a call with `record_ms=-1` from now on."""
    backends, generation_id = caller.service.backends, entry.generation_id or ""
    await soon(lambda: backends.ask(lambda: backends.sandbox.records.serve(generation_id)))


def calls(caller: Caller) -> list[ModelCall]:
    """Return the session's calls, without its adjustments, as the service reads them.

    A write that is not yet journaled is not there for it, and must not be there for the test.
    """
    ledger = caller.service.database["ledger"].with_options(read_concern=ReadConcern("majority"))
    query = {"tenant_id": caller.service.tenant_id, "session_id": "talk", "kind": "call"}
    return [call_from_document(each) for each in ledger.find(query).sort([("start_time", 1), ("number", 1)])]


def billed(caller: Caller, entry: ModelCall) -> Decimal:
    """Return the amount on the provider's invoice for a call."""
    (line,) = [each for each in caller.service.invoice("talk") if each.generation_id == entry.generation_id]
    return line.cost
