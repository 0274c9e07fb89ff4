"""Verification of adjustments: each fault is reported, and correct entries pass."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from godoty_service.ledger.adjustment_verification import amount_faults, correction_faults
from godoty_service.ledger.entries import Adjustment, CostSource, Entry, ModelCall
from godoty_service.ledger.states import CallState

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
CALL = ModelCall(
    call_id="call",
    tenant_id="tnt",
    session_uid="ses",
    session_id="talk",
    turn_id="turn",
    number=1,
    state=CallState.SETTLED,
    cost=Decimal("0.5"),
    cost_source=CostSource.BILLED,
    requested_model="a/b",
    upper_bound=Decimal(1),
    provider_key_id="key",
    start_time=NOON,
    agent="assistant",
    owner="server",
)
OPEN = replace(CALL, state=CallState.PENDING, cost=None, cost_source=None)
UNRESOLVED = replace(OPEN, state=CallState.UNRESOLVED)
MORE = Adjustment(
    entry_id="adj",
    tenant_id="tnt",
    session_uid="ses",
    session_id="talk",
    turn_id="turn",
    number=2,
    corrects="call",
    cost=Decimal("0.25"),
    model="a/b",
    time=NOON,
    why="x",
    by="ann",
)
RESOLUTION = replace(MORE, entry_id="adj_call", resolves=True, bound=Decimal(1))
LATER = replace(MORE, number=3, cost=Decimal("-0.25"))
FINE = Decimal("1E-26")


def _found(*entries: Entry) -> list[str]:
    return [*correction_faults(entries), *amount_faults(entries)]


@pytest.mark.parametrize(
    "entries",
    [(CALL,), (CALL, MORE), (CALL, replace(MORE, cost=Decimal("-0.5"))), (UNRESOLVED, RESOLUTION, LATER)],
)
def test_correct_adjustments_pass(entries: tuple[Entry, ...]) -> None:
    """Upwards, down to zero, and of a call that was resolved before."""
    assert _found(*entries) == []


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        (
            (CALL, replace(MORE, corrects="other")),
            "adjustment adj corrects call other, which is not in its session",
        ),
        ((OPEN, MORE), "adjustment adj corrects call call, which is pending"),
        ((UNRESOLVED, MORE), "adjustment adj corrects call call, which was not resolved before"),
        ((CALL, RESOLUTION), "adjustment adj_call resolves a call that is not unresolved"),
        ((UNRESOLVED, replace(RESOLUTION, bound=None)), "adjustment adj_call subtracts another bound"),
        ((UNRESOLVED, RESOLUTION, replace(RESOLUTION, number=3)), "call call is resolved twice"),
        ((CALL, replace(MORE, cost=Decimal("-0.75"))), "call call: its total is -0.25, below zero"),
        ((CALL, replace(MORE, cost=Decimal("-0.75"))), "the session's total is -0.25, below zero"),
        ((CALL, replace(MORE, cost=Decimal(10**6))), "call call: its total is 1000000.5, more than any call can cost"),
        ((CALL, replace(MORE, cost=FINE)), "adjustment adj has an amount that is not at most"),
        ((replace(CALL, cost=FINE),), "call call has an amount that is not at most"),
        ((replace(CALL, upper_bound=FINE),), "call call has an amount that is not at most"),
        ((CALL, replace(MORE, cost=Decimal("1E-40"))), "call call: its adjustments cannot be summed exactly"),
    ],
)
def test_fault_is_reported(entries: tuple[Entry, ...], named: str) -> None:
    """Each fault with the adjustment or the call, and the amount if there is one."""
    assert [each for each in _found(*entries) if each.startswith(named)] != []
