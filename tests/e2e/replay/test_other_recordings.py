"""The recordings that are not answers: two sets of headers, and a listing under a stream's name."""

import json
from decimal import Decimal
from typing import Any

import grpc
import httpx2 as httpx
import pytest

from godoty_service.clock import utc_now
from godoty_service.ledger.states import CallState
from godoty_service.openrouter import errors
from godoty_service.pricing.catalogue import Catalogue
from tests.e2e.replay.recording import FOLDER, Recording
from tests.support.caller import Caller

MISLABELLED = "sse_2025-04_usage-cost.sse"


def _headers(name: str) -> httpx.Headers:
    recorded: dict[str, list[str]] = json.loads((FOLDER / name).read_text())
    return httpx.Headers([(key, value) for key, values in recorded.items() for value in values])


@pytest.mark.parametrize("name", sorted(each.name for each in FOLDER.glob("headers_*")))
def test_recorded_headers_have_generation_id_and_no_cost(name: str) -> None:
    """The id is found in any case of its name; no header has an amount."""
    headers = _headers(name)

    assert (errors.generation_id(headers) or "").startswith("gen-")
    assert errors.retry_after(headers) is None
    assert [key for key in headers if "cost" in key.lower() or "usage" in key.lower()] == []


def test_id_in_headers_is_id_in_body() -> None:
    """Headers and body of one recorded completion name the same generation."""
    body = Recording("json_2026-08_whitespace-keepalive-body.json")

    assert errors.generation_id(_headers("headers_2026_completion.json")) == body.generation_id


def test_listing_under_stream_name_is_catalogue() -> None:
    """It is a `/models` listing of April 2025, with prices."""
    catalogue = Catalogue.parse((FOLDER / MISLABELLED).read_bytes(), fetch_time=utc_now())

    found: Any = catalogue.find("openai/gpt-4o-mini")
    assert found.prices.prompt == Decimal("0.00000015")


async def test_stream_without_event_is_incomplete_answer(caller: Caller) -> None:
    """The turn fails, and its three requests remain open, with their upper bounds."""
    turn = await caller.converse(f"@sandbox replay file={MISLABELLED}")

    assert turn.failure is not None
    assert (turn.failure.code, turn.failure.reason) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")
    assert turn.failure.metadata["provider_code"] == "incomplete"
    entries = caller.service.entries("talk")
    assert [each.attempt for each in entries] == [1, 2, 3]
    assert {each.state for each in entries} <= {CallState.PENDING, CallState.UNRESOLVED}
    assert all(each.upper_bound for each in entries)
    assert caller.service.invoice("talk") == []
