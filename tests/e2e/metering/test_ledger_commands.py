"""`godoty ledger`: open calls are settled, calls without a record are resolved, and the sums are compared."""

import asyncio
import getpass
import json
import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from godoty_service.ledger.entries import CostSource, ModelCall
from godoty_service.ledger.states import CallState
from tests.conftest import StartProcess
from tests.e2e.metering.conftest import NEVER, Godoty, StartCaller, StartHarness
from tests.e2e.metering.reconciler_harness import ReconcilerHarness, billed, calls, cancelled, serve_record
from tests.support.caller import Caller
from tests.support.leases import SHORT_LEASE_ENVIRONMENT, SURVIVOR
from tests.support.service import Document, Service, format_amount, soon
from tests.support.waiting import identified

SLOW = "@sandbox slow tokens=30 first_delay_ms=0 delay_ms=10"


async def _given_up(caller: Caller, harness: ReconcilerHarness) -> ModelCall:
    entry = await cancelled(caller, f"{SLOW} record_ms=-1")
    harness.ahead = timedelta(hours=2)
    await harness.reconciler.tick()
    return next(each for each in calls(caller) if each.call_id == entry.call_id)


def _recorded(caller: Caller) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the tenant's ListAdminChanges: who, what, and the details."""
    found = caller.service.database["admin_changes"].find({"tenant_id": caller.service.tenant_id})
    return [(each["by"], each["action"], json.loads(each["details"])) for each in found]


def _adjustments(caller: Caller) -> list[Document]:
    return list(caller.service.database["ledger"].find({"kind": "adjustment"}))


async def test_reconcile_settles_open_calls(start_caller: StartCaller, godoty: Godoty) -> None:
    """A call with a record is settled; one without stays open, and the exit status shows it."""
    caller = await start_caller(reconcile_interval=NEVER)
    first = await cancelled(caller, f"{SLOW} record_ms=0")
    second = await cancelled(caller, f"{SLOW} record_ms=-1")

    result = await godoty(caller.service, "ledger", "reconcile")

    assert (result.status, result.out) == (1, "settled 1, unresolved 0; still pending 1, unresolved in all 0\n")
    settled, pending = calls(caller)
    assert (settled.cost, settled.cost_source) == (billed(caller, first), CostSource.RECONCILED)
    assert (pending.call_id, pending.state) == (second.call_id, CallState.PENDING)
    totals = (await caller.metrics()).totals
    assert (totals.cost_usd, totals.pending_calls) == (format_amount(billed(caller, first)), 1)


async def test_reconcile_waits_for_records(start_caller: StartCaller, godoty: Godoty) -> None:
    """With `--wait` it retries until the record is there, and then ends at once."""
    caller = await start_caller(reconcile_interval=NEVER)
    entry = await cancelled(caller, f"{SLOW} record_ms=-1")

    command = asyncio.create_task(godoty(caller.service, "ledger", "reconcile", "--wait", "600"))
    await soon(lambda: caller.service.entry_documents("talk")[0].get("tries", 0) > 1)
    assert not command.done()
    await serve_record(caller, entry)
    result = await command

    assert (result.status, result.out) == (0, "settled 1, unresolved 0; still pending 0, unresolved in all 0\n")
    assert calls(caller)[0].cost == billed(caller, entry)


async def test_reconcile_closes_calls_after_the_timeout(start_caller: StartCaller, godoty: Godoty) -> None:
    """The unresolved ones are counted, and are no longer open."""
    caller = await start_caller(reconcile_interval=NEVER)
    await cancelled(caller, f"{SLOW} record_ms=-1")

    result = await godoty(caller.service, "ledger", "reconcile", "--wait", "20", GODOTY_RECORD_PATIENCE="1")

    assert (result.status, result.out) == (0, "settled 0, unresolved 1; still pending 0, unresolved in all 1\n")


async def test_reconcile_waits_until_a_dead_server_counts_as_dead(
    serve_process: StartProcess, connect: Callable[[Service], Caller], godoty: Godoty
) -> None:
    """When its lease has expired, its calls are orphaned: with `--wait` the same command settles them."""
    process, service = await serve_process(**SHORT_LEASE_ENVIRONMENT)
    async for response in connect(service).start("@sandbox slow tokens=200 first_delay_ms=0 delay_ms=100 record_ms=0"):
        if response.HasField("text_delta"):
            break
    await identified(service)
    await process.kill()
    result = await godoty(service, "ledger", "reconcile", "--wait", "30", **SHORT_LEASE_ENVIRONMENT)

    assert (result.status, result.out) == (0, "settled 1, unresolved 0; still pending 0, unresolved in all 0\n")


async def test_reconcile_does_not_wait_for_a_live_server(start_caller: StartCaller, godoty: Godoty) -> None:
    """Its open call is its own: it is still open when the command ends, before the turn does."""
    caller = await start_caller(reconcile_interval=NEVER, **SURVIVOR)
    call = caller.start("@sandbox plain tokens=5 hold_after=2 hold=alive", timeout=None)
    async for response in call:
        if response.HasField("text_delta"):
            break
    # A command that waits for it outlasts the time that `godoty` gives it.
    result = await godoty(caller.service, "ledger", "reconcile", "--wait", "600", **SHORT_LEASE_ENVIRONMENT)
    call.cancel()

    assert (result.status, result.out) == (1, "settled 0, unresolved 0; still pending 1, unresolved in all 0\n")


async def test_resolve_settles_a_call_once_with_attribution(
    start_caller: StartCaller, start_harness: StartHarness, godoty: Godoty
) -> None:
    """The amount, the reason and the person are in a new entry; a second try is rejected and changes nothing."""
    caller = await start_caller(reconcile_interval=NEVER)
    call = await _given_up(caller, await start_harness(caller.service))
    cost = format_amount(billed(caller, call))
    arguments = ("ledger", "resolve", call.call_id, "--cost", cost, "--why", "the provider's invoice")

    result = await godoty(caller.service, *arguments, "--by", "ann")
    again = await godoty(caller.service, *arguments)

    assert (result.status, result.out) == (0, f"adj_{call.call_id}: {cost} USD, entry 2 of its session\n")
    assert (again.status, again.out, again.err) == (1, "", "godoty: the call was resolved before\n")
    (stored,) = _adjustments(caller)
    assert (stored["corrects"], stored["cost"].to_decimal()) == (call.call_id, Decimal(cost))
    assert (stored["why"], stored["by"], stored["resolves"]) == ("the provider's invoice", "ann", True)
    details = {"call_id": call.call_id, "cost_usd": cost, "why": "the provider's invoice", "by": "ann"}
    assert _recorded(caller) == [(getpass.getuser(), "ResolveCall", details)]
    totals = (await caller.metrics()).totals
    assert (totals.cost_usd, totals.unresolved_calls, totals.unresolved_bound_usd) == (cost, 0, "0")
    verified = await godoty(caller.service, "ledger", "verify")
    assert (verified.status, verified.out) == (0, "1 sessions, 2 entries, 0 differences\n")


async def test_resolve_is_attributed_to_the_user(
    start_caller: StartCaller, start_harness: StartHarness, godoty: Godoty
) -> None:
    """Without `--by` it is the user of the machine; 0 is a cost like any other."""
    caller = await start_caller(reconcile_interval=NEVER)
    call = await _given_up(caller, await start_harness(caller.service))

    result = await godoty(caller.service, "ledger", "resolve", call.call_id, "--cost", "0", "--why", "not billed")

    assert result.status == 0, result.err
    (stored,) = _adjustments(caller)
    assert (stored["by"], stored["cost"].to_decimal()) == (getpass.getuser(), Decimal(0))


async def test_resolve_rejects_what_it_cannot_settle(
    start_caller: StartCaller, start_harness: StartHarness, godoty: Godoty
) -> None:
    """A pending call, an unknown one, and a malformed amount: one line each, and no entry."""
    caller = await start_caller(reconcile_interval=NEVER)
    call = await _given_up(caller, await start_harness(caller.service))
    pending = await cancelled(caller, f"{SLOW} record_ms=-1")
    refusals = {
        (pending.call_id, "1"): "godoty: the call is pending, not unresolved\n",
        ("call_none", "1"): "godoty: there is no call call_none\n",
        (call.call_id, "NaN"): (
            "godoty: not an amount: 'NaN'; write a plain decimal such as 0.0125, "
            "at most 1,000,000 USD and at most 25 decimals\n"
        ),
        (call.call_id, "-1"): "godoty: --cost must not be negative\n",
    }

    result = await asyncio.gather(
        *(
            godoty(caller.service, "ledger", "resolve", name, "--why", "because", f"--cost={cost}")
            for name, cost in refusals
        )
    )

    assert [(each.status, each.out, each.err) for each in result] == [(1, "", text) for text in refusals.values()]
    assert _adjustments(caller) == []
    assert _recorded(caller) == []


async def test_compare_shows_the_difference_to_the_provider(
    start_caller: StartCaller, start_harness: StartHarness, godoty: Godoty
) -> None:
    """Usage of the key that the ledger lacks is printed, with exit status 1, until all of it is resolved."""
    key: dict[str, Any] = {"OPENROUTER_API_KEY": "sandbox-compare"}
    caller = await start_caller(reconcile_interval=NEVER, **key)
    harness = await start_harness(caller.service, **key)
    await caller.converse("@sandbox tool-loop calls=3")
    call = await _given_up(caller, harness)
    harness.ahead = timedelta()
    await cancelled(caller, f"{SLOW} record_ms=0")
    settled = sum((each.cost or Decimal(0) for each in calls(caller)), Decimal(0))
    used = caller.service.invoiced("talk")

    before = await godoty(caller.service, "ledger", "compare", **key)
    await harness.reconciler.tick()
    await harness.adjustments.resolve(call, cost=billed(caller, call), why="the invoice", by="ann")
    after = await godoty(caller.service, "ledger", "compare", **key)

    assert _compared(before.out) == (format_amount(settled), 1, 1, format_amount(used), format_amount(used - settled))
    assert _compared(after.out) == (format_amount(used), 0, 0, format_amount(used), "0")
    assert (before.status, after.status) == (1, 0)


def _compared(out: str) -> tuple[str, int, int, str, str]:
    found = re.fullmatch(
        r"ledger    (\S+) USD settled; (\d+) calls pending, (\d+) unresolved\n"
        r"provider  (\S+) USD\n"
        r"excess    (\S+) USD of the provider over the ledger\n",
        out,
    )
    assert found, out
    ledger, pending, unresolved, provider, beyond = found.groups()
    return ledger, int(pending), int(unresolved), provider, beyond


async def test_adjust_corrects_a_call_with_attribution(
    start_caller: StartCaller, start_harness: StartHarness, godoty: Godoty
) -> None:
    """A wrong resolution is corrected, then lowered; `compare` and `verify` agree, and each change is recorded."""
    key: dict[str, Any] = {"OPENROUTER_API_KEY": "sandbox-adjust"}
    caller = await start_caller(reconcile_interval=NEVER, **key)
    harness = await start_harness(caller.service, **key)
    call = await _given_up(caller, harness)
    await harness.adjustments.resolve(call, cost=Decimal("0.009"), why="a slip", by="ann")
    cost, arguments = (
        format_amount(billed(caller, call)),
        ("ledger", "adjust", call.call_id, "--by", "bob", "--why", "invoice"),
    )

    result = await godoty(caller.service, *arguments, "--cost", cost, "--request-id", "one")
    again = await godoty(caller.service, *arguments, "--cost", cost, "--request-id", "one")
    compared = await godoty(caller.service, "ledger", "compare", **key)
    lowered = await godoty(caller.service, *arguments, "--add", "-0.000001", "--request-id", "two")
    verified = await godoty(caller.service, "ledger", "verify")

    assert result.status == 0, result.err
    assert result.out.endswith(f"entry 3 of its session; the call costs {cost} USD\n")
    assert (again.status, again.out) == (0, result.out)
    assert _compared(compared.out) == (cost, 0, 0, cost, "0")
    after = format_amount(Decimal(cost) - Decimal("0.000001"))
    assert lowered.out.endswith(f"entry 4 of its session; the call costs {after} USD\n"), lowered.err
    assert (verified.status, verified.out) == (0, "1 sessions, 4 entries, 0 differences\n")
    assert [each["by"] for each in _adjustments(caller)] == ["ann", "bob", "bob"]
    recorded = [(by, action, details["request_id"], details["by"]) for by, action, details in _recorded(caller)]
    assert recorded == [(getpass.getuser(), "AdjustCall", name, "bob") for name in ("two", "one")]


async def test_adjust_rejects_in_one_line(
    start_caller: StartCaller, start_harness: StartHarness, godoty: Godoty
) -> None:
    """Neither or both amounts, an unresolved call, an unknown one, a used request id: one line, no entry."""
    caller = await start_caller(reconcile_interval=NEVER)
    call = await _given_up(caller, await start_harness(caller.service))
    refusals = {
        (call.call_id, "--cost", "1", "--add", "1"): "set either --cost or --add",
        (call.call_id,): "set either --cost or --add",
        (call.call_id, "--add", "0.001"): "resolve it first, with `godoty ledger resolve`",
        ("call_none", "--cost", "1"): "there is no call call_none",
        (call.call_id, "--cost", "1e3"): "cost_usd: not an amount: '1e3'",
    }

    result = await asyncio.gather(
        *(
            godoty(caller.service, "ledger", "adjust", *each, "--by", "ann", "--why", "x", "--request-id", "r")
            for each in refusals
        )
    )

    for each, text in zip(result, refusals.values(), strict=True):
        assert (each.status, each.out) == (1, "")
        assert text in each.err
        assert len(each.err.splitlines()) == 1
    assert _adjustments(caller) == []
    assert _recorded(caller) == []


async def test_resolve_bounds_the_reason_and_the_name(
    start_caller: StartCaller, start_harness: StartHarness, godoty: Godoty
) -> None:
    """A blank reason, one of two lines, and a name of a thousand characters: one line each, no entry, no record."""
    caller = await start_caller(reconcile_interval=NEVER)
    call = await _given_up(caller, await start_harness(caller.service))
    refusals = {
        ("--why", " "): "--why must have 1 to 1000 printable characters",
        ("--why", "one\ntwo"): "--why must have 1 to 1000 printable characters",
        ("--why", "x", "--by", "y" * 1000): "--by must have 1 to 200 printable characters",
    }

    result = await asyncio.gather(
        *(godoty(caller.service, "ledger", "resolve", call.call_id, "--cost", "0", *each) for each in refusals)
    )

    assert [(each.status, each.err) for each in result] == [(1, f"godoty: {text}\n") for text in refusals.values()]
    assert _adjustments(caller) == []
    assert _recorded(caller) == []
