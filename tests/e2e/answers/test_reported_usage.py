"""Usage that is reported several times: the last known value of each field counts, and a running cost is not final."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.ledger.entries import CostSource
from godoty_service.ledger.states import CallState
from godoty_service.openrouter.decoding.chunk import merge_usage
from godoty_service.openrouter.decoding.stream_decoder import StreamDecoder
from tests.e2e.answers.conftest import AtRelay, RunTurn
from tests.e2e.answers.gateway import BREAK, USAGE, WAIT, chunk, response, stream
from tests.support.service import soon

FIRST = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101}
LAST = {"prompt_tokens": 100, "completion_tokens": 500, "total_tokens": 600}
TEXT = chunk({"content": "Hello"})
STOP = chunk({}, "stop")
AMOUNT = st.none() | st.integers(0, 1000) | st.decimals(0, 100, places=4) | st.sampled_from(["x", -1, [], {}, True])


@pytest.mark.parametrize(
    ("reported", "counters", "cost"),
    [
        ([FIRST, {**LAST, "cost": 0.5}], (100, 500), "0.5"),
        ([{}, {**LAST, "cost": 0.5}], (100, 500), "0.5"),
        ([{**LAST, "cost": 0.5}, {}], (100, 500), "0.5"),
        ([{**FIRST, "cost": 0.1}, {**LAST, "cost": 0.5}], (100, 500), "0.5"),
        ([{**FIRST, "cost": 0.1}, LAST], (100, 500), "0.1"),
        ([{**LAST, "cost": 0.5}, {"prompt_tokens": None, "completion_tokens": "x", "cost": None}], (100, 500), "0.5"),
        ([{**LAST, "cost": 0.5}, {"prompt_tokens": -1, "cost": -1}], (100, 500), "0.5"),
        ([None, [], "x", 7, {**LAST, "cost": 0.5}], (100, 500), "0.5"),
    ],
)
async def test_last_known_value_of_each_usage_field_is_settled(
    run_turn: RunTurn, reported: list[Any], counters: tuple[int, int], cost: str
) -> None:
    """Empty objects and unknown values change nothing; later known values replace earlier ones."""
    outcome = await run_turn(
        stream(TEXT, *[chunk(usage=each) for each in reported[:-1]], STOP, chunk(usage=reported[-1]))
    )

    assert outcome.turn.text == "Hello"
    (entry,) = outcome.entries
    assert (entry.state, entry.cost_source, entry.cost) == (CallState.SETTLED, CostSource.BILLED, Decimal(cost))
    assert (entry.usage.input_tokens, entry.usage.output_tokens) == counters


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": None}, {"prompt_tokens": "many"}, {"details": {}}])
async def test_usage_without_known_values_is_taken_from_record(at_relay: AtRelay, usage: dict[str, Any]) -> None:
    """The provider's record has the counters and the cost."""
    caller, gateway = at_relay(stream(TEXT, STOP, chunk(usage=usage)))
    gateway.records["gen-1"] = {"total_cost": 0.25, "native_tokens_prompt": 7, "native_tokens_completion": 9}
    await caller.converse("hi")
    await soon(lambda: [each.state for each in caller.service.entries("talk")] == [CallState.SETTLED])

    (entry,) = caller.service.entries("talk")
    assert (entry.cost_source, entry.cost) == (CostSource.RECONCILED, Decimal("0.25"))
    assert entry.usage is not None
    assert (entry.usage.input_tokens, entry.usage.output_tokens) == (7, 9)


@pytest.mark.parametrize("end", [BREAK, WAIT], ids=["broken", "cancelled"])
async def test_running_cost_is_deferred_to_reconciliation(at_relay: AtRelay, end: bytes) -> None:
    """A stream that did not end is not settled by a cost reported on the way; the record settles it."""
    running = stream(TEXT, chunk({"content": "!"}, usage={**FIRST, "cost": 0.01}), done=False)
    caller, _ = at_relay(response(running + end))  # which has no record yet
    call = caller.start("hi")
    async for each in call:
        if each.text_delta.text.endswith("!"):
            break
    if end == WAIT:
        call.cancel()
    await soon(lambda: [each.duration is not None for each in caller.service.entries("talk")] == [True])

    (entry,) = caller.service.entries("talk")
    assert (entry.state, entry.cost) == (CallState.PENDING, None)
    assert entry.usage is not None
    assert (entry.usage.input_tokens, entry.usage.output_tokens) == (100, 1)


async def test_record_replaces_running_counters(at_relay: AtRelay) -> None:
    """The record of a broken stream knows its end."""
    running = stream(TEXT, chunk({"content": "!"}, usage={**FIRST, "cost": 0.01}), done=False)
    caller, gateway = at_relay(response(running + BREAK))
    gateway.records["gen-1"] = {"total_cost": 0.25, "native_tokens_prompt": 100, "native_tokens_completion": 37}
    await caller.converse("hi")
    await soon(lambda: [each.state for each in caller.service.entries("talk")] == [CallState.SETTLED])

    (entry,) = caller.service.entries("talk")
    assert entry.usage is not None
    assert (entry.cost, entry.usage.input_tokens, entry.usage.output_tokens) == (Decimal("0.25"), 100, 37)


@pytest.mark.parametrize("end", [BREAK, WAIT], ids=["broken", "cancelled"])
async def test_running_counters_without_record_leave_call_unresolved(start_server: Any, end: bytes) -> None:
    """They are lower than the final ones: the call ends as unresolved, with its upper bound."""
    running = stream(TEXT, chunk({"content": "!"}, usage=FIRST), done=False)
    caller, _ = await start_server(response(running + end), reconcile_interval=0.05, generation_records="none")
    call = caller.start("hi")
    async for each in call:
        if each.text_delta.text.endswith("!"):
            break
    if end == WAIT:
        call.cancel()
    await soon(lambda: CallState.PENDING not in [each.state for each in caller.service.entries("talk")])

    (entry,) = caller.service.entries("talk")
    assert (entry.state, entry.cost, entry.usage.output_tokens) == (CallState.UNRESOLVED, None, 1)
    assert entry.upper_bound is not None


async def test_cost_with_finish_reason_is_final_if_stream_breaks(at_relay: AtRelay) -> None:
    """It is the bill, regardless of what happens to the connection afterwards."""
    caller, _ = at_relay(response(stream(TEXT, chunk({}, "stop", usage=USAGE), done=False) + BREAK))
    turn = await caller.converse("hi")

    assert turn.text == "Hello"
    assert turn.finished
    (entry,) = caller.service.entries("talk")
    assert (entry.cost_source, entry.cost) == (CostSource.BILLED, Decimal("0.00012"))


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", None])
async def test_document_without_answer_keeps_id_and_cost(run_turn: RunTurn, content_type: str | None) -> None:
    """The call failed, and its cost is settled under the provider's id."""
    body = json.dumps({"id": "gen-9", "model": "openai/gpt-4o-mini", "usage": USAGE}).encode()
    outcome = await run_turn(response(body, content_type))

    assert outcome.turn.failure is not None
    assert outcome.turn.failure.reason == "PROVIDER_UNAVAILABLE"
    assert {(each.generation_id, each.cost, each.cost_source) for each in outcome.entries} == {
        ("gen-9", Decimal("0.00012"), CostSource.BILLED)
    }


@given(st.lists(st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens", "cost"]), AMOUNT), max_size=6))
def test_merged_usage_has_last_known_value_of_each_field(reported: list[dict[str, Any]]) -> None:
    """In any order, no known value is lost, and no unknown one replaces it."""
    found: dict[str, Any] | None = None
    for each in reported:
        found = merge_usage(found, each)

    for name in ("prompt_tokens", "completion_tokens", "cost"):
        numbers = [each[name] for each in reported if _known(name, each.get(name))]
        if numbers:
            assert found is not None
            assert found[name] == numbers[-1]


def _known(name: str, value: Any) -> bool:
    if not isinstance(value, (int, Decimal)) or isinstance(value, bool) or value < 0:
        return False
    return name == "cost" or value == int(value)


def test_only_cost_at_end_is_final() -> None:
    """The cost of a broken stream counts if it arrived with the finish reason or an error, or after one."""
    running, ended, failed, after = StreamDecoder(), StreamDecoder(), StreamDecoder(), StreamDecoder()
    for decoder, chunks in (
        (running, [chunk({"content": "a"}, usage=USAGE)]),
        (ended, [chunk({}, "stop", usage=USAGE)]),
        (failed, [chunk(error={"code": 502}, usage=USAGE)]),
        (after, [STOP, chunk(usage=USAGE)]),
    ):
        decoder.add_chunks(chunks)

    costs: Callable[[StreamDecoder], bool] = lambda decoder: "cost" in (decoder.final_usage or {})  # noqa: E731 - one word
    assert list(map(costs, (running, ended, failed, after))) == [False, True, True, True]
    running.read([b"[DONE]"])
    assert costs(running)


def test_number_of_a_billion_digits_is_skipped_at_once() -> None:
    """A counter that no integer could hold is unknown; reading it does not block the event loop."""
    assert merge_usage({"total_tokens": 3}, {"total_tokens": Decimal("1e999999999"), "prompt_tokens": 1}) == {
        "total_tokens": 3,
        "prompt_tokens": 1,
    }
