"""The ledger beside the invoice, line by line (the invoice equation, A8), and what the books prove of themselves."""

import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from godoty_service.metering.budget_sweep import BudgetSweep
from godoty_service.metering.budget_verification import verify_budgets
from godoty_service.metering.call import CallState, Entry, ModelCall
from godoty_service.metering.opening_balance import OpeningBalance
from godoty_service.metering.rollup_verification import verify_usage
from godoty_service.metering.spending import Spending
from godoty_service.metering.verification import verify
from godoty_service.rooms import Rooms
from godoty_service.sandbox.invoice import Invoice, Line

ZERO = Decimal(0)
_ABOVE_BOUND = "above its upper bound"
# Why nobody can tell what a call cost, though its request left: its server was killed before it closed the call; the
# caller had it end before the provider answered; the provider closed the connection before it answered.
KILLED, LEFT, CUT_OFF = "killed", "left", "cut off"


@dataclass(frozen=True)
class Witness:
    """What is known of the servers from outside their database.

    Attributes:
        killed: The replicas that were killed.
        outcomes: How turns ended, by their ids, as their servers logged it.
    """

    killed: Collection[str] = ()
    outcomes: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Books:
    """The ledger beside the invoice.

    Attributes:
        calls: How many calls the ledger has.
        settled: How many of them are settled.
        unresolved: Those that no record tells.
        why: How many of these had which reason.
        cost: What the settled ones cost.
        invoiced: What the provider billed.
        lines: How many lines its invoice has.
        faults: Each way in which the two disagree.
    """

    calls: int = 0
    settled: int = 0
    unresolved: list[ModelCall] = field(default_factory=list)
    why: Counter[str] = field(default_factory=Counter)
    cost: Decimal = ZERO
    invoiced: Decimal = ZERO
    lines: int = 0
    faults: list[str] = field(default_factory=list)


async def compare(rooms: Rooms, invoice: Invoice, witness: Witness) -> Books:
    """Compare the ledger with the invoice, once nothing runs any more."""
    entries = [entry async for entry in rooms.ledger.by_session(None)]
    calls = [entry for entry in entries if isinstance(entry, ModelCall)]
    lines = {line.generation_id: line for line in invoice.lines()}
    books = Books(calls=len(calls), lines=len(lines), invoiced=invoice.total())
    known = Counter(call.generation_id for call in calls if call.generation_id is not None)
    books.faults += [f"generation {name} stands {count} times" for name, count in known.items() if count > 1]
    for call in calls:
        _check(call, books, billed={name: line.cost for name, line in lines.items()})
    missing = [line for name, line in lines.items() if name not in known]
    _cover(missing, books, witness)
    _check_numbers(entries, books)
    unbooked = sum((line.cost for line in missing), ZERO)
    if books.cost + unbooked + _unresolved_lines(books, lines) != books.invoiced:
        books.faults.append(f"the ledger has {books.cost}, the invoice {books.invoiced}, of it unseen {unbooked}")
    for tenant_id in {entry.tenant_id for entry in entries}:
        await rooms.usage.booking.take_up(tenant_id)
    await _settle_budgets(rooms, books)
    books.faults += [each async for each in differences(rooms)]
    return books


async def differences(rooms: Rooms) -> AsyncIterator[str]:
    """Tell what `godoty ledger verify` names."""
    database, usage = rooms.database, rooms.usage
    async for each in verify(database=database, ledger=rooms.ledger, folds=rooms.sessions):
        if not await _is_search_fee(rooms, each.what):
            yield f"verify: {each.session_id}: {each.what}"
    async for each in verify_budgets(database=database, entries=rooms.entry_sums, budgets=rooms.budgets):
        yield f"verify: {each.what}"
    async for each in verify_usage(
        database=database, entries=usage.entries, rollups=usage.rollups, booking=usage.booking
    ):
        yield f"verify: {each.what}"


async def _is_search_fee(rooms: Rooms, what: str) -> bool:
    """Tell whether a call is above its bound by searches that its request did not ask for: those it does not cover."""
    named = re.search(r"\bcall_\w+", what) if _ABOVE_BOUND in what else None
    call = await rooms.ledger.find(named[0]) if named else None
    return call is not None and call.usage is not None and bool(call.usage.web_search_requests)


def spending_at(rooms: Rooms, ahead: timedelta) -> tuple[Spending, BudgetSweep]:
    """Build what a server has when it is later than now."""

    async def now() -> datetime:
        return await rooms.database.now() + ahead

    balance = OpeningBalance(
        database=rooms.database, booking=rooms.usage.booking, rollups=rooms.usage.rollups, entries=rooms.entry_sums
    )
    spending = Spending(
        budgets=rooms.budgets,
        balance=balance,
        adjustments=rooms.ledger.adjustments,
        budgets_of=rooms.policies.budgets,
        now=now,
    )
    sweep = BudgetSweep(
        spending=spending,
        budgets=rooms.budgets,
        ledger=rooms.ledger,
        balance=balance,
        now=now,
        living=rooms.replicas.living,
        owner=rooms.replicas.replica_id,
    )
    return spending, sweep


async def _settle_budgets(rooms: Rooms, books: Books) -> None:
    """Do what servers do in the next minutes: the proof then passes no budget over as still on its way."""
    _, sweep = spending_at(rooms, timedelta(minutes=5))
    await sweep.sweep()
    await sweep.sweep()  # the first may only have set since when the calls of a tenant are counted
    async for tenant_id in rooms.budgets.tenants(None):
        if await rooms.budgets.counted(tenant_id) is None:
            books.faults.append(f"what was before the budgets of {tenant_id} is not stated for good")


def why(call: ModelCall, witness: Witness) -> str | None:
    """Tell why an unresolved call has no generation id; None: its server must have seen one.

    A server writes an error into each call that it closes, so one without was open when its server was killed.
    Behind the first token there was a header with the id.
    """
    if call.error is None and call.duration is None:
        return KILLED if call.owner in witness.killed else None
    if call.time_to_first_token is not None:
        return None
    if call.error == "interrupted":
        ended = witness.outcomes.get(call.turn_id)
        unsaid = ended is None and call.owner in witness.killed  # it was killed before it could say
        return LEFT if unsaid or ended == "turn_cancelled" else None
    return CUT_OFF if call.error == "provider_unavailable" else None


def _check(call: ModelCall, books: Books, *, billed: dict[str, Decimal]) -> None:
    """Compare one entry with its line."""
    line = billed.get(call.generation_id or "")
    match call.state:
        case CallState.SETTLED:
            books.settled += 1
            books.cost += call.cost or ZERO
            if call.cost != (line if line is not None else ZERO):
                books.faults.append(f"{call.call_id} is settled at {call.cost}, its line says {line}")
        case CallState.UNRESOLVED:
            books.unresolved.append(call)
            if line is not None and (call.upper_bound is None or line > call.upper_bound):
                books.faults.append(f"{call.call_id}: the bound {call.upper_bound} does not cover {line}")
        case CallState.VOID:
            if line is not None:
                books.faults.append(f"{call.call_id} is void and was billed {line}")
        case CallState.PENDING:
            books.faults.append(f"{call.call_id} is still open")


def _cover(missing: Sequence[Line], books: Books, witness: Witness) -> None:
    """Give each line whose id never came to the ledger an unresolved entry of its session, with a bound above it.

    What the provider itself cut off before it answered, it did not bill.
    """
    bounds: dict[str, list[Decimal]] = defaultdict(list)
    for call in books.unresolved:
        reason = why(call, witness) if call.generation_id is None else None
        books.why[reason or "?"] += 1
        if reason is None:
            books.faults.append(f"{call.call_id} is unresolved, and its server could have known: {call}")
        elif reason != CUT_OFF and call.upper_bound is not None:
            bounds[_marker(call)].append(call.upper_bound)
    for line in sorted(missing, key=lambda each: each.cost, reverse=True):
        free = bounds[line.session or ""]
        fitting = sorted(bound for bound in free if bound >= line.cost)
        if not fitting:
            books.faults.append(f"line {line.generation_id} of {line.cost} has no entry")
        else:
            free.remove(fitting[-1])


def _check_numbers(entries: list[Entry], books: Books) -> None:
    places = Counter((entry.session_uid, entry.number) for entry in entries)
    books.faults += [f"number {place} stands {count} times" for place, count in places.items() if count > 1]


def _unresolved_lines(books: Books, lines: Mapping[str, Line]) -> Decimal:
    known = (lines.get(call.generation_id or "") for call in books.unresolved)
    return sum((line.cost for line in known if line is not None), ZERO)


def _marker(call: ModelCall) -> str:
    from godoty_service.turns.workbench import pseudonym  # noqa: PLC0415 - Strands takes a second to import

    return pseudonym(call.tenant_id, call.session_uid)
