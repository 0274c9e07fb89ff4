"""Translates failures of the provider and of the network into errors of `godoty_service.errors`, at the edge. Pure.

Upstream providers' own errors are in `metadata.raw`, as text or as JSON in a string, of any shape: only bounded parts
of them are read.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2 as httpx
import openai
from pydantic_core import from_json

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
from godoty_service.openrouter import decimal_json
from godoty_service.openrouter.decoding.chunk import with_pipeline_cost
from godoty_service.openrouter.decoding.text import (
    MAX_MESSAGE_CHARACTERS,
    clean_message,
    id_of,
    name_of,
    replace_lone_surrogates,
)
from godoty_service.pricing.token_usage import PIPELINE_COST

_TOO_LARGE = 413
_CODE_DIGITS, _MIN_CODE, _MAX_CODE = 3, 100, 999
_MAX_RETRY_AFTER = 86_400.0  # seconds; a longer advice is ignored
_REQUEST_CODES = frozenset({400, 403, 413, 422})  # codes under which the request itself may be at fault
_MAX_PLAIN_BODY = 16 * 1024  # bytes of a plain text error body that are read
_MAX_RAW = 64 * 1024  # characters of an upstream provider's error that are read
_MAX_DEPTH = 4  # levels of nested error objects
_MAX_MESSAGES = 8  # messages of one body
_EPOCH_MILLISECONDS = 10**11  # a Unix time above this is in milliseconds
# By code: the error, and its text. The provider's own message is separate, in `ProviderError.message`.
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
_CONTEXT_CODES = frozenset(
    {
        "context_length_exceeded",
        "context_window_exceeded",
        "model_context_window_exceeded",
        "max_tokens_exceeded",
        "token_limit_exceeded",
        "payload_too_large",
        "request_too_large",
        "string_above_max_length",
        "string_too_long",
    }
)
_CONTEXT_WORDS = re.compile(
    r"context.{0,20}(length|window|limit|size)"  # OpenAI, vLLM, llama.cpp, Anthropic's "exceed context limit"
    r"|maximum.{0,40}tokens|tokens?.{0,60}exceeds?.{0,40}(maximum|limit)"  # Google
    r"|too many.{0,20}tokens"  # Bedrock, Cohere
    r"|(prompt|input|request|conversation|history).{0,20}is too (long|large)"  # Anthropic, Bedrock
    r"|reduce the length of",  # OpenAI, OpenRouter
    re.IGNORECASE,
)
_MODERATION_CODES = frozenset(
    {"content_policy_violation", "moderation", "content_filter", "refusal", "responsibleaipolicyviolation"}
)
_MODERATION_WORDS = re.compile(
    r"\b(input|prompt|content|request|message).{0,40}\b(was |is |has been )?(flagged|moderat)|requires moderation",
    re.IGNORECASE,
)


def from_body(status: int, body: Any, headers: Mapping[str, str], *, secrets: Iterable[str] = ()) -> ProviderError:
    """Translate an error body, which may come with any HTTP status.

    Args:
        status: The HTTP status; a code in the body outranks it.
        body: The parsed body, of any shape.
        headers: The response's headers, for `Retry-After`.
        secrets: Keys to mask in the provider's message.
    """
    error = _mapping(_mapping(body).get("error"))
    code = _code(error.get("code"), status)
    facts = _ErrorFacts.of(error, body, secrets=secrets)
    kind, text = _classify(code, facts)
    metadata = {"provider_code": str(code)}
    if provider := name_of(_mapping(error.get("metadata")).get("provider_name")):
        metadata["provider"] = provider
    wait = retry_after(headers)
    if wait is None:
        wait = _retry_after_body(error, _sent_time(headers))
    return kind(text, metadata=metadata, retry_after=wait, message=facts.message)


def from_exception(error: Exception, *, secrets: Iterable[str] = ()) -> ProviderError:
    """Translate a failure of the connection or of the client.

    Args:
        error: The failure.
        secrets: Keys to mask in the provider's message.

    Raises:
        GodotyError: The failure was caused by one of our own errors, which prevented the request from being sent.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, GodotyError):
            raise cause
        cause = cause.__cause__
    if isinstance(error, openai.APIStatusError):
        return from_body(error.status_code, _parse_body(error.response), error.response.headers, secrets=secrets)
    if isinstance(error, (openai.APITimeoutError, httpx.TimeoutException)):
        return ProviderUnavailable("The provider took too long.", metadata={"provider_code": "timeout"})
    return ProviderUnavailable("The connection to the provider broke.", metadata={"provider_code": "connection"})


def is_free_rejection(error: Exception) -> bool:
    """Return whether the provider itself rejected the request: an error body without a generation and without fees."""
    if not isinstance(error, openai.APIStatusError) or generation_id(error.response.headers):
        return False
    body = _parse_body(error.response)
    if not isinstance(body, dict) or not isinstance(body.get("error"), dict):
        return False
    return usage_of(error) is None and not _has_fees(error.response)


def usage_of(error: Exception) -> dict[str, Any] | None:
    """Return the usage in an error's body, with fractions as Decimal: a failed request may have cost."""
    if not isinstance(error, openai.APIStatusError):
        return None
    try:
        body = decimal_json.loads(error.response.content)
    except (ValueError, RecursionError, httpx.StreamError):
        return None
    usage = body.get("usage") if isinstance(body, dict) else None
    return usage if isinstance(usage, dict) else None


def _has_fees(response: httpx.Response) -> bool:
    """Return whether an error's body reports fees of plugins, which a failed request may have cost."""
    try:
        body = decimal_json.loads_or_none(response.content)
    except httpx.StreamError:
        return False
    metadata = body.get("openrouter_metadata") if isinstance(body, dict) else None
    return bool(with_pipeline_cost({}, metadata).get(PIPELINE_COST))


def generation_id(headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of the generation, which is known before the first token."""
    return id_of(headers.get("x-generation-id"))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return `Retry-After` in seconds; it may be a number, or a date by the clock of the response's `Date`."""
    value = headers.get("retry-after")
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return max(0.0, seconds) if seconds <= _MAX_RETRY_AFTER else None  # None for NaN as well
    try:
        return max(0.0, (parsedate_to_datetime(value) - _sent_time(headers)).total_seconds())
    except (ValueError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class _ErrorFacts:
    """What an error body states beyond its code.

    Attributes:
        codes: Its codes and types that are words, in lower case.
        words: Its messages.
        moderated: It names the input that a moderation flagged.
        message: Its messages, cleaned so that they can be stored and shown; None: there are none.
    """

    codes: frozenset[str]
    words: str
    moderated: bool
    message: str | None = None

    @classmethod
    def of(cls, error: Mapping[str, Any], body: Any, *, secrets: Iterable[str]) -> "_ErrorFacts":
        """Read a body's `error` object and the upstream provider's errors inside it."""
        parts = list(_error_objects(error, _MAX_DEPTH))
        codes = [part.get(name) for part in parts for name in ("code", "type", "error_type", "status", "reason")]
        words = [part.get("message") for part in parts] + [part.get("raw") for part in parts]
        return cls(
            codes=frozenset(code.lower() for code in codes if isinstance(code, str)),
            words="\n".join(word[:_MAX_RAW] for word in words if isinstance(word, str)),
            moderated=any(part.get("flagged_input") or isinstance(part.get("reasons"), list) for part in parts),
            message=_error_message(parts, body, secrets=secrets),
        )

    @property
    def context_overflow(self) -> bool:
        """Whether the conversation does not fit the model."""
        return bool(self.codes & _CONTEXT_CODES or _CONTEXT_WORDS.search(self.words))

    @property
    def moderation(self) -> bool:
        """Whether a moderation rejected the content of the request."""
        return bool(self.moderated or self.codes & _MODERATION_CODES or _MODERATION_WORDS.search(self.words))


def _classify(code: int, facts: _ErrorFacts) -> tuple[type[ProviderError], str]:
    """Return the error class and its text."""
    kind, text = _BY_CODE.get(code, (ProviderUnavailable, "The provider failed."))
    if code == _TOO_LARGE or facts.codes & _CONTEXT_CODES or (code in _REQUEST_CODES and facts.context_overflow):
        return ContextWindowExceeded, "The conversation does not fit the model's context window."
    if code in _REQUEST_CODES and facts.moderation:
        return InputModerated, "The provider's moderation rejected the content of the request."
    if kind is ProviderRejectedRequest and "not a valid model" in facts.words:
        return ModelUnavailable, "The provider does not know the model."
    return kind, text


def _error_objects(error: Mapping[str, Any], depth: int) -> Iterator[Mapping[str, Any]]:
    """Yield an error object, its metadata, and the objects nested in them, JSON strings included."""
    yield error
    if depth == 0:
        return
    for name in ("metadata", "raw", "error", "innererror"):
        inner = error.get(name)
        if isinstance(inner, str) and name == "raw":
            inner = _parse_raw(inner)
        if isinstance(inner, dict):
            yield from _error_objects(inner, depth - 1)


def _parse_raw(text: str) -> Any:
    if len(text) > _MAX_RAW or not text.lstrip().startswith("{"):
        return None
    try:
        return from_json(replace_lone_surrogates(text))
    except ValueError:
        return None


def _error_message(parts: Iterable[Mapping[str, Any]], body: Any, *, secrets: Iterable[str]) -> str | None:
    """Return an error body's messages, cleaned, in at most 500 characters; None: there are none.

    Args:
        parts: The `error` object and those inside it, the outermost first.
        body: The whole body, of any shape: gateways without an `error` object have their message elsewhere.
        secrets: Keys to mask: the one that the request was sent with.
    """
    messages: list[str] = []
    for text in [*_messages(parts), *_other_messages(body)]:
        if text.strip() and not any(text in each for each in messages):
            messages.append(text)
    cleaned = (clean_message(text, secrets=secrets) for text in messages[:_MAX_MESSAGES])
    return ": ".join(filter(None, cleaned))[:MAX_MESSAGE_CHARACTERS] or None


def _messages(parts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the messages of error objects, and an upstream provider's error if it is plain text."""
    for part in parts:
        for name in ("message", "raw", "detail"):
            text = part.get(name)
            if isinstance(text, str) and not (name == "raw" and text.lstrip().startswith("{")):
                yield text


def _other_messages(body: Any) -> Iterator[str]:
    """Yield the messages of a body without an `error` object."""
    if isinstance(body, str):
        yield body
    if not isinstance(body, Mapping) or isinstance(body.get("error"), Mapping):
        return
    for name in ("error", "message", "detail"):
        value = body.get(name)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):  # FastAPI's list of invalid fields
            for each in value[:_MAX_MESSAGES]:
                if isinstance(each, Mapping) and isinstance(text := each.get("msg"), str):
                    yield _with_location(each.get("loc"), text)


def _with_location(location: Any, text: str) -> str:
    names = [name for name in location[:_MAX_MESSAGES] if isinstance(name, str)] if isinstance(location, list) else []
    return f"{'.'.join(names)} {text}" if names else text


def _retry_after_body(error: Mapping[str, Any], now: datetime) -> float | None:
    """Return the seconds to wait that a body advises, by a duration or by the time at which a limit resets."""
    metadata, availability = _mapping(error.get("metadata")), _mapping(error.get("availability"))
    headers = {str(name).lower(): value for name, value in _mapping(metadata.get("headers")).items()}
    waits = (
        availability.get("retry_after"),
        metadata.get("retry_after"),
        metadata.get("retry_after_seconds"),
        headers.get("retry-after"),
    )
    for wait in waits:
        if (seconds := _seconds(wait)) is not None and seconds <= _MAX_RETRY_AFTER:
            return seconds
    reset = _seconds(headers.get("x-ratelimit-reset"))
    if reset is None:
        return None
    remaining = (reset / 1000 if reset > _EPOCH_MILLISECONDS else reset) - now.timestamp()
    return remaining if 0 <= remaining <= _MAX_RETRY_AFTER else None


def _sent_time(headers: Mapping[str, str]) -> datetime:
    """Return when a response was sent, by the provider's clock if it is stated: ours may be wrong."""
    try:
        sent = parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return utc_now()
    return sent if sent.tzinfo else sent.replace(tzinfo=UTC)


def _parse_body(response: httpx.Response) -> Any:
    """Return a parsed body, or its plain text; None: it is neither."""
    try:
        return response.json()
    except httpx.StreamError:
        return None
    except (ValueError, RecursionError):
        is_text = response.headers.get("content-type", "").lower().startswith("text/plain")
        return response.content[:_MAX_PLAIN_BODY].decode(errors="replace") if is_text else None


def _code(value: Any, status: int) -> int:
    """Return an error's code, which may be a numeric string; if it is not an HTTP status, return the response's."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == _CODE_DIGITS:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return status
    return int(value) if _MIN_CODE <= value <= _MAX_CODE and value == int(value) else status


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _seconds(value: Any) -> float | None:
    """Return a duration or a Unix time in seconds; None if it is negative or not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < float("inf") else None
