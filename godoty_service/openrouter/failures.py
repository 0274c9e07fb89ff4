"""Turns what the provider and the network say of a failure into our errors, once, where they enter."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2 as httpx
import openai

from godoty_service.clock import utc_now
from godoty_service.errors import (
    ContextWindowExceeded,
    GodotyError,
    InputModerated,
    ModelUnavailable,
    ProviderAccountRefused,
    ProviderError,
    ProviderRejectedRequest,
    ProviderThrottled,
    ProviderUnavailable,
)
from godoty_service.openrouter import exact
from godoty_service.openrouter.error_facts import CONTEXT_CODES, ErrorFacts, error_of, retry_after_body
from godoty_service.openrouter.text import id_of, name_of

_TOO_LARGE = 413
_DIGITS, _LOWEST_CODE, _HIGHEST_CODE = 3, 100, 999
_LONGEST_ADVICE = 86_400.0  # seconds; more is no advice
_REFUSALS = frozenset({400, 403, 413, 422})  # codes under which the request itself may be at fault
_LONGEST_TEXT = 16 * 1024  # bytes of an error body in plain text that are read
# By code: the error, and its text. The provider's own message is kept apart from it, in `ProviderError.message`.
_BY_CODE: dict[int, tuple[type[ProviderError], str]] = {
    400: (ProviderRejectedRequest, "The provider refused the request."),
    401: (ProviderAccountRefused, "The provider refused this service's account."),
    402: (ProviderAccountRefused, "The provider refused this service's account."),
    403: (ProviderAccountRefused, "The provider refused this service's account."),
    404: (ModelUnavailable, "No provider serves the model just now."),
    408: (ProviderUnavailable, "The provider took too long."),
    409: (ProviderUnavailable, "The provider could not take the request just now."),
    422: (ProviderRejectedRequest, "The provider refused the request."),
    429: (ProviderThrottled, "The provider is rate limiting."),
}


def from_body(status: int, body: Any, headers: Mapping[str, str], *, secrets: Iterable[str] = ()) -> ProviderError:
    """Translate an error body, whatever HTTP status it came with.

    Args:
        status: The HTTP status; a code in the body outranks it.
        body: The parsed body, of any shape.
        headers: The response's headers, for `Retry-After`.
        secrets: Keys that are masked in the provider's message.
    """
    error = error_of(body)
    code = _code(error.get("code"), status)
    metadata = error.get("metadata")
    provider = name_of(metadata.get("provider_name")) if isinstance(metadata, dict) else None
    facts = ErrorFacts.of(body, secrets=secrets)
    kind, text = _BY_CODE.get(code, (ProviderUnavailable, "The provider failed."))
    if code == _TOO_LARGE or facts.codes & CONTEXT_CODES or (code in _REFUSALS and facts.context_overflow):
        kind, text = ContextWindowExceeded, "The conversation does not fit the model's context window."
    elif code in _REFUSALS and facts.moderation:
        kind, text = InputModerated, "The provider's moderation refused what the request says."
    elif kind is ProviderRejectedRequest and "not a valid model" in facts.words:
        kind, text = ModelUnavailable, "The provider does not know the model."
    told = {"provider_code": str(code)} | ({"provider": provider} if provider else {})
    wait = retry_after(headers)
    if wait is None:
        wait = retry_after_body(error, _sent_time(headers))
    return kind(text, metadata=told, retry_after=wait, message=facts.message)


def from_exception(error: Exception, *, secrets: Iterable[str] = ()) -> ProviderError:
    """Translate a failure of the connection or of the client.

    Args:
        error: The failure.
        secrets: Keys that are masked in the provider's message.

    Raises:
        GodotyError: Ours, which the client has wrapped: the request was kept from leaving.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, GodotyError):
            raise cause
        cause = cause.__cause__
    if isinstance(error, openai.APIStatusError):
        return from_body(error.status_code, _body(error.response), error.response.headers, secrets=secrets)
    if isinstance(error, (openai.APITimeoutError, httpx.TimeoutException)):
        return ProviderUnavailable("The provider took too long.", metadata={"provider_code": "timeout"})
    return ProviderUnavailable("The connection to the provider broke.", metadata={"provider_code": "connection"})


def refused_cleanly(error: Exception) -> bool:
    """Tell whether the provider itself said no: its own error body, and no generation behind it."""
    if not isinstance(error, openai.APIStatusError) or generation_id(error.response.headers):
        return False
    body = _body(error.response)
    return isinstance(body, dict) and isinstance(body.get("error"), dict) and usage_of(error) is None


def usage_of(error: Exception) -> dict[str, Any] | None:
    """Tell the usage that an error's body tells of, its fractions as Decimal: what failed may have cost."""
    if not isinstance(error, openai.APIStatusError):
        return None
    try:
        body = exact.loads(error.response.content)
    except (ValueError, RecursionError, httpx.StreamError):
        return None
    usage = body.get("usage") if isinstance(body, dict) else None
    return usage if isinstance(usage, dict) else None


def generation_id(headers: Mapping[str, str]) -> str | None:
    """Read the provider's id of the generation, which comes before the first token."""
    return id_of(headers.get("x-generation-id"))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read `Retry-After` in seconds; it may be a number, or a date by the clock of the response's `Date`."""
    value = headers.get("retry-after")
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return max(0.0, seconds) if seconds <= _LONGEST_ADVICE else None  # nor is what is no number
    try:
        return max(0.0, (parsedate_to_datetime(value) - _sent_time(headers)).total_seconds())
    except (ValueError, TypeError):
        return None


def _sent_time(headers: Mapping[str, str]) -> datetime:
    """Return when a response was sent, by the provider's clock where it says so: ours may be wrong."""
    try:
        sent = parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return utc_now()
    return sent if sent.tzinfo else sent.replace(tzinfo=UTC)


def _body(response: httpx.Response) -> Any:
    """Return a parsed body, or a plain text; None: it is neither."""
    try:
        return response.json()
    except httpx.StreamError:
        return None
    except (ValueError, RecursionError):
        is_text = response.headers.get("content-type", "").lower().startswith("text/plain")
        return response.content[:_LONGEST_TEXT].decode(errors="replace") if is_text else None


def _code(value: Any, status: int) -> int:
    """Read an error's code, which may be written as a string; what is no HTTP status is not one."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == _DIGITS:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return status
    return int(value) if _LOWEST_CODE <= value <= _HIGHEST_CODE and value == int(value) else status
