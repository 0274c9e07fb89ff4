"""`godoty ledger verify`: clean books pass, and whatever was tampered with is named."""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128

from godoty_service.metering.fold_document import fold_to_document
from godoty_service.metering.totals import SessionFold
from godoty_service.metering.verification import Extent, verify
from godoty_service.sessions.store import Sessions
from tests.metering.bookkeeper import PATIENCE, Bookkeeper, calls, cancelled
from tests.metering.conftest import NEVER, Bookkeep, Godoty, Serve
from tests.service.caller import Caller
from tests.service.service import Document, Service

Connect = Callable[[Service], Caller]
Tamper = Callable[[Caller], Any]


def _ledger(caller: Caller) -> Any:
    return caller.service.database["ledger"]


def _sessions(caller: Caller) -> Any:
    return caller.service.database["sessions"]


def _own(caller: Caller, **more: Any) -> Document:
    return {"tenant_id": caller.service.tenant_id, **more}


def change_a_cost(caller: Caller) -> None:
    """Make the second call cheaper by the smallest amount there is."""
    cost = calls(caller)[1].cost
    assert cost is not None
    _ledger(caller).update_one(_own(caller, number=2), {"$set": {"cost": Decimal128(cost - Decimal("1E-22"))}})


def remove_an_entry(caller: Caller) -> None:
    """Take the second of the entries away."""
    assert _ledger(caller).delete_one(_own(caller, number=2)).deleted_count == 1


def remove_the_last_entry(caller: Caller) -> None:
    """Take the adjustment away, which is the last one."""
    assert _ledger(caller).delete_one(_own(caller, number=5)).deleted_count == 1


def change_a_fold(caller: Caller) -> None:
    """Let the session say it cost a dollar more."""
    session = _sessions(caller).find_one(_own(caller))
    cost = session["fold"]["totals"]["cost"].to_decimal() + 1
    _sessions(caller).update_one(_own(caller), {"$set": {"fold.totals.cost": Decimal128(cost)}})


def change_a_models_fold(caller: Caller) -> None:
    """Let one model's tokens be more than its calls used."""
    _sessions(caller).update_one(_own(caller), {"$inc": {"fold.by_model.0.usage.output_tokens": 1}})


def adjust_twice(caller: Caller) -> None:
    """Write the adjustment again, under an id and a number of its own."""
    copy = _ledger(caller).find_one(_own(caller, kind="adjustment"))
    _ledger(caller).insert_one({**copy, "_id": "adj_forged", "number": 6})


def shrink_a_bound(caller: Caller) -> None:
    """Let the adjustment take another bound away than the call has."""
    _ledger(caller).update_one(_own(caller, kind="adjustment"), {"$set": {"bound": Decimal128("0.1")}})


def forget_a_cost(caller: Caller) -> None:
    """Take a settled call's cost away."""
    _ledger(caller).update_one(_own(caller, number=1), {"$unset": {"cost": ""}})


def reopen_a_call(caller: Caller) -> None:
    """Let a settled call be pending again, its cost still with it."""
    _ledger(caller).update_one(_own(caller, number=1), {"$set": {"state": "pending"}})


def resolve_a_settled_call(caller: Caller) -> None:
    """Let the adjustment be about a call that was never unresolved."""
    settled = calls(caller)[0].call_id
    _ledger(caller).update_one(_own(caller, kind="adjustment"), {"$set": {"corrects": settled}})


def reset_the_fold(caller: Caller) -> None:
    """Let the session show what it had cost after its first call."""
    fold = fold_to_document(SessionFold().take([*calls(caller)[:1]]))
    _sessions(caller).update_one(_own(caller), {"$set": {"fold": fold}})


def forget_the_fold(caller: Caller) -> None:
    """Let the session show that it has cost nothing."""
    _sessions(caller).update_one(_own(caller), {"$set": {"fold": None}})


def raise_a_cost(caller: Caller) -> None:
    """Lower the bound of a settled call below what it cost."""
    _ledger(caller).update_one(_own(caller, number=1), {"$set": {"upper_bound": Decimal128("0.0000000001")}})


def repeat_a_generation(caller: Caller) -> None:
    """Let two entries have one generation of the provider."""
    first = calls(caller)[0].generation_id
    _ledger(caller).update_one(_own(caller, number=2), {"$set": {"generation_id": first}})


# What is done to the books, and what is to be named among the differences.
TAMPERED: list[tuple[Tamper, str]] = [
    (change_a_cost, "cost: kept "),
    (remove_an_entry, "entries 2 to 2 are missing"),
    (remove_the_last_entry, "the sums go to entry 5, the entries to 4"),
    (change_a_fold, "cost: kept 1."),
    (raise_a_cost, "USD, above its upper bound of 0.0000000001 USD"),
    (repeat_a_generation, "which another entry has as well"),
    (change_a_models_fold, "openai/gpt-4o-mini: usage: kept "),
    (adjust_twice, "is resolved twice"),
    (shrink_a_bound, "takes another bound away than call"),
    (forget_a_cost, "is settled without a cost"),
    (reopen_a_call, "is pending and has a cost"),
    (resolve_a_settled_call, "resolves what is not unresolved"),
    (reset_the_fold, "the sums go to entry 1, the entries to 5"),
    (forget_the_fold, "model_calls: kept 0, by the entries 4"),
]


class Overtaken(Sessions):
    """Sessions of which one is written in between, once: after its entries were read, before its fold is."""

    def __init__(self, keeper: Bookkeeper, write: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(keeper.database.collection("sessions"), replicas=keeper.sessions._replicas)
        self._write: Callable[[], Awaitable[Any]] | None = write

    async def shown_fold(self, tenant_id: str, session_uid: str) -> tuple[Document | None, bool] | None:
        """Read it late."""
        write, self._write = self._write, None
        if write is not None:
            await write()
        return await super().shown_fold(tenant_id, session_uid)


async def _keep_books(caller: Caller, keeper: Bookkeeper) -> None:
    """Three settled calls, one that was given up, and its adjustment: entries 1 to 5 of one session."""
    await caller.converse("hello")
    await caller.converse("@sandbox tool-loop calls=2")
    call = await cancelled(caller, "@sandbox slow tokens=400 first_delay_ms=0 delay_ms=10 record_ms=-1")
    keeper.ahead = PATIENCE.without_usage
    await keeper.reconciler.tick()
    (call,) = [each for each in calls(caller) if each.call_id == call.call_id]
    await keeper.adjustments.resolve(call, cost=Decimal("0.0000003"), why="the invoice", by="ann")


async def test_clean_books_pass(calling: Serve, bookkeep: Bookkeep, godoty: Godoty) -> None:
    """Exit status 0, and how much was looked at."""
    caller = await calling(reconcile_interval=NEVER)
    await _keep_books(caller, await bookkeep(caller.service))

    said = await godoty(caller.service, "ledger", "verify")

    assert (said.status, said.out, said.err) == (0, "1 sessions, 5 entries, 0 differences\n", "")


async def test_what_was_tampered_with_is_named(
    calling: Serve, bookkeep: Bookkeep, connect: Connect, godoty: Godoty
) -> None:
    """Exit status 1, and for each tenant whose books were touched a line that says what does not add up."""
    clean = await calling(reconcile_interval=NEVER)
    keeper = await bookkeep(clean.service)
    await _keep_books(clean, keeper)
    touched: dict[str, Caller] = {}
    for tamper, _ in TAMPERED:
        caller = connect(clean.service.another_tenant())
        await _keep_books(caller, keeper)
        assert await keeper.differences(caller.service.tenant_id) == []
        tamper(caller)
        touched[tamper.__name__] = caller

    said = await godoty(clean.service, "ledger", "verify")
    own = await godoty(clean.service, "ledger", "verify", "--tenant", clean.service.tenant_id)

    assert said.status == 1
    lines = said.err.splitlines()
    for tamper, named in TAMPERED:
        start = f"{touched[tamper.__name__].service.tenant_id} talk: "
        told = [line.removeprefix(start) for line in lines if line.startswith(start)]
        assert (tamper.__name__, [line for line in told if named in line]) != (tamper.__name__, []), told
        assert told == await keeper.differences(touched[tamper.__name__].service.tenant_id)
    assert [line for line in lines if line.startswith(clean.service.tenant_id)] == []
    assert (
        said.out == f"{len(TAMPERED) + 1} sessions, {5 * (len(TAMPERED) + 1) - 1} entries, {len(lines)} differences\n"
    )
    assert (own.status, own.out) == (0, "1 sessions, 5 entries, 0 differences\n")


async def test_sums_whose_entries_are_gone_are_named(calling: Serve, bookkeep: Bookkeep, godoty: Godoty) -> None:
    """A session that has cost something, and has not one entry left, does not pass for a clean one."""
    caller = await calling(reconcile_interval=NEVER)
    await _keep_books(caller, await bookkeep(caller.service))
    _ledger(caller).delete_many(_own(caller))

    said = await godoty(caller.service, "ledger", "verify", "--tenant", caller.service.tenant_id)

    assert said.status == 1
    assert "talk: it has sums, but all its entries are gone" in said.err


async def test_a_number_that_stands_twice_is_named(calling: Serve, bookkeep: Bookkeep, godoty: Godoty) -> None:
    """It takes somebody who drops the index that refuses it; the proof sees it all the same, by hand too."""
    caller = await calling(reconcile_interval=NEVER)
    keeper = await bookkeep(caller.service)
    await _keep_books(caller, keeper)
    ledger = _ledger(caller)

    copy = ledger.find_one(_own(caller, number=2))
    ledger.drop_index("tenant_id_1_session_uid_1_number_1")
    ledger.insert_one({**copy, "_id": "call_forged"})

    said = await godoty(caller.service, "ledger", "verify", "--tenant", caller.service.tenant_id)
    assert "entry 2 stands twice" in await keeper.differences(caller.service.tenant_id)
    assert (said.status, "talk: entry 2 stands twice" in said.err) == (1, True)


async def test_a_turn_that_runs_is_no_difference(calling: Serve, bookkeep: Bookkeep) -> None:
    """Entries that its turn has not folded yet are counted, and nothing is wrong with them."""
    caller = await calling(reconcile_interval=NEVER)
    keeper = await bookkeep(caller.service)
    await caller.converse("hello")
    call = caller.start("@sandbox slow tokens=400 first_delay_ms=0 delay_ms=10")
    async for response in call:
        if response.HasField("text_delta"):
            break

    extent = Extent()
    found = verify(database=keeper.database, ledger=keeper.ledger, folds=keeper.sessions, extent=extent)
    assert [each async for each in found] == []
    assert extent.entries == 2
    call.cancel()


async def test_a_turn_that_ends_between_two_reads_is_no_difference(calling: Serve, bookkeep: Bookkeep) -> None:
    """The entries were read, then a turn wrote more, then its fold was read: seen at one moment, nothing is wrong."""
    caller = await calling(reconcile_interval=NEVER)
    keeper = await bookkeep(caller.service)
    await caller.converse("hello")
    overtaken = Overtaken(keeper, lambda: caller.converse("and on"))

    found = verify(database=keeper.database, ledger=keeper.ledger, folds=overtaken)
    assert [each async for each in found] == []
    assert len(calls(caller)) == 2
    change_a_cost(caller)
    found = verify(database=keeper.database, ledger=keeper.ledger, folds=overtaken)
    assert [each.what async for each in found] != []
