"""Folding a session's entries: in any pieces, at any time, the sums are the same."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

from bson.decimal128 import Decimal128
from hypothesis import given, settings
from hypothesis import strategies as st

from godoty_service.metering.call import Adjustment, CallState, CostSource, Entry, ModelCall
from godoty_service.metering.documents import entry_from_document, entry_to_document
from godoty_service.metering.fold_document import fold_from_document, fold_to_document
from godoty_service.metering.states import CURRENT_RULE
from godoty_service.metering.totals import NEWEST_RUNS, NEWEST_TIMINGS, SessionFold, fold
from godoty_service.metering.usage import TokenUsage

NOON = datetime(2026, 8, 22, 12, tzinfo=UTC)
MONEY = st.decimals(0, 10, places=12)
COUNT = st.none() | st.integers(0, 1000)


def call(number: int, **changes: Any) -> ModelCall:
    """A pending call of a turn of its own."""
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
    """A settled one."""
    known = {"state": CallState.SETTLED, "cost": Decimal(cost), "cost_source": CostSource.BILLED}
    return call(number, **{**known, "duration": timedelta(milliseconds=number), **changes})


@st.composite
def entries(draw: st.DrawFn) -> list[Entry]:
    """A session's entries: turns of some calls, in all final states, and adjustments of the unresolved."""
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
        time=NOON + timedelta(days=1),
        why="a test",
        by="somebody",
    )


def opened(entry: Entry) -> Entry:
    """An entry as it was before it closed."""
    if isinstance(entry, Adjustment):
        return entry
    changes: dict[str, Any] = {"cost": None, "cost_source": None, "usage": None, "served_model": None, "duration": None}
    return replace(entry, state=CallState.PENDING, **changes)


@given(made=entries(), cuts=st.lists(st.integers(0, 20), max_size=4))
def test_in_any_pieces_the_fold_is_the_same(made: list[Entry], cuts: list[int]) -> None:
    """Taken at once or piece by piece, through documents in between, and repeated: one and the same fold."""
    places = sorted({0, len(made), *(cut for cut in cuts if cut < len(made))})
    whole, pieced = SessionFold().take(made), SessionFold()
    for start, end in pairwise(places):
        pieced = fold_from_document(fold_to_document(pieced.take(made[start:end])))
        assert pieced.take(made[:end]) == pieced

    assert pieced == whole
    assert whole.through == len(made)
    assert whole.take(made) == whole


@settings(max_examples=40, deadline=None)
@given(made=entries(), order=st.randoms(use_true_random=False), data=st.data())
def test_what_closes_later_ends_in_the_same_sums(made: list[Entry], order: Any, data: st.DataObject) -> None:
    """Calls that were open when they were taken, and close in any order, give what they would have given at once."""
    corrected = {each.corrects for each in made if isinstance(each, Adjustment)}  # final before they were corrected
    calls = [each for each in made if isinstance(each, ModelCall) and each.call_id not in corrected]
    late = [each for each in calls if data.draw(st.booleans())]
    folded = SessionFold().take([opened(each) if each in late else each for each in made])
    assert folded.open == tuple(each.number for each in late)
    assert folded.view().pending_calls == len(late)
    order.shuffle(late)
    for each in late:
        folded = fold_from_document(fold_to_document(folded.take([each])))

    whole = SessionFold().take(made)
    assert folded.open == ()
    assert folded.view() == whole.view()
    assert dict(folded.by_model) == dict(whole.by_model)
    assert set(folded.runs) == set(whole.runs)


@given(made=entries())
def test_turn_counts_where_it_has_a_call_that_is_not_void(made: list[Entry]) -> None:
    """By the former rule, a turn of void calls alone counts as well."""
    calls = [each for each in made if isinstance(each, ModelCall)]
    turns = {each.turn_id for each in calls if each.state is not CallState.VOID or each.rule == 1}

    assert SessionFold().take(made).view().turns == len(turns)


def test_turn_that_began_with_a_pending_call_no_longer_counts_when_it_is_void() -> None:
    """Unless another call of the turn left."""
    first, second = call(1, turn_id="t", rule=CURRENT_RULE), call(2, turn_id="t", rule=CURRENT_RULE)
    folded = SessionFold().take([first, second])
    once = folded.take([replace(first, state=CallState.VOID)])
    twice = once.take([replace(second, state=CallState.VOID)])

    assert [each.view().turns for each in (folded, once, twice)] == [1, 1, 0]


def test_tokens_of_an_unresolved_call_are_in_the_sum() -> None:
    """They stand beside its call; an entry of the former rule counts none."""
    known = {"state": CallState.UNRESOLVED, "usage": TokenUsage(total_tokens=5)}
    folds = [SessionFold().take([call(1, rule=rule, **known)]) for rule in (1, CURRENT_RULE)]

    assert [each.view().usage.total_tokens for each in folds] == [None, 5]
    assert dict(folds[1].by_model)["a/b"].usage.total_tokens == 5


def test_runs_are_in_the_order_of_their_turns() -> None:
    """A call that closes late does not make its turn the newest."""
    made: list[Entry] = [settled(1), settled(2), settled(3)]
    folded = SessionFold().take([opened(made[0]), made[1], opened(made[2])]).take([made[2]]).take([made[0]])

    assert [run.turn_id for run in folded.runs] == ["turn1", "turn2", "turn3"]


def test_a_late_call_does_not_push_out_a_newer_run() -> None:
    """Of more turns than are kept the newest are, whenever their calls close."""
    made: list[Entry] = [settled(number) for number in range(1, NEWEST_RUNS + 2)]
    folded = SessionFold().take([opened(made[0]), *made[1:]]).take([made[0]])

    assert folded.runs == SessionFold().take(made).runs


def test_a_turn_is_counted_once_by_model_however_late_its_calls_close() -> None:
    """Also when so many turns came between that its run is no longer kept."""
    first, second = settled(1, turn_id="turn1"), settled(2, turn_id="turn1")
    others: list[Entry] = [settled(number) for number in range(3, NEWEST_RUNS + 5)]
    folded = SessionFold().take([first, opened(second), *others]).take([second])

    assert dict(folded.by_model)["a/b"].turns == folded.totals.turns == 1 + len(others)


@given(made=entries(), gap=st.integers(1, 12))
def test_a_gap_ends_the_fold_until_it_is_filled(made: list[Entry], gap: int) -> None:
    """An entry that is not there yet holds back those behind it, and nothing is counted twice when it comes."""
    left = [each for each in made if each.number != gap]
    before = SessionFold().take(left)

    assert before.through == min(gap - 1, len(made))
    assert before.take(made) == SessionFold().take(made)


def test_the_sum_has_the_settled_and_counts_the_rest() -> None:
    """Pending, unresolved and void calls are in no sum of money."""
    made: list[Entry] = [
        settled(1, cost="0.1", usage=TokenUsage(total_tokens=5)),
        call(2),
        call(3, state=CallState.UNRESOLVED, upper_bound=Decimal("0.7")),
        call(4, state=CallState.VOID),
    ]
    totals = SessionFold().take(made).view()

    assert (totals.cost, totals.usage.total_tokens, totals.model_calls) == (Decimal("0.1"), 5, 3)
    assert (totals.pending_calls, totals.unresolved_calls, totals.unresolved_bound) == (1, 1, Decimal("0.7"))
    assert totals.unbounded_calls == 0
    assert fold(made) == totals


def test_an_unresolved_call_without_a_bound_makes_the_bound_unknown() -> None:
    """Unknown is not nought: one call without a finite bound is counted as such, until it is resolved."""
    unknown = call(1, state=CallState.UNRESOLVED)
    known = call(2, state=CallState.UNRESOLVED, upper_bound=Decimal("0.5"))
    before = SessionFold().take([unknown, known])
    after = before.take([_resolved(unknown, number=3, cost=Decimal("0.2"))])

    assert (before.totals.unresolved_calls, before.totals.unbounded_calls) == (2, 1)
    assert (after.totals.unresolved_calls, after.totals.unbounded_calls) == (1, 0)
    assert (after.totals.cost, after.totals.unresolved_bound) == (Decimal("0.2"), Decimal("0.5"))
    assert dict(after.by_model)["a/b"].cost == Decimal("0.2")


def test_a_fold_that_was_kept_as_rows_is_read() -> None:
    """As versions before wrote it: an amount as Decimal128 in each run, a list for each timing."""
    fold = SessionFold().take([settled(1), settled(2)])
    document = fold_to_document(fold)
    document["runs"] = [
        {"turn": run.turn_id, "model": run.model, "time": run.time, "cost": Decimal128(run.cost) if run.cost else None}
        for run in fold.runs
    ]
    document["timings"] = [list(each) for each in fold.timings]

    assert fold_from_document(document) == fold


def test_the_newest_runs_and_timings_are_kept() -> None:
    """What is listed is bounded; what is summed is not."""
    made: list[Entry] = [settled(number) for number in range(1, 301)]
    folded = SessionFold().take(made)

    assert [run.turn_id for run in folded.runs] == [f"turn{number}" for number in range(301 - NEWEST_RUNS, 301)]
    assert [timing.duration for timing in folded.timings] == [
        1000 * number for number in range(301 - NEWEST_TIMINGS, 301)
    ]
    assert folded.totals.cost == Decimal("30.0")
    assert folded.totals.turns == 300


@given(made=entries())
def test_entries_come_back_as_they_were(made: list[Entry]) -> None:
    """Through their documents nothing is lost, and what nobody told stays unknown."""
    assert [entry_from_document(entry_to_document(each)) for each in made] == made
