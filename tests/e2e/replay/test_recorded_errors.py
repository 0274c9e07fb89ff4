"""Each recorded error has the right status and reason, and its cost is in the ledger."""

from dataclasses import asdict
from decimal import Decimal

import grpc
import pytest

from godoty_service.ledger.entries import CostSource
from godoty_service.ledger.states import CallState
from tests.e2e.replay.recording import FOLDER, Document, Recording
from tests.support.caller import Caller, Failure

THROTTLED = (grpc.StatusCode.UNAVAILABLE, "PROVIDER_THROTTLED")
REFUSED = (grpc.StatusCode.UNAVAILABLE, "PROVIDER_ACCOUNT_REFUSED")
REJECTED = (grpc.StatusCode.INVALID_ARGUMENT, "PROVIDER_REJECTED_REQUEST")
NO_MODEL = (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_UNAVAILABLE")
TOO_LONG = (grpc.StatusCode.FAILED_PRECONDITION, "CONTEXT_WINDOW_EXCEEDED")

# The caller's error, the provider's code in it, and the number of attempts.
ERRORS = {
    "err_200-with-429-body.json": (THROTTLED, "429", 3),
    "err_400_context-length.json": (TOO_LONG, "400", 1),
    "err_400_invalid-model.json": (NO_MODEL, "400", 1),
    "err_400_provider-raw.json": (REJECTED, "400", 1),
    "err_401.json": (REFUSED, "401", 1),
    "err_403_region.json": (REFUSED, "403", 1),
    "err_404_no-endpoints.json": (NO_MODEL, "404", 2),  # again, without a requirement that may have left no provider
    "err_429_upstream.json": (THROTTLED, "429", 3),
}
MID_STREAM = "sse_2025-11_midstream-error_with-usage.sse"


async def test_every_recorded_error_is_replayed() -> None:
    """None is omitted."""
    assert {each.name for each in FOLDER.glob("err_*")} == ERRORS.keys()


@pytest.mark.parametrize("name", ERRORS)
async def test_recorded_error_has_its_status_and_is_free(caller: Caller, name: str) -> None:
    """Each attempt is an entry settled at 0, as the provider rejected it; the invoice has no line."""
    (code, reason), provider_code, attempts = ERRORS[name]

    turn = await caller.converse(f"@sandbox replay file={name}")

    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (code, reason)
    assert turn.failure.metadata["provider_code"] == provider_code
    assert_provider_message_is_separate(turn.failure, Recording(name).bodies[0]["error"])
    entries = caller.service.entries("talk")
    assert [each.attempt for each in entries] == list(range(1, attempts + 1))
    assert {(each.state, each.cost, each.cost_source) for each in entries} == {
        (CallState.SETTLED, Decimal(0), CostSource.BILLED)
    }
    assert {each.error for each in entries} == {reason.lower()}
    assert caller.service.invoice("talk") == []
    totals = (await caller.metrics()).totals
    assert (totals.cost_usd, totals.model_calls, totals.pending_calls) == ("0", attempts, 0)


async def test_error_chunk_keeps_its_usage(caller: Caller) -> None:
    """The error's chunk carries usage and cost 0; both are in the ledger, more reasoning than output tokens too."""
    recording = Recording(MID_STREAM)

    turn = await caller.converse(f"@sandbox replay file={MID_STREAM}")

    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == REJECTED
    assert turn.reasoning == recording.reasoning
    (entry,) = caller.service.entries("talk")
    assert (entry.state, entry.cost, entry.cost_source) == (CallState.SETTLED, Decimal(0), CostSource.BILLED)
    assert entry.usage is not None
    assert asdict(entry.usage) == recording.counters
    assert (entry.usage.reasoning_tokens, entry.usage.output_tokens) == (11, 10)
    assert (entry.served_model, entry.provider) == ("minimax/minimax-m2:free", "Minimax")
    assert (entry.generation_id, entry.error) == (recording.generation_id, "provider_rejected_request")
    assert [(line.generation_id, line.cost) for line in caller.service.invoice("talk")] == [
        (entry.generation_id, Decimal(0))
    ]


def assert_provider_message_is_separate(failure: Failure, error: Document) -> None:
    """Check that the text names the provider; its message, which may quote a prompt, is in `provider_message` alone."""
    metadata = error.get("metadata") or {}
    assert failure.metadata.get("provider") == metadata.get("provider_name")
    others = {name: value for name, value in failure.metadata.items() if name != "provider_message"}
    text = f"{failure.text} {others}"
    assert error["message"] not in text
    assert str(metadata.get("raw", error["message"])) not in text


async def test_error_after_tokens_is_charged(caller: Caller) -> None:
    """Three tokens precede the error: they are billed, and part of the session's totals."""
    turn = await caller.converse("@sandbox error-mid n=3")

    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
    (entry,) = caller.service.entries("talk")
    (line,) = caller.service.invoice("talk")
    assert (entry.state, entry.cost_source) == (CallState.SETTLED, CostSource.BILLED)
    assert (entry.generation_id, entry.cost) == (line.generation_id, line.cost)
    assert entry.cost
    assert Decimal((await caller.metrics()).totals.cost_usd) == line.cost
