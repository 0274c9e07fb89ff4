"""Events have ids that follow from what they report, and bodies without any text of a message."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from godoty_service.ledger.totals import Totals
from godoty_service.turns.event_log.outbox import EndedTurn
from godoty_service.webhooks.outbox.reports import turn_events

TIME = datetime(2026, 11, 29, 20, 15, 0, 120_000, tzinfo=UTC)
TURN = EndedTurn(
    turn_id="turn_1",
    tenant_id="tnt_1",
    session_id="first",
    agent="support",
    agent_version=3,
    user_reference="user_1",
    time=TIME,
    stop_reason="end_turn",
)


def test_same_turn_has_the_same_event() -> None:
    """Whichever server derives it, with totals as they are known then."""
    (first,) = turn_events(TURN, Totals())
    (second,) = turn_events(replace(TURN, session_totals=Totals()), Totals(cost=Decimal(1)))
    (other,) = turn_events(replace(TURN, turn_id="turn_2"), Totals())

    assert first.event_id == second.event_id != other.event_id


def test_turn_that_waits_for_actions_has_two_events_in_order() -> None:
    """Its end, which those get who count turns, and that it waits."""
    ended, waits = turn_events(replace(TURN, stop_reason="action_required"), Totals())

    assert [ended.event_type, waits.event_type] == ["turn.finished", "turn.action_required"]
    assert ended.order < waits.order
    assert json.loads(waits.body)["data"]["stop_reason"] == "ACTION_REQUIRED"


def test_body_has_exact_amounts_and_no_user() -> None:
    """Amounts are texts; what is unknown is null."""
    totals = Totals(cost=Decimal("0.00000000000000000001"), unresolved_calls=1, unbounded_calls=1)
    (event,) = turn_events(TURN, totals)
    body = json.loads(event.body)

    assert (body["id"], body["timestamp"]) == (event.event_id, "2026-11-29T20:15:00.120Z")
    assert body["data"]["turn_totals"]["cost_usd"] == "0.00000000000000000001"
    assert body["data"]["turn_totals"]["unresolved_bound_usd"] is None
    assert body["data"]["session_totals"] is None
    assert "user_1" not in event.body
