"""The recordings that are no answer: two sets of headers, and a listing under a stream's name."""

import json
from decimal import Decimal
from typing import Any

import grpc
import httpx2 as httpx
import pytest

from godoty_service.clock import utc_now
from godoty_service.metering.call import CallState
from godoty_service.metering.catalogue import Catalogue
from godoty_service.openrouter import failures
from tests.replay.recording import FOLDER, Recording
from tests.service.caller import Caller

MISLABELLED = "sse_2025-04_usage-cost.sse"


def _headers(name: str) -> httpx.Headers:
    recorded: dict[str, list[str]] = json.loads((FOLDER / name).read_text())
    return httpx.Headers([(key, value) for key, values in recorded.items() for value in values])


@pytest.mark.parametrize("name", sorted(each.name for each in FOLDER.glob("headers_*")))
def test_recorded_headers_tell_the_generation_and_no_cost(name: str) -> None:
    """The id is read from them whatever the case of its name; nothing in them is money."""
    headers = _headers(name)

    assert (failures.generation_id(headers) or "").startswith("gen-")
    assert failures.retry_after(headers) is None
    assert [key for key in headers if "cost" in key.lower() or "usage" in key.lower()] == []


def test_the_id_in_the_headers_is_the_one_in_the_body() -> None:
    """Headers and body of one recorded completion name the same generation."""
    body = Recording("json_2026-08_whitespace-keepalive-body.json")

    assert failures.generation_id(_headers("headers_2026_completion.json")) == body.generation_id


def test_the_listing_of_2025_under_a_streams_name_can_be_read_as_one() -> None:
    """It is a `/models` listing of April 2025: a catalogue with prices."""
    catalogue = Catalogue.parse((FOLDER / MISLABELLED).read_bytes(), fetch_time=utc_now())

    found: Any = catalogue.find("openai/gpt-4o-mini")
    assert found.prices.prompt == Decimal("0.00000015")


async def test_a_stream_that_holds_no_event_is_an_answer_that_broke_off(caller: Caller) -> None:
    """A 200 of another kind is no answer: the turn fails, and the sent requests are nobody's secret."""
    turn = await caller.converse(f"@sandbox replay file={MISLABELLED}")

    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
    assert turn.failure.metadata["provider_code"] == "incomplete"
    entries = caller.service.entries("talk")
    assert [each.attempt for each in entries] == [1, 2, 3]
    assert {each.state for each in entries} <= {CallState.PENDING, CallState.UNRESOLVED}
    assert all(each.upper_bound for each in entries)
    assert caller.service.invoice("talk") == []
