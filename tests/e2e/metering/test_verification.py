"""`godoty ledger verify`: a consistent ledger passes, and each corruption is reported."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from godoty_service.ledger.session_totals import session_totals_to_document
from godoty_service.ledger.totals import SessionTotals
from godoty_service.ledger.verification import Progress, verify
from godoty_service.sessions.store import SessionStore
from tests.e2e.metering.conftest import NEVER, Godoty, StartCaller, StartHarness
from tests.e2e.metering.reconciler_harness import TIMEOUTS, ReconcilerHarness, calls, cancelled
from tests.support.caller import Caller
from tests.support.service import Document, Service

Connect = Callable[[Service], Caller]
Tamper = Callable[[Caller], Any]


def _ledger(caller: Caller) -> Any:
    return caller.service.database["ledger"]


def _sessions(caller: Caller) -> Any:
    return caller.service.database["sessions"]


def _own(caller: Caller, **more: Any) -> Document:
    return {"tenant_id": caller.service.tenant_id, **more}


def change_a_cost(caller: Caller) -> None:
    """Make the second call cheaper by the smallest amount."""
    cost = calls(caller)[1].cost
    assert cost is not None
    _ledger(caller).update_one(_own(caller, number=2), {"$set": {"cost": Decimal128(cost - Decimal("1E-22"))}})


def remove_an_entry(caller: Caller) -> None:
    """Delete the second entry."""
    assert _ledger(caller).delete_one(_own(caller, number=2)).deleted_count == 1


def remove_the_last_entry(caller: Caller) -> None:
    """Delete the adjustment, which is the last entry."""
    assert _ledger(caller).delete_one(_own(caller, number=5)).deleted_count == 1


def change_totals(caller: Caller) -> None:
    """Raise the session's stored cost by a dollar."""
    session = _sessions(caller).find_one(_own(caller))
    cost = session["totals"]["totals"]["cost"].to_decimal() + 1
    _sessions(caller).update_one(_own(caller), {"$set": {"totals.totals.cost": Decimal128(cost)}})


def change_totals_of_a_model(caller: Caller) -> None:
    """Raise the stored tokens of one model."""
    _sessions(caller).update_one(_own(caller), {"$inc": {"totals.by_model.0.usage.output_tokens": 1}})


def change_savings(caller: Caller) -> None:
    """Count a saving that no entry has."""
    _sessions(caller).update_one(_own(caller), {"$inc": {"totals.cache_savings.calls": 1}})


def adjust_twice(caller: Caller) -> None:
    """Insert the adjustment again, under an id and a number of its own."""
    copy = _ledger(caller).find_one(_own(caller, kind="adjustment"))
    _ledger(caller).insert_one({**copy, "_id": "adj_forged", "number": 6})


def shrink_a_bound(caller: Caller) -> None:
    """Make the adjustment subtract another bound than the call's."""
    _ledger(caller).update_one(_own(caller, kind="adjustment"), {"$set": {"bound": Decimal128("0.1")}})


def remove_a_cost(caller: Caller) -> None:
    """Remove a settled call's cost."""
    _ledger(caller).update_one(_own(caller, number=1), {"$unset": {"cost": ""}})


def reopen_a_call(caller: Caller) -> None:
    """Make a settled call pending again, with its cost."""
    _ledger(caller).update_one(_own(caller, number=1), {"$set": {"state": "pending"}})


def resolve_a_settled_call(caller: Caller) -> None:
    """Make the adjustment correct a call that was never unresolved."""
    settled = calls(caller)[0].call_id
    _ledger(caller).update_one(_own(caller, kind="adjustment"), {"$set": {"corrects": settled}})


def reset_totals(caller: Caller) -> None:
    """Restore the session's totals after its first call."""
    early_totals = session_totals_to_document(SessionTotals().apply([*calls(caller)[:1]]))
    _sessions(caller).update_one(_own(caller), {"$set": {"totals": early_totals}})


def remove_totals(caller: Caller) -> None:
    """Remove the session's totals."""
    _sessions(caller).update_one(_own(caller), {"$set": {"totals": None}})


def lower_a_bound(caller: Caller) -> None:
    """Lower the bound of a settled call below its cost."""
    _ledger(caller).update_one(_own(caller, number=1), {"$set": {"upper_bound": Decimal128("0.0000000001")}})


def repeat_a_generation(caller: Caller) -> None:
    """Give two entries one generation id."""
    first = calls(caller)[0].generation_id
    _ledger(caller).update_one(_own(caller, number=2), {"$set": {"generation_id": first}})


# Each corruption of the ledger, and a part of the difference that must be reported.
TAMPERED: list[tuple[Tamper, str]] = [
    (change_a_cost, "cost: stored "),
    (remove_an_entry, "entries 2 to 2 are missing"),
    (remove_the_last_entry, "the totals end at entry 5, the entries at 4"),
    (change_totals, "cost: stored 1."),
    (lower_a_bound, "USD, above its upper bound of 0.0000000001 USD"),
    (repeat_a_generation, "which another entry has as well"),
    (change_totals_of_a_model, "openai/gpt-4o-mini: usage: stored "),
    (change_savings, "cache_savings: stored "),
    (adjust_twice, "is resolved twice"),
    (shrink_a_bound, "subtracts another bound than that of call"),
    (remove_a_cost, "is settled without a cost"),
    (reopen_a_call, "is pending and has a cost"),
    (resolve_a_settled_call, "resolves a call that is not unresolved"),
    (reset_totals, "the totals end at entry 1, the entries at 5"),
    (remove_totals, "model_calls: stored 0, by the entries 4"),
]


class OvertakenSessionStore(SessionStore):
    """A session store that runs a write once, after the entries and before the totals are read."""

    def __init__(self, harness: ReconcilerHarness, write: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(harness.database.collection("sessions"), replicas=harness.sessions._replicas)
        self._write: Callable[[], Awaitable[Any]] | None = write

    async def read_shown_totals(self, tenant_id: str, session_uid: str) -> tuple[Document | None, bool] | None:
        """Run the write before the read."""
        write, self._write = self._write, None
        if write is not None:
            await write()
        return await super().read_shown_totals(tenant_id, session_uid)


async def _fill_ledger(caller: Caller, harness: ReconcilerHarness) -> None:
    """Create three settled calls, an unresolved one, and its adjustment: entries 1 to 5 of one session."""
    await caller.converse("hello")
    await caller.converse("@sandbox tool-loop calls=2")
    call = await cancelled(caller, "@sandbox slow tokens=400 first_delay_ms=0 delay_ms=10 record_ms=-1")
    harness.ahead = TIMEOUTS.without_usage
    await harness.reconciler.tick()
    (call,) = [each for each in calls(caller) if each.call_id == call.call_id]
    await harness.adjustments.resolve(call, cost=Decimal("0.0000003"), why="the invoice", by="ann")


def _copy_ledger(source: Caller, target: Caller) -> None:
    """Give a tenant the session and the entries of another one, under ids of its own."""
    tenant_id = target.service.tenant_id
    for collection in (_ledger(source), _sessions(source)):
        for document in collection.find(_own(source)):
            names = document.keys() & {"_id", "session_uid", "turn_id", "corrects", "generation_id"}
            renamed = {name: f"{document[name]}_of_{tenant_id}" for name in names}
            collection.insert_one({**document, **renamed, "tenant_id": tenant_id})


async def test_consistent_ledger_passes(start_caller: StartCaller, start_harness: StartHarness, godoty: Godoty) -> None:
    """Exit status 0, and how much was verified."""
    caller = await start_caller(reconcile_interval=NEVER)
    await _fill_ledger(caller, await start_harness(caller.service))

    result = await godoty(caller.service, "ledger", "verify")

    assert (result.status, result.out, result.err) == (0, "1 sessions, 5 entries, 0 differences\n", "")


async def test_each_corruption_is_reported(
    start_caller: StartCaller, start_harness: StartHarness, connect: Connect, godoty: Godoty
) -> None:
    """Exit status 1, and a line for each corrupted tenant that states the difference."""
    clean = await start_caller(reconcile_interval=NEVER)
    harness = await start_harness(clean.service)
    await _fill_ledger(clean, harness)
    touched: dict[str, Caller] = {}
    for tamper, _ in TAMPERED:
        caller = connect(clean.service.another_tenant())
        _copy_ledger(clean, caller)
        assert await harness.differences(caller.service.tenant_id) == []
        tamper(caller)
        touched[tamper.__name__] = caller

    result = await godoty(clean.service, "ledger", "verify")
    own = await godoty(clean.service, "ledger", "verify", "--tenant", clean.service.tenant_id)

    assert result.status == 1
    lines = result.err.splitlines()
    for tamper, named in TAMPERED:
        start = f"{touched[tamper.__name__].service.tenant_id} talk: "
        reported = [line.removeprefix(start) for line in lines if line.startswith(start)]
        assert (tamper.__name__, [line for line in reported if named in line]) != (tamper.__name__, []), reported
        assert reported == await harness.differences(touched[tamper.__name__].service.tenant_id)
    assert [line for line in lines if line.startswith(clean.service.tenant_id)] == []
    assert (
        result.out == f"{len(TAMPERED) + 1} sessions, {5 * (len(TAMPERED) + 1) - 1} entries, {len(lines)} differences\n"
    )
    assert (own.status, own.out) == (0, "1 sessions, 5 entries, 0 differences\n")


async def test_totals_without_entries_are_reported(
    start_caller: StartCaller, start_harness: StartHarness, godoty: Godoty
) -> None:
    """A session with totals and without any entry does not pass."""
    caller = await start_caller(reconcile_interval=NEVER)
    await _fill_ledger(caller, await start_harness(caller.service))
    _ledger(caller).delete_many(_own(caller))

    result = await godoty(caller.service, "ledger", "verify", "--tenant", caller.service.tenant_id)

    assert result.status == 1
    assert "talk: it has totals, but all its entries are gone" in result.err


async def test_duplicate_number_is_reported(
    start_caller: StartCaller, start_harness: StartHarness, godoty: Godoty
) -> None:
    """It requires dropping the unique index; verification finds it nevertheless."""
    caller = await start_caller(reconcile_interval=NEVER)
    harness = await start_harness(caller.service)
    await _fill_ledger(caller, harness)
    ledger = _ledger(caller)

    copy = ledger.find_one(_own(caller, number=2))
    ledger.drop_index("tenant_id_1_session_uid_1_number_1")
    ledger.insert_one({**copy, "_id": "call_forged"})

    result = await godoty(caller.service, "ledger", "verify", "--tenant", caller.service.tenant_id)
    assert "entry 2 exists twice" in await harness.differences(caller.service.tenant_id)
    assert (result.status, "talk: entry 2 exists twice" in result.err) == (1, True)


async def test_running_turn_is_no_difference(start_caller: StartCaller, start_harness: StartHarness) -> None:
    """Entries that its turn has not added to the totals yet are counted, and are no difference."""
    caller = await start_caller(reconcile_interval=NEVER)
    harness = await start_harness(caller.service)
    await caller.converse("hello")
    call = caller.start("@sandbox slow tokens=400 first_delay_ms=0 delay_ms=10 hold_after=10")
    async for response in call:
        if response.HasField("text_delta"):
            break

    extent = Progress()
    found = verify(database=harness.database, ledger=harness.ledger, totals_store=harness.sessions, progress=extent)
    assert [each async for each in found] == []
    assert extent.entries == 2
    call.cancel()


async def test_turn_that_ends_between_two_reads_is_no_difference(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """A turn wrote between the reads of entries and totals: in one snapshot there is no difference."""
    caller = await start_caller(reconcile_interval=NEVER)
    harness = await start_harness(caller.service)
    await caller.converse("hello")
    overtaken = OvertakenSessionStore(harness, lambda: caller.converse("and on"))

    found = verify(database=harness.database, ledger=harness.ledger, totals_store=overtaken)
    assert [each async for each in found] == []
    assert len(calls(caller)) == 2
    change_a_cost(caller)
    found = verify(database=harness.database, ledger=harness.ledger, totals_store=overtaken)
    assert [each.what async for each in found] != []
