"""Documents of a later build: fields, counters, states and events that this build does not know are ignored."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from bson.decimal128 import Decimal128

from godoty_service.ledger.codec import call_from_document, entry_to_document
from godoty_service.ledger.entries import CostSource, ModelCall
from godoty_service.ledger.session_totals import totals_from_document, totals_to_document
from godoty_service.ledger.states import CallState
from godoty_service.ledger.totals import Totals
from godoty_service.pricing.token_usage import TokenUsage
from godoty_service.pricing.unit_prices import PriceEvidence, UnitPrices
from godoty_service.sessions.codec import lease_from_document
from godoty_service.sessions.session import Lease
from godoty_service.turns.event_log.codec import event_from_document, event_to_document
from godoty_service.turns.event_log.events import StopReason, TextDelta, ToolSummary, TurnFinished
from godoty_service.usage.day_series import series_charges, series_from_document, series_to_document
from godoty_service.usage.pipeline import read_totals
from godoty_service.usage.rollup_keys import Sum

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
USAGE = TokenUsage(input_tokens=3, output_tokens=4)


def settled() -> ModelCall:
    """Return a settled call."""
    return ModelCall(
        call_id="call",
        tenant_id="tenant",
        session_uid="ses",
        session_id="talk",
        turn_id="turn",
        number=1,
        state=CallState.SETTLED,
        cost=Decimal("0.1"),
        cost_source=CostSource.BILLED,
        usage=USAGE,
        evidence=PriceEvidence(prices=UnitPrices(prompt=Decimal(1)), catalogue_hash="hash", catalogue_time=NOON),
        requested_model="a/b",
        provider_key_id="key",
        start_time=NOON,
        agent="assistant",
        owner="server",
    )


def test_unknown_fields_of_an_entry_are_ignored() -> None:
    """A field of the entry, a counter and a field of the price evidence leave what is known as it is."""
    document = entry_to_document(settled())
    document["tier"] = "flex"
    document["usage"]["thought_tokens"] = 7
    document["evidence"]["tier_hash"] = "x"
    document["evidence"]["prices"]["thought"] = "0.1"

    assert call_from_document(document) == settled()


def test_entry_of_an_unknown_state_is_unresolved() -> None:
    """Its cost is not known to be final: its bound counts, and it has no cost."""
    document = entry_to_document(settled()) | {"state": "disputed"}

    call = call_from_document(document)

    assert (call.state, call.cost, call.cost_source) == (CallState.UNRESOLVED, None, None)


def test_unknown_source_of_a_cost_is_none() -> None:
    """The cost counts."""
    call = call_from_document(entry_to_document(settled()) | {"cost_source": "agreed"})

    assert (call.state, call.cost, call.cost_source) == (CallState.SETTLED, Decimal("0.1"), None)


def test_unknown_purpose_of_a_call_is_none() -> None:
    """So is that of an entry of an earlier build, which stored none, nor an API key."""
    later = call_from_document(entry_to_document(settled()) | {"purpose": "embedding"})
    earlier = call_from_document(entry_to_document(settled()))

    assert later.purpose is None
    assert (earlier.purpose, earlier.api_key_id) == (None, None)


def test_unknown_counters_of_sums_are_ignored() -> None:
    """Totals and a day series read the counters, amounts and counts that they know."""
    totals = Totals(cost=Decimal("0.5"), usage=USAGE, model_calls=2, turns=1)
    stored = totals_to_document(totals)
    stored["usage"]["thought_tokens"] = 7
    series = series_to_document(NOON, {NOON: Sum(totals=totals, last_change=NOON)})
    for kind, column in (("amounts", ["0.25"]), ("counts", [3]), ("usage", [7])):
        series[kind]["later"] = column

    assert totals_from_document(stored) == totals
    assert series_from_document(NOON, series)[NOON].totals == totals
    charges = series_charges(series, NOON, 96, day_of=lambda time: f"{time:%Y-%m-%d}")
    assert charges == {f"{NOON:%Y-%m-%d}": Decimal("0.5")}


def test_unknown_counter_of_a_group_is_ignored() -> None:
    """A group summed by the database names its counters; one of a later build is left out."""
    counts = {"model_calls": 1, "turns": 1, "pending_calls": 0, "unresolved_calls": 0, "unbounded_calls": 0}
    amounts = {"cost": "0.5", "unresolved_bound": "0"}
    group = {**counts, **amounts, "reported": {"input_tokens": 1, "thought_tokens": 7}, "input_tokens": 3}

    assert read_totals(group).usage == TokenUsage(input_tokens=3)


def test_unknown_fields_of_a_lease_are_ignored() -> None:
    """Also in the leases that it was taken over from."""
    before = {"turn_id": "t1", "replica_id": "", "text": "hi", "zone": "a"}
    document = {"turn_id": "t2", "replica_id": "r", "text": "ho", "zone": "b", "predecessors": [before]}

    assert lease_from_document(document) == Lease(
        turn_id="t2", replica_id="r", text="ho", predecessors=(Lease(turn_id="t1", replica_id="", text="hi"),)
    )


@pytest.mark.parametrize(
    "document",
    [{"citation": [1]}, {"budget": ["week", 50, Decimal128("1"), Decimal128("2")]}],
    ids=["event", "budget window"],
)
def test_unknown_event_keeps_its_place(document: object) -> None:
    """It is read as an empty text, so that the sequence of those after it stays."""
    assert event_from_document(document) == TextDelta("")


def test_unknown_stop_reason_and_columns_end_a_turn() -> None:
    """A turn that ended for a reason of a later build has ended; more columns of a tool's row are ignored."""
    tool = ToolSummary(name="clock", calls=1, errors=0, duration=timedelta(0))
    event = TurnFinished(
        stop_reason=StopReason.END_TURN,
        turn_totals=Totals(),
        session_totals=Totals(),
        cycle_durations=(),
        tools=(tool,),
    )
    document = event_to_document(event)
    document["finished"] |= {"stop": "later_reason", "later": []}
    document["finished"]["tools"][0].append("later")

    assert event_from_document(document) == event
