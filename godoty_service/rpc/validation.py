"""Checks messages: how long a request takes to arrive, its bytes and field lengths, and the size of a response.

Handlers get a request only after admission, so that a caller without a valid key costs no decoding. The field lengths
are defined here, once; `field_limits.py` checks them, and the codecs check what else the fields must contain.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import cache
from importlib.resources import files
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from godoty_service.agents.client_tools import MAX_SCHEMA_CHARACTERS as MAX_INPUT_SCHEMA
from godoty_service.agents.output.limits import MAX_SCHEMA_CHARACTERS
from godoty_service.errors import FieldViolation, GodotyError, InvalidRequest, UnknownModel
from godoty_service.rpc.pagination import MAX_TOKEN_LENGTH

Context = Any  # grpc.aio.ServicerContext, whose type parameters are of no use here
Decode = Callable[[bytes], Any]
Encode = Callable[[Any], bytes]

MAX_RESPONSE_BYTES = 3 * 1024 * 1024  # clients refuse more than 4 MiB by default
CALLER_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")  # an id that the caller chooses
TURN_ID = re.compile(r"turn_[0-9a-f]{28}")
MODEL_ID = re.compile(r"[A-Za-z0-9._:/~@-]{1,128}")
AGENT_NAME = re.compile(r"[a-z]([a-z0-9-]{0,62}[a-z0-9])?")
AGENT_PATTERN = re.compile(r"[a-z0-9*-]{1,64}")
TOOL_PATTERN = re.compile(r"[A-Za-z0-9._:/*-]{1,128}")
MODEL_PATTERN = re.compile(r"[A-Za-z0-9._:/~@*-]{1,128}")
MAX_FALLBACK_MODELS = 8

# Maximum characters of a text field, by its name; a field of another name in any request is a bug.
LENGTHS = {
    **dict.fromkeys(("action_id", "api_key_id", "attachment_id", "call_id", "user", "user_reference"), 128),
    **dict.fromkeys(("add_usd", "cost_usd", "limit_usd", "max_cost_usd"), 64),
    **dict.fromkeys(("allowed_domains", "excluded_domains"), 253),
    **dict.fromkeys(("description", "disabled_reason", "why"), 1000),
    "agent": 80,
    "allow": 128,
    "allowed_agents": 64,
    "allowed_models": 128,
    "allowed_tools": 128,
    "builtin": 64,
    "client_id": 256,
    "condition": 4096,
    "cursor": MAX_TOKEN_LENGTH,
    "default_fallback_models": 128,
    "default_model": 128,
    "deny": 128,
    "display_name": 200,
    "error": 1000,
    "etag": 64,
    "event_id": 64,
    "event_types": 64,
    "fallback_models": 128,
    "fork_session_id": 128,
    "input_json": 16_384,
    "input_schema": MAX_INPUT_SCHEMA,
    "key": 64,  # of a map
    "lines": 262_144,  # bytes
    "mcp_server": 32,
    "model": 128,
    "models": 128,
    "name": 64,
    **dict.fromkeys(("client_secret", "oauth_scope"), 1024),
    "output_json": 32_768,
    "output_schema": MAX_SCHEMA_CHARACTERS,
    "output_text": 65_536,
    "paths": 128,
    "page_token": MAX_TOKEN_LENGTH,
    "prefix": 32,
    "provider_json": 8192,
    "provider_key": 256,
    "request_id": 128,
    "secret": 2048,
    "session_id": 128,
    "stop": 256,
    "system_prompt": 32_768,
    "tenant_id": 128,
    "time_zone": 64,
    "token_url": 2048,
    "tool_name": 64,
    "turn_id": 128,
    "url": 2048,
    "value": 1024,  # of a map
    "webhook_name": 32,
}
# Maximum number of values of a repeated field, by its name.
COUNTS = {
    **dict.fromkeys(("allow", "allowed_agents", "allowed_models", "allowed_tools", "deny", "models"), 100),
    **dict.fromkeys(("allowed_domains", "excluded_domains"), 20),
    **dict.fromkeys(("default_fallback_models", "fallback_models"), 8),
    "action_results": 16,
    "attachments": 10,
    "budgets": 16,
    "event_types": 16,
    "client_tools": 16,
    "fields": 8,
    "group_by": 16,
    "headers": 8,
    "paths": 32,
    "scopes": 16,
    "stop": 4,
    "tools": 64,
    "variables": 32,
}
BYTES = {"data": 256 * 1024, "inline": 1024 * 1024}  # maximum bytes of a field of bytes, by its name
_NANOSECONDS = 10**9  # of a second
_MICROSECOND = timedelta(microseconds=1)


class MalformedRequest(GodotyError):
    """The bytes are not the message that the method accepts."""

    reason = "MALFORMED_REQUEST"


class RequestNotReceived(GodotyError):
    """The call was started, but its message did not arrive in time."""

    reason = "DEADLINE_EXCEEDED"


class ResponseTooLarge(GodotyError):
    """The response has more bytes than clients accept."""

    reason = "RESPONSE_TOO_LARGE"


class Violations:
    """Collects the invalid fields of a request, so that one error names them all.

    Attributes:
        found: The invalid fields, in the order in which they were added.
    """

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[FieldViolation] = []

    def add(self, field: str, description: str) -> None:
        """Add an invalid field.

        Args:
            field: Its path in the request.
            description: What it must be, as in "must not be negative".
        """
        self.found.append(FieldViolation(field=field, description=description))

    def check_id(self, field: str, text: str) -> None:
        """Add a field whose value cannot be the id of anything."""
        longest = LENGTHS[field]
        if not 0 < len(text) <= longest:
            self.add(field, f"must have 1 to {longest} characters")

    def check_time_zone(self, field: str, name: str) -> None:
        """Add a field that does not name a time zone."""
        if name not in _time_zones():
            self.add(field, "must be the IANA name of a time zone, such as Europe/Berlin")

    def check_length(self, field: str, text: str) -> None:
        """Add a field whose text is too long."""
        longest = LENGTHS[field]
        if len(text) > longest:
            self.add(field, f"must have at most {longest} characters")

    def check_caller_id(self, field: str, text: str) -> None:
        """Add an optional id of the caller's choice if it cannot be one."""
        if text and not CALLER_ID.fullmatch(text):
            self.add(field, f"must match {CALLER_ID.pattern}, or be empty")

    def read_duration(self, field: str, duration: Duration, *, most: timedelta) -> timedelta:
        """Return a duration of 0 to `most`, to the microsecond; add the field if it is another one, or none at all."""
        nanoseconds = duration.seconds * _NANOSECONDS + duration.nanos
        if not (0 <= duration.nanos < _NANOSECONDS and 0 <= nanoseconds <= most // _MICROSECOND * 1000):
            self.add(field, f"must be 0 to {int(most.total_seconds())} seconds")
            return timedelta(0)
        return nanoseconds // 1000 * _MICROSECOND

    def raise_if_any(self) -> None:
        """Refuse the request if any field is invalid.

        Raises:
            InvalidRequest: One or more fields are invalid; the error names them all.
        """
        if self.found:
            text = "; ".join(f"{each.field}: {each.description}" for each in self.found)
            raise InvalidRequest(text, violations=self.found)


def unknown_model(field: str, model: str) -> UnknownModel:
    """Return the error for a model that the provider does not list.

    Args:
        field: The path of the field that names it.
        model: Its id.
    """
    return UnknownModel(
        f"The provider's catalogue has no model {model}.",
        metadata={"model": model},
        violations=[FieldViolation(field=field, description="no such model")],
    )


async def read_request(context: Context, decode: Decode, *, seconds: float) -> Any:
    """Read the only message of a call.

    Args:
        context: The call.
        decode: Decodes the message's bytes.
        seconds: Time in which the whole message must arrive.

    Raises:
        RequestNotReceived: It did not arrive in time.
        MalformedRequest: There is none, or it cannot be decoded.
    """
    body = await _receive(context, seconds=seconds)
    if body is None:
        raise MalformedRequest("The call has no request message.")
    return _decode(decode, body)


async def read_requests(context: Context, decode: Decode, *, seconds: float) -> AsyncIterator[Any]:
    """Read the messages of a call until the client ends its stream.

    Args:
        context: The call.
        decode: Decodes a message's bytes.
        seconds: Time in which each message must arrive.

    Raises:
        RequestNotReceived: One did not arrive in time.
        MalformedRequest: One cannot be decoded.
    """
    while (body := await _receive(context, seconds=seconds)) is not None:
        yield _decode(decode, body)


def encode_response(encode: Encode, response: Any) -> bytes:
    """Encode a response.

    Raises:
        ResponseTooLarge: It has more than `MAX_RESPONSE_BYTES`.
    """
    body = encode(response)
    if len(body) > MAX_RESPONSE_BYTES:
        raise response_too_large(body)
    return body


def response_too_large(body: bytes) -> ResponseTooLarge:
    """Return the error for a response that is too large."""
    return ResponseTooLarge(
        f"The response has {len(body):,} bytes, above the limit of {MAX_RESPONSE_BYTES:,}: request a smaller page.",
        metadata={"bytes": str(len(body))},
    )


async def _receive(context: Context, *, seconds: float) -> bytes | None:
    try:
        async with asyncio.timeout(seconds):
            body = await context.read()
    except TimeoutError:
        raise RequestNotReceived(f"The request message did not arrive within {seconds:g} s.") from None
    return None if body is grpc.aio.EOF else body  # type: ignore[attr-defined] # the stubs hide it


def _decode(decode: Decode, body: bytes) -> Any:
    try:
        return decode(body)
    except GodotyError:  # refused for its contents
        raise
    except Exception as error:
        raise MalformedRequest("The request could not be decoded.") from error


@cache
def _time_zones() -> frozenset[str]:
    """Return the known names, the same on all hosts: ZoneInfo would open any other as a file of the host."""
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="utf-8").split()) - {"Factory"}
