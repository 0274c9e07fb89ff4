"""Compares the ledger with the provider's invoice line by line (the invoice equation, A8), and verifies the ledger."""

import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from godoty_service.bootstrap.components import Components
from godoty_service.budgets.maintenance import BudgetMaintenance
from godoty_service.budgets.opening_balance import OpeningBalanceJob
from godoty_service.budgets.service import BudgetService
from godoty_service.budgets.verification import verify_budgets
from godoty_service.ledger.entries import Entry, ModelCall
from godoty_service.ledger.states import CallState
from godoty_service.ledger.verification import verify
from godoty_service.usage.verification import verify_usage
from openrouter_sandbox.billing.invoice import Invoice, Line

ZERO = Decimal(0)
_ABOVE_BOUND = "above its upper bound"
# Reasons for an unresolved call that was sent: its server was killed before it closed the call; before the provider
# responded, the caller cancelled it, or its turn lost the lease, or the provider closed the connection.
KILLED, CANCELLED, LEASE_LOST, CUT_OFF = "killed", "cancelled", "lease lost", "cut off"


@dataclass(frozen=True)
class ServerEvidence:
    """Facts about the servers from outside their database.

    Attributes:
        killed: The ids of killed replicas.
        outcomes: The outcomes of turns by turn id, from the servers' logs.
    """

    killed: Collection[str] = ()
    outcomes: Mapping[str, str] = field(default_factory=dict)


@dataclass
class InvoiceComparison:
    """The comparison of the ledger with the provider's invoice.

    Attributes:
        calls: Number of calls in the ledger.
        settled: Number of settled calls.
        unresolved: The unresolved calls.
        reasons: Number of unresolved calls by reason.
        cost: Total cost of the settled calls, in USD.
        invoiced: Total of the invoice, in USD.
        lines: Number of invoice lines.
        faults: A description of each mismatch.
    """

    calls: int = 0
    settled: int = 0
    unresolved: list[ModelCall] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    cost: Decimal = ZERO
    invoiced: Decimal = ZERO
    lines: int = 0
    faults: list[str] = field(default_factory=list)


async def compare(components: Components, invoice: Invoice, evidence: ServerEvidence) -> InvoiceComparison:
    """Compare the ledger with the invoice, after all turns have ended."""
    entries = [entry async for entry in components.accounting.ledger.by_session(None)]
    calls = [entry for entry in entries if isinstance(entry, ModelCall)]
    lines = {line.generation_id: line for line in invoice.lines()}
    comparison = InvoiceComparison(calls=len(calls), lines=len(lines), invoiced=invoice.total())
    known = Counter(call.generation_id for call in calls if call.generation_id is not None)
    comparison.faults += [f"generation {name} is in {count} calls" for name, count in known.items() if count > 1]
    for call in calls:
        _check(call, comparison, billed={name: line.cost for name, line in lines.items()})
    missing = [line for name, line in lines.items() if name not in known]
    _match_unknown_lines(missing, calls, comparison, evidence)
    _check_numbers(entries, comparison)
    unmatched = sum((line.cost for line in missing), ZERO)
    if comparison.cost + unmatched + _unresolved_lines(comparison, lines) != comparison.invoiced:
        comparison.faults.append(
            f"the ledger has {comparison.cost}, the invoice {comparison.invoiced}, of it unmatched {unmatched}"
        )
    for tenant_id in {entry.tenant_id for entry in entries}:
        await components.usage.rollup_job.roll_up(tenant_id)
    await _settle_budgets(components, comparison)
    comparison.faults += [each async for each in differences(components)]
    if any("budget" in each for each in comparison.faults):  # what explains it: which calls were not reserved, and when
        documents = await components.database.collection("budgets").find({})
        comparison.faults += [*(f"not reserved: {each}" for each in calls if not each.budgeted), *map(str, documents)]
    return comparison


async def differences(components: Components) -> AsyncIterator[str]:
    """Yield the findings of `godoty ledger verify`."""
    database, usage = components.database, components.usage
    async for each in verify(
        database=database, ledger=components.accounting.ledger, totals_store=components.conversations.sessions
    ):
        if not await _is_search_fee(components, each.what):
            yield f"verify: {each.session_id}: {each.what}"
    async for each in verify_budgets(
        database=database, entries=components.budgets.entry_sums, budgets=components.budgets.store
    ):
        yield f"verify: {each.what}"
    async for each in verify_usage(
        database=database, entries=usage.entries, rollups=usage.rollups, rollup_job=usage.rollup_job
    ):
        yield f"verify: {each.what}"


async def _is_search_fee(components: Components, what: str) -> bool:
    """Return whether a call exceeds its bound by searches that its request did not contain; the bound excludes them."""
    named = re.search(r"\bcall_\w+", what) if _ABOVE_BOUND in what else None
    call = await components.accounting.ledger.find(named[0]) if named else None
    return call is not None and call.usage is not None and bool(call.usage.web_search_requests)


def spending_at(components: Components, ahead: timedelta) -> tuple[BudgetService, BudgetMaintenance]:
    """Return the budget services of a server with its clock `ahead` of the database's."""

    async def now() -> datetime:
        return await components.database.now() + ahead

    balance = OpeningBalanceJob(
        database=components.database,
        rollup_job=components.usage.rollup_job,
        rollups=components.usage.rollups,
        entries=components.budgets.entry_sums,
    )
    spending = BudgetService(
        budgets=components.budgets.store,
        balance=balance,
        adjustments=components.accounting.ledger.adjustments,
        budgets_of=components.tenancy.policies.budgets,
        now=now,
    )
    sweep = BudgetMaintenance(
        budget_service=spending,
        budgets=components.budgets.store,
        ledger=components.accounting.ledger,
        balance=balance,
        now=now,
        living=components.replicas.alive,
        owner=components.replicas.replica_id,
    )
    return spending, sweep


async def _settle_budgets(components: Components, comparison: InvoiceComparison) -> None:
    """Run the sweeps of the next minutes, so that verification skips no budget as still pending."""
    for minutes in (5, 10):  # the first may only set the time from which a tenant's calls are counted
        _, sweep = spending_at(components, timedelta(minutes=minutes))
        await sweep.run_once()
    async for tenant_id in components.budgets.store.tenants(None):
        if await components.budgets.store.tracked(tenant_id) is None:
            comparison.faults.append(f"the opening balance of the budgets of {tenant_id} is not final")


def unresolved_reason(call: ModelCall, evidence: ServerEvidence) -> str | None:
    """Return the reason why an unresolved call has no generation id; None if its server must have received one.

    A server writes an error into each call that it closes, so a call without one was open when its server was killed.
    The response header with the id precedes the first token.
    """
    if call.error is None and call.duration is None:
        return KILLED if call.owner in evidence.killed else None
    if call.time_to_first_token is not None:
        return None
    if call.error == "interrupted":
        ended = evidence.outcomes.get(call.turn_id)
        if ended is None and call.owner in evidence.killed:  # killed before it logged the outcome
            return CANCELLED
        return {"turn_cancelled": CANCELLED, "session_lost": LEASE_LOST}.get(ended or "")
    return CUT_OFF if call.error == "provider_unavailable" else None


def _check(call: ModelCall, comparison: InvoiceComparison, *, billed: dict[str, Decimal]) -> None:
    """Compare an entry with its invoice line."""
    line = billed.get(call.generation_id or "")
    match call.state:
        case CallState.SETTLED:
            comparison.settled += 1
            comparison.cost += call.cost or ZERO
            if call.cost != (line if line is not None else ZERO):
                comparison.faults.append(f"{call.call_id} is settled at {call.cost}, its line is {line}")
        case CallState.UNRESOLVED:
            comparison.unresolved.append(call)
            if line is not None and (call.upper_bound is None or line > call.upper_bound):
                comparison.faults.append(f"{call.call_id}: the bound {call.upper_bound} does not cover {line}")
        case CallState.VOID:
            if line is not None:
                comparison.faults.append(f"{call.call_id} is void but was billed {line}")
        case CallState.PENDING:
            comparison.faults.append(f"{call.call_id} is still open")


def _match_unknown_lines(
    missing: Sequence[Line], calls: Sequence[ModelCall], comparison: InvoiceComparison, evidence: ServerEvidence
) -> None:
    """Match each line with an id unknown to the ledger to an unresolved entry of its session with a sufficient bound.

    Calls that the provider cut off before its response are not billed.
    """
    bounds: dict[str, list[Decimal]] = defaultdict(list)
    for call in comparison.unresolved:
        reason = unresolved_reason(call, evidence) if call.generation_id is None else None
        comparison.reasons[reason or "?"] += 1
        if reason is None:
            facts = f"error {call.error}, duration {call.duration}, first token {call.time_to_first_token}"
            comparison.faults.append(f"unresolved, but its server received the id ({facts}): {call}")
        elif reason != CUT_OFF and call.upper_bound is not None:
            bounds[_session_marker(call)].append(call.upper_bound)
    for line in sorted(missing, key=lambda each: each.cost, reverse=True):
        free = bounds[line.session or ""]
        fitting = sorted(bound for bound in free if bound >= _cost_within_bound(line))
        if not fitting:
            own = [each for each in calls if _session_marker(each) == line.session]
            comparison.faults.append(f"{line} has no entry; its session has {own}")
        else:
            free.remove(fitting[-1])


def _cost_within_bound(line: Line) -> Decimal:
    """Return a line's cost without the fees of searches that its request did not contain; the bound excludes them."""
    if "server_tool_use_details" not in line.usage:
        return line.cost
    details = line.usage["cost_details"]
    tokens: Decimal = details["upstream_inference_prompt_cost"] + details["upstream_inference_completions_cost"]
    return tokens


def _check_numbers(entries: list[Entry], comparison: InvoiceComparison) -> None:
    positions = Counter((entry.session_uid, entry.number) for entry in entries)
    comparison.faults += [
        f"number {position} is in {count} entries" for position, count in positions.items() if count > 1
    ]


def _unresolved_lines(comparison: InvoiceComparison, lines: Mapping[str, Line]) -> Decimal:
    known = (lines.get(call.generation_id or "") for call in comparison.unresolved)
    return sum((line.cost for line in known if line is not None), ZERO)


def _session_marker(call: ModelCall) -> str:
    from godoty_service.turns.agents.models import pseudonym  # noqa: PLC0415 - Strands takes a second to import

    return pseudonym(call.tenant_id, call.session_uid)
