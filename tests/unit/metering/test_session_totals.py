"""Session totals: applying entries in any pieces and at any time gives the same sums."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from godoty_service.ledger.codec import entry_from_document, entry_to_document
from godoty_service.ledger.entries import Adjustment, CostSource, Entry, ModelCall
from godoty_service.ledger.session_totals import session_totals_from_document, session_totals_to_document
from godoty_service.ledger.states import CURRENT_RULE, CallState
from godoty_service.ledger.totals import (
    COUNTS,
    NEWEST_RUNS,
    NEWEST_TIMINGS,
    SessionTotals,
    Totals,
    totals_of_entries,
)
from godoty_service.pricing.token_usage import COUNTERS, TokenUsage

NOON = datetime(2026, 8, 22, 12, tzinfo=UTC)
MONEY = st.decimals(0, 10, places=12)
COUNT = st.none() | st.integers(0, 1000)
INTEGER = st.integers(-1000, 1000)
TOTALS = st.builds(
    Totals,
    cost=MONEY,
    usage=st.builds(TokenUsage, **dict.fromkeys(COUNTERS, COUNT)),
    unresolved_bound=MONEY,
    **dict.fromkeys(COUNTS, INTEGER),
)


def call(number: int, **changes: Any) -> ModelCall:
    """Return a pending call of a turn of its own."""
    made = ModelCall(
        call_id=f"call{number}",
        tenant_id="tenant",
        session_uid="ses",
        session_id="talk",
        turn_id=f"turn{number}",
        number=number,
        state=CallState.PENDING,
        requested_model="a/b",
        provider_key_id="key",
        start_time=NOON + timedelta(seconds=number),
        agent="assistant",
        owner="server",
    )
    return replace(made, **changes)


def settled(number: int, cost: str = "0.1", **changes: Any) -> ModelCall:
    """Return a settled call."""
    known = {"state": CallState.SETTLED, "cost": Decimal(cost), "cost_source": CostSource.BILLED}
    return call(number, **{**known, "duration": timedelta(milliseconds=number), **changes})


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    """Return a session's entries: turns of some calls in all final states, and adjustments of the unresolved ones."""
    made: list[Entry] = []
    for turn in range(draw(st.integers(0, 4))):
        rule = draw(st.sampled_from([1, CURRENT_RULE]))
        for _ in range(draw(st.integers(1, 3))):
            made.append(draw(_final(len(made) + 1, f"turn{turn}", rule)))
    for unresolved in [each for each in made if isinstance(each, ModelCall) and each.state is CallState.UNRESOLVED]:
        if draw(st.booleans()):
            made.append(_resolved(unresolved, number=len(made) + 1, cost=draw(MONEY)))
    return made


@st.composite
def _final(draw: st.DrawFn, number: int, turn_id: str, rule: int) -> ModelCall:
    model = draw(st.sampled_from(["a/b", "c/d"]))
    known = {
        "turn_id": turn_id,
        "rule": rule,
        "requested_model": model,
        "served_model": draw(st.sampled_from([None, "c/d"])),
        "agent": draw(st.sampled_from(["assistant", "clerk"])),
        "upper_bound": draw(st.none() | MONEY),
    }
    state = draw(st.sampled_from([CallState.SETTLED, CallState.SETTLED, CallState.UNRESOLVED, CallState.VOID]))
    usage = draw(st.none() | st.builds(TokenUsage, input_tokens=COUNT, output_tokens=COUNT, reasoning_tokens=COUNT))
    if state is not CallState.SETTLED:
        return call(number, state=state, usage=usage, **known)
    return settled(number, cost=str(draw(MONEY)), usage=usage, **known)


def _resolved(unresolved: ModelCall, *, number: int, cost: Decimal) -> Adjustment:
    return Adjustment(
        entry_id=f"adj{number}",
        tenant_id="tenant",
        session_uid="ses",
        session_id="talk",
        turn_id=unresolved.turn_id,
        number=number,
        corrects=unresolved.call_id,
        cost=cost,
        usage=TokenUsage(input_tokens=1),
        resolves=True,
        bound=unresolved.upper_bound,
        model=unresolved.model,
        agent=unresolved.agent,
        time=NOON + timedelta(days=1),
        why="a test",
        by="ann",
    )


def opened(entry: Entry) -> Entry:
    """Return an entry as it was before it closed."""
    if isinstance(entry, Adjustment):
        return entry
    changes: dict[str, Any] = {"cost": None, "cost_source": None, "usage": None, "served_model": None, "duration": None}
    return replace(entry, state=CallState.PENDING, **changes)


@given(made=entries(), cuts=st.lists(st.integers(0, 20), max_size=4))
def test_totals_are_the_same_in_any_pieces(made: list[Entry], cuts: list[int]) -> None:
    """Applied at once or piece by piece, through documents in between, and repeated: equal totals."""
    places = sorted({0, len(made), *(cut for cut in cuts if cut < len(made))})
    whole, pieced = SessionTotals().apply(made), SessionTotals()
    for start, end in pairwise(places):
        pieced = session_totals_from_document(session_totals_to_document(pieced.apply(made[start:end])))
        assert pieced.apply(made[:end]) == pieced

    assert pieced == whole
    assert whole.last_number == len(made)
    assert whole.apply(made) == whole


@settings(max_examples=40, deadline=None)
@given(made=entries(), order=st.randoms(use_true_random=False), data=st.data())
def test_calls_that_close_later_give_the_same_totals(made: list[Entry], order: Any, data: st.DataObject) -> None:
    """Calls that were open when they were applied, and close in any order, give the totals of applying them closed."""
    corrected = {each.corrects for each in made if isinstance(each, Adjustment)}  # final before they were corrected
    calls = [each for each in made if isinstance(each, ModelCall) and each.call_id not in corrected]
    late = [each for each in calls if data.draw(st.booleans())]
    totals = SessionTotals().apply([opened(each) if each in late else each for each in made])
    assert totals.open == tuple(each.number for each in late)
    assert totals.current().pending_calls == len(late)
    order.shuffle(late)
    for each in late:
        totals = session_totals_from_document(session_totals_to_document(totals.apply([each])))

    whole = SessionTotals().apply(made)
    assert totals.open == ()
    assert totals.current() == whole.current()
    assert dict(totals.by_model) == dict(whole.by_model)
    assert reduce(add, (each for _, each in totals.by_agent), Totals()) == totals.totals
    assert _without_turns(totals) == _without_turns(whole)
    assert set(totals.runs) == set(whole.runs)


def _without_turns(totals: SessionTotals) -> dict[str, Totals]:
    """Return the sums of the agents that have any, but for turns: those are of the agent that was known first."""
    sums = {agent: replace(each, turns=0) for agent, each in totals.by_agent}
    return {agent: each for agent, each in sums.items() if each != Totals()}


@given(made=entries())
def test_turn_with_a_call_that_is_not_void_counts(made: list[Entry]) -> None:
    """By rule 1, a turn of void calls alone counts as well."""
    calls = [each for each in made if isinstance(each, ModelCall)]
    turns = {each.turn_id for each in calls if each.state is not CallState.VOID or each.rule == 1}

    assert SessionTotals().apply(made).current().turns == len(turns)


def test_turn_stops_counting_when_its_only_call_becomes_void() -> None:
    """Unless another call of the turn was sent."""
    first, second = call(1, turn_id="t", rule=CURRENT_RULE), call(2, turn_id="t", rule=CURRENT_RULE)
    totals = SessionTotals().apply([first, second])
    once = totals.apply([replace(first, state=CallState.VOID)])
    twice = once.apply([replace(second, state=CallState.VOID)])

    assert [each.current().turns for each in (totals, once, twice)] == [1, 1, 0]


def test_tokens_of_unresolved_call_count() -> None:
    """They count beside their call; an entry of rule 1 counts none."""
    known = {"state": CallState.UNRESOLVED, "usage": TokenUsage(total_tokens=5)}
    each_rule = [SessionTotals().apply([call(1, rule=rule, **known)]) for rule in (1, CURRENT_RULE)]

    assert [each.current().usage.total_tokens for each in each_rule] == [None, 5]
    assert dict(each_rule[1].by_model)["a/b"].usage.total_tokens == 5


def test_runs_are_in_the_order_of_their_turns() -> None:
    """A call that closes late does not make its turn the newest."""
    made: list[Entry] = [settled(1), settled(2), settled(3)]
    totals = SessionTotals().apply([opened(made[0]), made[1], opened(made[2])]).apply([made[2]]).apply([made[0]])

    assert [run.turn_id for run in totals.runs] == ["turn1", "turn2", "turn3"]


def test_late_call_does_not_evict_a_newer_run() -> None:
    """The newest turns are retained, independent of when their calls close."""
    made: list[Entry] = [settled(number) for number in range(1, NEWEST_RUNS + 2)]
    totals = SessionTotals().apply([opened(made[0]), *made[1:]]).apply([made[0]])

    assert totals.runs == SessionTotals().apply(made).runs


def test_turn_counts_once_by_model_when_its_calls_close_late() -> None:
    """Even if its run was evicted by many later turns."""
    first, second = settled(1, turn_id="turn1"), settled(2, turn_id="turn1")
    others: list[Entry] = [settled(number) for number in range(3, NEWEST_RUNS + 5)]
    totals = SessionTotals().apply([first, opened(second), *others]).apply([second])

    assert dict(totals.by_model)["a/b"].turns == totals.totals.turns == 1 + len(others)


@given(made=entries(), gap=st.integers(1, 12))
def test_gap_in_numbers_stops_application_until_it_is_filled(made: list[Entry], gap: int) -> None:
    """A missing entry holds back those behind it, and no entry is counted twice when it comes."""
    present = [each for each in made if each.number != gap]
    before = SessionTotals().apply(present)

    assert before.last_number == min(gap - 1, len(made))
    assert before.apply(made) == SessionTotals().apply(made)


def test_only_settled_calls_add_cost() -> None:
    """Pending, unresolved and void calls are in no sum of money."""
    made: list[Entry] = [
        settled(1, cost="0.1", usage=TokenUsage(total_tokens=5)),
        call(2),
        call(3, state=CallState.UNRESOLVED, upper_bound=Decimal("0.7")),
        call(4, state=CallState.VOID),
    ]
    totals = SessionTotals().apply(made).current()

    assert (totals.cost, totals.usage.total_tokens, totals.model_calls) == (Decimal("0.1"), 5, 3)
    assert (totals.pending_calls, totals.unresolved_calls, totals.unresolved_bound) == (1, 1, Decimal("0.7"))
    assert totals.unbounded_calls == 0
    assert totals_of_entries(made) == totals


def test_unresolved_call_without_a_bound_is_counted_apart() -> None:
    """Unknown is not zero: a call without a finite bound is counted as such until it is resolved."""
    unknown = call(1, state=CallState.UNRESOLVED)
    known = call(2, state=CallState.UNRESOLVED, upper_bound=Decimal("0.5"))
    before = SessionTotals().apply([unknown, known])
    after = before.apply([_resolved(unknown, number=3, cost=Decimal("0.2"))])

    assert (before.totals.unresolved_calls, before.totals.unbounded_calls) == (2, 1)
    assert (after.totals.unresolved_calls, after.totals.unbounded_calls) == (1, 0)
    assert (after.totals.cost, after.totals.unresolved_bound) == (Decimal("0.2"), Decimal("0.5"))
    assert dict(after.by_model)["a/b"].cost == Decimal("0.2")


def test_newest_runs_and_timings_are_retained() -> None:
    """The lists are bounded; the sums are not."""
    made: list[Entry] = [settled(number) for number in range(1, 301)]
    totals = SessionTotals().apply(made)

    assert [run.turn_id for run in totals.runs] == [f"turn{number}" for number in range(301 - NEWEST_RUNS, 301)]
    assert [timing.duration for timing in totals.timings] == [
        1000 * number for number in range(301 - NEWEST_TIMINGS, 301)
    ]
    assert totals.totals.cost == Decimal("30.0")
    assert totals.totals.turns == 300


@given(made=entries())
def test_entries_round_trip_through_documents(made: list[Entry]) -> None:
    """No field is lost, and unreported counters stay unknown."""
    assert [entry_from_document(entry_to_document(each)) for each in made] == made


@given(made=entries(), data=st.data())
def test_totals_of_entries_are_those_of_a_session_that_has_them(made: list[Entry], data: st.DataObject) -> None:
    """Open calls included: a turn's totals are summed at once, a session's entry by entry."""
    corrected = {each.corrects for each in made if isinstance(each, Adjustment)}
    mixed = [
        opened(each)
        if isinstance(each, ModelCall) and each.call_id not in corrected and data.draw(st.booleans())
        else each
        for each in made
    ]

    assert totals_of_entries(mixed) == SessionTotals().apply(mixed).current()


@given(parts=st.lists(TOTALS, max_size=4))
def test_sum_of_many_equals_repeated_addition(parts: list[Totals]) -> None:
    """Both ways to add have every field: one that is missing would bill wrongly."""
    assert Totals.sum(parts) == reduce(add, parts, Totals())
    for field in fields(Totals):
        values = [getattr(each, field.name) for each in parts]
        assert getattr(Totals.sum(parts), field.name) == reduce(add, values, getattr(Totals(), field.name))


@given(made=entries())
def test_sums_of_agents_are_the_sum_of_the_session(made: list[Entry]) -> None:
    """Each agent's sum is that of its entries; a turn is counted for the agent that made its first call."""
    totals = SessionTotals().apply(made)
    for agent, found in totals.by_agent:
        own = [each for each in made if each.agent == agent]
        assert replace(found, turns=0) == replace(totals_of_entries(own), turns=0)

    assert reduce(add, (found for _, found in totals.by_agent), Totals()) == totals.totals


def test_totals_of_an_earlier_build_are_those_of_its_only_agent() -> None:
    """Documents without agents; what is added later is counted by agent."""
    before = SessionTotals().apply([settled(1), call(2)])
    document = session_totals_to_document(before)
    del document["agent"], document["by_agent"]

    assert session_totals_from_document(document) == before
    after = session_totals_from_document(document).apply([settled(2), settled(3, agent="clerk")])
    assert {agent: str(found.cost) for agent, found in after.by_agent} == {"assistant": "0.2", "clerk": "0.1"}
    assert session_totals_from_document(session_totals_to_document(after)) == after


def test_adjustment_without_an_agent_is_of_the_first_one() -> None:
    """Builds whose adjustments name none had no other."""
    unresolved = call(1, state=CallState.UNRESOLVED, upper_bound=Decimal(1))
    adjustment = replace(_resolved(unresolved, number=2, cost=Decimal("0.3")), agent="")

    assert [(agent, str(found.cost)) for agent, found in SessionTotals().apply([unresolved, adjustment]).by_agent] == [
        ("assistant", "0.3")
    ]
