"""The provider's failures are translated into errors of the service."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from godoty_service.errors import ContextWindowExceeded, ModelUnavailable, ProviderError
from godoty_service.openrouter import errors
from godoty_service.openrouter.errors import from_body, from_exception, retry_after

RECORDED = Path(__file__).parents[2] / "data" / "recorded"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["error", "code", "message", "metadata"]), inner)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("status", "reason", "retryable"),
    [
        (400, "PROVIDER_REJECTED_REQUEST", False),
        (401, "PROVIDER_ACCOUNT_REFUSED", False),
        (402, "PROVIDER_ACCOUNT_REFUSED", False),
        (403, "PROVIDER_ACCOUNT_REFUSED", False),
        (404, "MODEL_UNAVAILABLE", False),
        (408, "PROVIDER_UNAVAILABLE", True),
        (409, "PROVIDER_UNAVAILABLE", True),
        (413, "CONTEXT_WINDOW_EXCEEDED", False),
        (422, "PROVIDER_REJECTED_REQUEST", False),
        (429, "PROVIDER_THROTTLED", True),
        (500, "PROVIDER_UNAVAILABLE", True),
        (502, "PROVIDER_UNAVAILABLE", True),
        (503, "PROVIDER_UNAVAILABLE", True),
        (524, "PROVIDER_UNAVAILABLE", True),
        (529, "PROVIDER_UNAVAILABLE", True),
    ],
)
def test_each_status_has_its_reason(status: int, reason: str, *, retryable: bool) -> None:
    """The body's code outranks HTTP's, and is the `provider_code`."""
    plain = from_body(status, None, {})
    inside = from_body(200, {"error": {"code": str(status), "message": "m"}}, {})

    for error in (plain, inside):
        assert (error.reason, error.retryable) == (reason, retryable)
        assert error.metadata == {"provider_code": str(status)}


@given(status=st.integers(200, 599), body=JSON)
def test_error_of_any_body_has_text_of_the_service(status: int, body: Any) -> None:
    """No word of the body is in it."""
    error = from_body(status, body, {})

    assert isinstance(error, ProviderError)
    assert error.text.startswith(("The provider", "No provider", "The request", "The conversation"))


@pytest.mark.parametrize(
    "message",
    [
        "This endpoint's maximum context length is 200000 tokens. However, you requested about 2500021 tokens",
        "prompt is too long: 215000 tokens > 200000 maximum",
        "Your input exceeds the context window of this model.",
        "too many tokens in the prompt",
    ],
)
def test_context_overflow_is_recognized(message: str) -> None:
    """Providers word it differently."""
    assert isinstance(from_body(400, {"error": {"code": 400, "message": message}}, {}), ContextWindowExceeded)


def test_text_and_metadata_do_not_quote_the_provider() -> None:
    """Its message may quote the prompt."""
    body = {"error": {"code": 400, "message": "bad swordfish", "metadata": {"raw": "swordfish", "provider_name": "X"}}}
    error = from_body(400, body, {})

    assert "swordfish" not in f"{error.text}{error.metadata}"
    assert error.metadata == {"provider_code": "400", "provider": "X"}


def test_recorded_errors_have_their_reasons() -> None:
    """The reasons that callers get for real bodies."""
    found = {
        path.stem: from_body(int(path.stem.split("_")[1][:3]), json.loads(path.read_bytes()), {})
        for path in RECORDED.glob("err_*")
    }

    assert {name: error.reason for name, error in found.items()} == {
        "err_200-with-429-body": "PROVIDER_THROTTLED",
        "err_400_context-length": "CONTEXT_WINDOW_EXCEEDED",
        "err_400_invalid-model": "MODEL_UNAVAILABLE",
        "err_400_provider-raw": "PROVIDER_REJECTED_REQUEST",
        "err_401": "PROVIDER_ACCOUNT_REFUSED",
        "err_403_region": "PROVIDER_ACCOUNT_REFUSED",
        "err_404_no-endpoints": "MODEL_UNAVAILABLE",
        "err_429_upstream": "PROVIDER_THROTTLED",
    }
    assert isinstance(found["err_404_no-endpoints"], ModelUnavailable)


@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("", None), ("soon", None), ("0", 0.0)]
)
def test_retry_after_is_read_in_seconds(value: str, seconds: float | None) -> None:
    """A number, whole or not; an invalid or missing value is no advice."""
    assert retry_after({"retry-after": value}) == seconds
    assert retry_after({}) is None


def test_retry_after_date_is_duration_until_then() -> None:
    """It is never negative."""
    later, earlier = (format_datetime(datetime.now(UTC) + timedelta(seconds=n), usegmt=True) for n in (30, -30))

    assert 25 < (retry_after({"retry-after": later}) or 0) <= 30
    assert retry_after({"retry-after": earlier}) == 0.0


def test_retry_after_date_is_measured_from_response_date() -> None:
    """A server whose own clock is wrong waits as long as the provider meant."""
    there = datetime.now(UTC) + timedelta(days=31)
    until, sent = (format_datetime(there + timedelta(seconds=n), usegmt=True) for n in (30, 0))

    assert retry_after({"retry-after": until, "date": sent}) == 30.0


@pytest.mark.parametrize("value", ["nan", "inf", "1e999", "-inf"])
def test_retry_after_that_is_not_finite_is_no_advice(value: str) -> None:
    """RetryInfo could not carry it."""
    found = retry_after({"retry-after": value})

    assert found is None or 0 <= found < 86_400 * 366


def test_connection_failure_is_retryable_provider_error() -> None:
    """Its text does not quote the failure."""
    error = from_exception(OSError("connection to swordfish reset"))

    assert (error.reason, error.retryable) == ("PROVIDER_UNAVAILABLE", True)
    assert "swordfish" not in f"{error.text}{error.metadata}"


def _status_error(body: bytes) -> openai.APIStatusError:
    request = httpx.Request("POST", "http://provider/chat/completions")
    return openai.APIStatusError("no", response=httpx.Response(502, content=body, request=request), body=None)


def test_error_with_usage_is_not_free() -> None:
    """Its usage is read with all digits."""
    usage = b'{"prompt_tokens": 3, "cost": 0.00001050000000000000001}'
    error = _status_error(b'{"error": {"code": 502, "message": "x"}, "usage": %s}' % usage)

    assert errors.usage_of(error) == {"prompt_tokens": 3, "cost": Decimal("0.00001050000000000000001")}
    assert not errors.is_free_rejection(error)


@pytest.mark.parametrize(("fee", "free"), [("0.002", False), ("0", True), ("null", True), ('"much"', True)])
def test_error_with_fees_of_plugins_is_not_free(fee: str, free: bool) -> None:  # noqa: FBT001 - a parameter
    """A failed request may have read a file, or searched."""
    stage = f'{{"type": "plugin", "name": "file-parser", "cost_usd": {fee}}}'
    body = f'{{"error": {{"code": 502, "message": "x"}}, "openrouter_metadata": {{"pipeline": [{stage}]}}}}'

    assert errors.is_free_rejection(_status_error(body.encode())) is free


@pytest.mark.parametrize("body", [b"", b"[]", b'{"error": {"code": 502}}', b'{"error": {}, "usage": 7}', b"[" * 9999])
def test_error_without_usage_has_none(body: bytes) -> None:
    """For any body."""
    assert errors.usage_of(_status_error(body)) is None
