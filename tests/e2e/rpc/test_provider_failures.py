"""All kinds of provider failures: each has its reason, is in the ledger, and harms no session."""

import asyncio
import time
from decimal import Decimal

import grpc
import pytest
from godoty.v1 import metering_pb2
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb

from godoty_service.ledger.entries import CostSource, ModelCall
from godoty_service.ledger.states import CallState
from tests.e2e.turns.streams import until_text
from tests.support.caller import Caller, Failure, Turn, read
from tests.support.history import assert_valid_history, assert_valid_request
from tests.support.service import format_amount
from tests.support.waiting import settled

UNAVAILABLE, PRECONDITION = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION


async def assert_usable(caller: Caller, prompt: str, session_id: str = "talk") -> None:
    """Check that the next turn is served, with a history that every model accepts."""
    turn = await caller.converse("and now?", session_id=session_id)
    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    messages = await caller.messages(session_id)
    assert_valid_history(messages)
    assert messages[0].content[0].text == prompt
    assert messages[-1].content[0].text == turn.text
    assert_valid_request(caller.service.requests(session_id)[-1]["messages"])


def failed(turn: Turn) -> Failure:
    """Return the turn's failure."""
    assert turn.failure is not None
    assert "turn_finished" not in turn.kinds
    assert turn.kinds[0] == "turn_started"
    return turn.failure


def refused_free(entry: ModelCall, attempt: int = 1) -> bool:
    """Return whether an entry records a refusal that charged nothing."""
    settled = (entry.state, entry.cost, entry.attempt) == (CallState.SETTLED, Decimal(0), attempt)
    return settled and entry.error is not None


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_refused_account_is_unavailable(caller: Caller, status: int) -> None:
    """401, 402 and 403 are UNAVAILABLE with their own reason, attempted once, and free."""
    prompt = f"@sandbox error-before status={status}"
    failure = failed(await caller.converse(prompt))

    assert (failure.code, failure.reason) == (UNAVAILABLE, "PROVIDER_ACCOUNT_REFUSED")
    assert failure.metadata["provider_code"] == str(status)
    (entry,) = caller.service.entries("talk")
    assert refused_free(entry)
    assert entry.error == "provider_account_refused"
    await assert_usable(caller, prompt)


async def test_throttled_request_is_retried_after_retry_after(caller: Caller) -> None:
    """429 is retried after Retry-After, before the first token; each attempt has an entry, the caller an answer."""
    begun = time.monotonic()
    turn = await caller.converse("@sandbox error-before status=429 retry_after=1 times=1")

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert time.monotonic() - begun >= 1
    first, second = caller.service.entries("talk")
    assert refused_free(first)
    assert (second.state, second.attempt, second.error) == (CallState.SETTLED, 2, None)
    assert [call.attempt for call in turn.calls] == [1, 2]
    assert turn.finished.turn_totals.model_calls == 2
    assert turn.finished.turn_totals.turns == 1
    assert turn.finished.turn_totals.cost_usd == format_amount(caller.service.invoiced("talk"))
    assert len(turn.finished.cycle_durations) == 1


async def test_long_retry_after_is_returned_to_the_caller(caller: Caller) -> None:
    """A Retry-After above the limit becomes RetryInfo, at once."""
    prompt = "@sandbox error-before status=429 retry_after=45"
    begun = time.monotonic()
    failure = failed(await caller.converse(prompt))

    assert time.monotonic() - begun < 20
    assert (failure.code, failure.reason, failure.retry_after) == (UNAVAILABLE, "PROVIDER_THROTTLED", 45.0)
    assert len(caller.service.entries("talk")) == 1
    await assert_usable(caller, prompt)


async def test_malformed_retry_after_is_ignored(caller: Caller) -> None:
    """The error is UNAVAILABLE with a reason and the default retry delay."""

    async def advised(advice: str) -> None:
        prompt = f"@sandbox error-before status=429 retry_after={advice}"
        failure = failed(await caller.converse(prompt, session_id=advice))
        assert (failure.code, failure.reason) == (UNAVAILABLE, "PROVIDER_THROTTLED"), advice
        assert failure.retry_after is not None
        assert 0 <= failure.retry_after < 86_400 * 366

    await asyncio.gather(*map(advised, ("inf", "1e999", "99999999999999999999", "nan", "soon", "-7")))


async def test_transient_failures_are_attempted_three_times(caller: Caller) -> None:
    """Attempts 1, 2 and 3 have an entry each; then the caller gets the error with a retry delay."""

    async def tried(status: int) -> None:
        prompt, session_id = f"@sandbox error-before status={status}", f"s{status}"
        turn = await caller.converse(prompt, session_id=session_id)
        failure = failed(turn)
        reason = "PROVIDER_THROTTLED" if status == 429 else "PROVIDER_UNAVAILABLE"
        assert (failure.code, failure.reason) == (UNAVAILABLE, reason)
        assert failure.metadata["provider_code"] == str(status)
        assert failure.retry_after is not None
        entries = caller.service.entries(session_id)
        assert [entry.number for entry in entries] == [1, 2, 3]
        assert all(refused_free(entry, entry.number) for entry in entries)
        assert [call.call_id for call in turn.calls] == [entry.call_id for entry in entries]
        totals = (await caller.metrics(session_id)).totals
        assert (totals.cost_usd, totals.model_calls, totals.turns) == ("0", 3, 1)
        await assert_usable(caller, prompt, session_id)

    await asyncio.gather(*map(tried, (408, 429, 500, 502, 503, 529)))


@pytest.mark.parametrize(
    ("recording", "code", "reason", "metadata"),
    [
        ("err_400_context-length.json", PRECONDITION, "CONTEXT_WINDOW_EXCEEDED", {}),
        ("err_404_no-endpoints.json", PRECONDITION, "MODEL_UNAVAILABLE", {"model": "openai/gpt-4o-mini"}),
        ("err_400_invalid-model.json", PRECONDITION, "MODEL_UNAVAILABLE", {"model": "openai/gpt-4o-mini"}),
        (
            "err_400_provider-raw.json",
            grpc.StatusCode.INVALID_ARGUMENT,
            "PROVIDER_REJECTED_REQUEST",
            {"provider_code": "400", "provider": "OpenAI"},
        ),
        ("err_401.json", UNAVAILABLE, "PROVIDER_ACCOUNT_REFUSED", {"provider_code": "401"}),
        ("err_403_region.json", UNAVAILABLE, "PROVIDER_ACCOUNT_REFUSED", {"provider_code": "403"}),
    ],
)
async def test_recorded_refusal_has_its_documented_status(
    caller: Caller, recording: str, code: grpc.StatusCode, reason: str, metadata: dict[str, str]
) -> None:
    """Recorded error bodies get their status, reason and metadata, are attempted once, and cost nothing.

    If no provider serves, the request is sent again without requiring that one supports all of its parameters.
    """
    prompt = f"@sandbox replay file={recording}"
    failure = failed(await caller.converse(prompt))

    assert (failure.code, failure.reason) == (code, reason)
    assert metadata.items() <= failure.metadata.items()
    entries = caller.service.entries("talk")
    assert len(entries) == (2 if recording.startswith("err_404") else 1)
    assert all(refused_free(entry, attempt) for attempt, entry in enumerate(entries, 1))
    await assert_usable(caller, prompt)


async def test_error_under_http_200_is_an_error(caller: Caller) -> None:
    """An error body under status 200 is the provider's refusal, and free."""
    prompt = "@sandbox replay file=err_200-with-429-body.json"
    failure = failed(await caller.converse(prompt))

    assert (failure.code, failure.reason) == (UNAVAILABLE, "PROVIDER_THROTTLED")
    assert {"provider_code": "429", "provider": "Google"}.items() <= failure.metadata.items()
    assert failure.metadata["provider_message"].endswith("is temporarily rate-limited upstream; please retry shortly.")
    assert failure.retry_after is not None
    entries = caller.service.entries("talk")
    assert [(entry.attempt, refused_free(entry, entry.attempt)) for entry in entries] == [
        (1, True),
        (2, True),
        (3, True),
    ]
    await assert_usable(caller, prompt)


async def test_error_under_http_200_is_retried(caller: Caller) -> None:
    """The same error is retried, and the second attempt's answer is the turn's."""
    turn = await caller.converse("@sandbox error-200 times=1")

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    assert [entry.attempt for entry in caller.service.entries("talk")] == [1, 2]


async def test_cost_of_a_broken_answer_is_settled(caller: Caller) -> None:
    """An error inside the stream ends the turn after the partial text; its usage and cost are settled at once."""
    prompt = "@sandbox error-mid n=3 usage=1"
    turn = await caller.converse(prompt)

    failure = failed(turn)
    assert (failure.code, failure.reason) == (UNAVAILABLE, "PROVIDER_UNAVAILABLE")
    assert turn.text == "t0 t1 t2 "
    (entry,), (line,) = caller.service.entries("talk"), caller.service.invoice("talk")
    assert (entry.state, entry.cost_source, entry.cost) == (CallState.SETTLED, CostSource.BILLED, line.cost)
    assert entry.error == "provider_unavailable"
    assert (await caller.metrics()).totals.cost_usd == format_amount(line.cost)
    kept = (await caller.messages())[1].content[0].text
    assert kept.startswith("t0 t1 t2 ")
    assert kept.endswith("[The answer was interrupted.]")
    await assert_usable(caller, prompt)


async def test_broken_answer_without_usage_is_reconciled(caller: Caller) -> None:
    """Without a usage object the call stays pending, and is settled from its generation record."""
    prompt = "@sandbox error-mid n=3 usage=0 record_ms=0"
    turn = await caller.converse(prompt)

    assert failed(turn).reason == "PROVIDER_UNAVAILABLE"
    (call,) = turn.calls
    assert call.state == metering_pb2.CALL_STATE_PENDING
    assert call.generation_id
    entry = await reconciled(caller)
    (line,) = caller.service.invoice("talk")
    assert (entry.cost_source, entry.cost) == (CostSource.RECONCILED, line.cost)
    await assert_usable(caller, prompt)


async def test_error_before_the_first_token_is_retried(caller: Caller) -> None:
    """A stream that starts with an error has no content yet: it is retried, with an entry of its own."""
    turn = await caller.converse("@sandbox error-mid n=0 times=1")

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    entries = caller.service.entries("talk")
    assert [entry.attempt for entry in entries] == [1, 2]
    assert entries[0].cost == 0
    assert turn.finished.turn_totals.cost_usd == format_amount(caller.service.invoiced("talk"))


@pytest.mark.parametrize("fault", ["reset n=1500 rst=0", "reset n=1500 rst=1"])
async def test_broken_connection_during_the_stream_ends_the_turn(caller: Caller, fault: str) -> None:
    """After the first token nothing is retried; the charge comes from the generation record."""
    prompt = f"@sandbox {fault} record_ms=0 hold_after=2 hold={fault[-1]}"  # a reset drops what was not read yet
    call = caller.start(prompt)
    seen = await until_text(call, "t1 ")
    caller.service.backends.allow(fault[-1])
    rest = await read(call)
    turn = Turn((*seen, *rest.responses), rest.failure)

    failure = failed(turn)
    assert (failure.code, failure.reason) == (UNAVAILABLE, "PROVIDER_UNAVAILABLE")
    assert turn.text.startswith("t0 t1 ")
    (broken,) = turn.calls
    assert broken.state == metering_pb2.CALL_STATE_PENDING
    entry = await reconciled(caller)
    (line,) = caller.service.invoice("talk")
    assert (entry.generation_id, entry.cost) == (line.generation_id, line.cost)
    assert (await caller.messages())[1].content[0].text.startswith(turn.text.rstrip())
    await assert_usable(caller, prompt)


async def test_broken_connection_before_the_headers_is_unresolved(caller: Caller) -> None:
    """A request that was sent without a response may be charged: it is unresolved, with its bound in the totals."""
    turn = await caller.converse("@sandbox reset n=0 times=1")

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_END_TURN
    first, second = turn.calls
    assert (first.state, second.state) == (metering_pb2.CALL_STATE_PENDING, metering_pb2.CALL_STATE_SETTLED)
    await reconciled(caller)
    totals = (await caller.metrics()).totals
    assert (totals.unresolved_calls, totals.unresolved_bound_usd) == (1, first.upper_bound_usd)
    assert totals.cost_usd == second.cost_usd == format_amount(caller.service.invoiced("talk"))


async def test_failure_in_a_later_cycle_keeps_the_tool_results(caller: Caller) -> None:
    """A loop that breaks after its first tool has a complete history."""
    prompt = "@sandbox tool-loop calls=3 status=503 at=2"
    turn = await caller.converse(prompt)

    assert failed(turn).reason == "PROVIDER_UNAVAILABLE"
    assert turn.kinds.count("tool_call_finished") == 1
    entries = caller.service.entries("talk")
    assert [(entry.number, entry.attempt) for entry in entries] == [(1, 1), (2, 1), (3, 2), (4, 3)]
    messages = await caller.messages()
    assert [message.role for message in messages] == [session_pb.ROLE_USER, session_pb.ROLE_ASSISTANT] * 2
    assert messages[2].content[0].tool_result.status == session_pb.TOOL_CALL_STATUS_SUCCESS
    await assert_usable(caller, prompt)


async def test_answer_as_one_json_body_is_accepted(caller: Caller) -> None:
    """A gateway that answers a streaming request with one JSON body, after blank lines, is supported."""
    limits = turn_pb.TurnLimits(max_model_calls=1)  # it asks for a tool, as often as it is replayed
    turn = await caller.converse("@sandbox replay file=json_2026-08_whitespace-keepalive-body.json", limits=limits)

    assert turn.finished.stop_reason == turn_pb.STOP_REASON_MAX_MODEL_CALLS
    (started,) = [each.tool_call_started for each in turn.responses if each.HasField("tool_call_started")]
    assert started.name == "weather"
    (entry,), (line,) = caller.service.entries("talk"), caller.service.invoice("talk")
    assert (entry.state, entry.cost) == (CallState.SETTLED, line.cost)
    assert entry.cost == Decimal("0.001008")


async def test_recorded_error_inside_a_stream_keeps_its_charge(caller: Caller) -> None:
    """A recorded stream that failed and reported its usage is settled at that charge."""
    prompt = "@sandbox replay file=sse_2025-11_midstream-error_with-usage.sse"
    turn = await caller.converse(prompt)

    assert failed(turn).reason == "PROVIDER_REJECTED_REQUEST"
    (entry,), (line,) = caller.service.entries("talk"), caller.service.invoice("talk")
    assert (entry.state, entry.cost) == (CallState.SETTLED, line.cost)
    await assert_usable(caller, prompt)


async def reconciled(caller: Caller) -> ModelCall:
    """Wait until no call of the session is pending; return the first."""
    await settled(caller)
    return caller.service.entries("talk")[0]
