"""The meaning of error bodies, in the wordings of the providers behind the gateway."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.errors import ContextWindowExceeded, ProviderAccountRefused, ProviderError, ProviderThrottled
from godoty_service.openrouter.errors import from_body


def _raw(message: str, **more: Any) -> dict[str, Any]:
    """Return an error whose message is in the upstream provider's raw text."""
    raw = json.dumps({"error": {"message": message, **more}})
    return {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw, "provider_name": "P"}}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, _raw("This model's maximum context length is 8192 tokens.", code="context_length_exceeded")),
        (400, {"message": "too big", "code": "context_length_exceeded"}),
        (400, {"message": "no", "code": 400, "metadata": {"error_type": "token_limit_exceeded"}}),
        (400, {"message": "no", "code": 400, "error_type": "context_length_exceeded"}),
        (400, _raw("prompt is too long: 200251 tokens > 200000 maximum", type="invalid_request_error")),
        (400, _raw("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000")),
        (400, _raw("Input is too long for requested model.")),
        (400, _raw("Too many input tokens. Max input tokens: 8192, request input token count: 9001")),
        (400, _raw("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).")),
        (400, {"message": "x", "code": 400, "metadata": {"raw": "prompt is too long: 5 tokens > 4 maximum"}}),
        (400, {"message": "the request exceeds the available context size", "code": 400}),
        (413, {"message": "Request Entity Too Large", "code": 413}),
        (413, None),
        (502, {"message": "prompt is too long", "code": 502, "metadata": {"error_type": "context_length_exceeded"}}),
        (200, {"message": "maximum context length is 9", "code": 400}),
    ],
)
def test_context_overflow_is_recognized_in_any_wording(status: int, error: dict[str, Any] | None) -> None:
    """By code, by type, in the raw text, by 413: the history can then be shortened."""
    assert isinstance(from_body(status, {"error": error}, {}), ContextWindowExceeded)


@pytest.mark.parametrize(
    "message", ["temperature must be below 2", "max_tokens must be at least 16", "Unknown parameter: 'foo'"]
)
def test_other_bad_request_is_not_context_overflow(message: str) -> None:
    """A fault of the request itself remains a rejected request."""
    assert from_body(400, {"error": {"message": message, "code": 400}}, {}).reason == "PROVIDER_REJECTED_REQUEST"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, {"message": "x", "code": 403, "metadata": {"reasons": ["violence"], "flagged_input": "bad words"}}),
        (403, {"message": "Your input was flagged", "code": 403}),
        (403, {"message": "x", "code": 403, "metadata": {"error_type": "content_policy_violation"}}),
        (400, _raw("The response was filtered", code="content_filter")),
        (400, {"message": "x", "code": 400, "error_type": "content_policy_violation"}),
    ],
)
def test_moderation_is_rejected_request(status: int, error: dict[str, Any]) -> None:
    """A flagged input rejects the request, not this service's account, and the flagged words are not repeated."""
    found = from_body(status, {"error": error}, {})

    assert (found.reason, found.moderated) == ("PROVIDER_REJECTED_REQUEST", True)
    assert not isinstance(found, ProviderAccountRefused)
    assert "bad words" not in f"{found.text} {found.metadata}"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, {"message": "Key limit exceeded", "code": 403}),
        (403, _raw("Country, region, or territory not supported", code="unsupported_country") | {"code": 403}),
        (401, {"message": "User not found.", "code": 401}),
    ],
)
def test_refused_account_is_not_moderation(status: int, error: dict[str, Any]) -> None:
    """A spent key and a refused region concern the operator."""
    assert isinstance(from_body(status, {"error": error}, {}), ProviderAccountRefused)


@pytest.mark.parametrize(
    "metadata",
    [
        lambda reset: {"headers": {"X-RateLimit-Reset": str(reset * 1000)}},
        lambda reset: {"headers": {"x-ratelimit-reset": reset}},
        lambda _: {"headers": {"Retry-After": "90"}},
        lambda _: {"retry_after_seconds": 90},
    ],
)
def test_limit_reset_in_body_is_retry_delay(metadata: Callable[[int], dict[str, Any]]) -> None:
    """A rate limit's reset time delays the retry as a Retry-After header does."""
    reset = int(time.time() + 90)
    body = {"error": {"message": "Rate limit exceeded", "code": 429, "metadata": metadata(reset)}}
    error = from_body(429, body, {})

    assert isinstance(error, ProviderThrottled)
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 90


def test_retry_after_header_has_precedence_over_body() -> None:
    """The body counts only without the header."""
    body = {"error": {"code": 429, "message": "m", "metadata": {"headers": {"Retry-After": "9"}}}}

    assert from_body(429, body, {"retry-after": "3"}).retry_after == 3.0


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_NAMES = (
    "code",
    "message",
    "metadata",
    "raw",
    "headers",
    "availability",
    "retry_after",
    "reasons",
    "X-RateLimit-Reset",
)
_ERRORS = st.recursive(_ANY, lambda inner: st.dictionaries(st.sampled_from(_NAMES), inner, max_size=5), max_leaves=20)


@given(error=_ERRORS, status=st.integers(200, 599))
def test_any_body_becomes_provider_error(error: Any, status: int) -> None:
    """A value of the wrong type in any field is skipped."""
    assert isinstance(from_body(status, {"error": error}, {}), ProviderError)
    assert isinstance(from_body(status, error, {}), ProviderError)
