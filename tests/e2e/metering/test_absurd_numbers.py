"""A provider reports impossible numbers: the possible part of the bill counts, and no other call is held up."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import grpc
import pytest

from godoty_service.ledger.entries import CostSource
from godoty_service.ledger.states import CallState
from godoty_service.metering.reconciler import Outcome
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.turns.finalizer import TurnFinalizer
from tests.e2e.metering.conftest import NEVER, StartCaller, StartHarness
from tests.e2e.metering.reconciler_harness import billed, calls, cancelled, closed
from tests.support.caller import Caller
from tests.support.history import assert_valid_history
from tests.support.service import format_amount

FREE = "z-ai/glm-5.2:free"  # its tokens cost nothing, however many there are
ABSURD = 10**20


async def test_impossible_counter_is_unknown(caller: Caller) -> None:
    """1E20 prompt tokens at 0.01 USD: the bill counts, the counter does not, and the session goes on."""
    turn = await caller.converse(f"@sandbox plain prompt_tokens={ABSURD} fee=0.01", model=FREE)

    (call,) = turn.calls
    assert (call.cost_usd, turn.finished.session_totals.cost_usd) == ("0.01", "0.01")
    assert not call.usage.HasField("input_tokens")
    assert call.usage.output_tokens == 12
    (entry,) = caller.service.entries("talk")
    assert (entry.state, entry.cost_source, entry.cost) == (CallState.SETTLED, CostSource.BILLED, Decimal("0.01"))
    again = await caller.converse("hello", model=FREE)
    assert again.started.totals == turn.finished.session_totals
    assert (await caller.metrics()).totals.cost_usd == "0.01"


async def test_impossible_cost_is_unknown(start_caller: StartCaller) -> None:
    """1E30 USD in the stream and in the record fits no sum: the catalogue prices the call."""
    caller = await start_caller(record_patience=0.1)
    await caller.converse("hello")

    turn = await caller.converse("@sandbox plain fee=1e30 record_ms=0", model=FREE)

    (call,) = turn.calls
    assert not call.HasField("cost_usd")
    assert turn.finished.session_totals.pending_calls == 1
    entry = await closed(caller)
    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.CATALOGUE)
    assert billed(caller, entry) == 10**30
    assert entry.cost == 0
    after = await caller.converse("and on", model="openai/gpt-4o-mini")
    first, _, third = caller.service.entries("talk")
    assert after.finished.session_totals.cost_usd == format_amount(billed(caller, first) + billed(caller, third))


async def test_unwritable_call_does_not_hold_up_the_others(
    start_caller: StartCaller, start_harness: StartHarness
) -> None:
    """A call that the database rejects stays in memory; the others are settled."""
    caller = await start_caller(reconcile_interval=NEVER)
    entry = await cancelled(caller, "@sandbox slow tokens=300 first_delay_ms=0 delay_ms=10 record_ms=0")
    harness = await start_harness(caller.service)
    harness.ledger.retain(replace(entry, call_id="call_odd", usage=TokenUsage(input_tokens=ABSURD)))

    assert (await harness.reconciler.tick())[Outcome.SETTLED] == 1

    assert calls(caller)[0].cost == billed(caller, entry)
    assert [each.call_id for each in harness.ledger.unwritten] == ["call_odd"]


@pytest.mark.parametrize("step", ["write", "_missing"])
async def test_turn_with_a_fault_at_its_end_releases_its_session(
    start_caller: StartCaller, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The fault is the server's own: INTERNAL, the call is billed, and the next turn finds it all."""
    caller = await start_caller()
    await caller.converse("hello")

    with monkeypatch.context() as broken:
        broken.setattr(TurnFinalizer, step, _fail)
        turn = await caller.converse("@sandbox plain tokens=12")
    assert turn.text
    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert turn.failure.metadata["request_id"] == turn.responses[0].turn_id
    assert f"report request id {turn.responses[0].turn_id}:" in turn.failure.text
    after = await caller.converse("and on")

    assert after.finished.session_totals.cost_usd == format_amount(caller.service.invoiced("talk"))
    assert [each.state for each in calls(caller)] == [CallState.SETTLED] * 3
    assert_valid_history(await caller.messages())


def _fail(*_: Any) -> Any:
    raise ZeroDivisionError
