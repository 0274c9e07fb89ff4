"""What does not fit a field, by its type and its name: no request with such a value is served.

A text field of a new name needs a line in `TEXTS`, if only an empty one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.api.field_behavior_pb2 import IDENTIFIER, OUTPUT_ONLY, field_behavior
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from godoty_service.rpc.validation import BYTES, COUNTS, LENGTHS
from tests.e2e.contract.requests import is_map, new_message, path_of

_LAST_SECOND = 253_402_300_799  # of the year 9999
_AMOUNTS = ("", "-", "NaN", "Infinity", "1e3", "1,5", "0x1", " 1", "\u0663", "1000001", f"0.{'0' * 25}1")
_IDS = ("a b", "ü", "a\n", "a/b", "a\0", '{"$ne": null}')
_MODELS = ("a b", "ü/x", "a\0", "a\n", "openai/*")
_PATTERNS = ("", "a b", "ü/*", "a\0", "a\n")
_TOOLS = ("", "a b", "ü", "a\0", "a\n", "a?")
_SECRETS = (" a", "a ", "ü", "a\0", "a\r\nHost: b")
_URLS = (
    *("", "mcp.example", "ftp://mcp.example/", "file:///etc/passwd", "https://", "https://a b/", "https://[::1/"),
    *("https://u:p@mcp.example/", "https://mcp.example/#a", "https://mcp.example:99999/", "https://ü.example/"),
    *("https://10.0.0.1/", "https://[::ffff:10.0.0.1]/", "http://93.184.216.34/", "https://169.254.169.254/"),
)
_DOMAINS = ("", "localhost", "a b.example", "ü.example", "https://a.example", "a.example?b", "*", "a..example", "a.b\0")
_PRINTED = (" \n", "a\0b", "a\u202eb")
_SCHEMAS = ("{", "[]", "1", "nul", "[" * 4000, '{"$ref": "http://127.0.0.1:1/"}', '{"$ref": "#"}')
TOKENS = ("garbage", "!!!!", "ü", "A", "AAAA", "=", "bnVsbA", "Nw", "W10", "e30", "WyJtYXJrIl0", "\0", "A" * 8193)
# By a field's name, or its full name: what no text in it can be, besides too long. An id that is merely unknown is
# another matter (`test_misfits.py`).
TEXTS: dict[str, tuple[str, ...]] = {
    "action_id": ("",),
    "add_usd": (*_AMOUNTS, "0"),
    "agent": ("A", "a_b", "-a", "a-", "1a", "a@", "a@x", "a@-1", "a@1@2", "@1", "a@2147483648", "ü", "a\0", "a" * 65),
    "allow": _TOOLS,
    "allowed_agents": ("", "A", "a b", "a_b", "ü", "a\0", "a@1", "a" * 65),
    "allowed_domains": _DOMAINS,
    "allowed_models": _PATTERNS,
    "allowed_tools": ("", "a b", "ü", "a\0", "a\n"),
    "api_key_id": (),
    "attachment_id": ("",),
    "builtin": ("", "no_such_tool", "Calculator", "calculator\0"),
    "call_id": (),
    "client_id": ("", *_SECRETS),
    "client_secret": ("", *_SECRETS),
    "condition": _SCHEMAS,
    "cost_usd": (*_AMOUNTS, "-1"),
    "cursor": TOKENS,
    "default_fallback_models": ("", *_MODELS),
    "default_model": _MODELS,
    "deny": _TOOLS,
    "description": ("a\0b", "a\u202eb", "a\nb"),
    "display_name": _PRINTED,
    "error": ("", " ", *_PRINTED),
    "etag": (),
    "event_id": ("", "evt_", f"evt_{'g' * 32}", f"evt_{'0' * 33}", "a b", "\0"),
    "event_types": ("", "turn", "turn.*", "*", "Turn.finished", "turn.finished\0"),
    "excluded_domains": _DOMAINS,
    "fallback_models": ("", *_MODELS),
    "fork_session_id": _IDS,
    "input_json": ("{", "[]", "1", "nul", "[" * 4000),
    "input_schema": ("{", "[]", "1", "{}", "nul", "[" * 4000),
    "limit_usd": (*_AMOUNTS, "0", "-1"),
    "lines": (
        *("", " \n", "{", "[]", "nul", "[" * 4000, '{"end": {}}'),
        *('{"begin": {}}', '{"begin": {"format": 1}}'),
    ),
    "max_cost_usd": (*_AMOUNTS, "0", "-1"),
    "mcp_server": ("", "A", "a_b", "-a", "a-", "1a", "a b", "ü", "a\0"),
    "model": _MODELS,
    "models": _PATTERNS,
    "name": ("A", "a_b", "-a", "a-", "1a", "a b", "ü", "a\0", "a\n", "a@1", "a" * 65),
    "oauth_scope": _SECRETS,
    "output_json": ("{", "", "nul", "[" * 4000, "NaN"),
    "output_schema": _SCHEMAS,
    "output_text": (),
    "page_token": TOKENS,
    "prefix": ("a-b", "a b", "ü", "a\0"),
    "provider_json": ("{", "[]", "1", '"a"', "nul", "[" * 4000, '{"unknown": 1}'),
    "provider_key": ("short", "ü" * 9, "with a space", "a" * 300),
    "request_id": _IDS,
    "secret": ("", *_SECRETS),
    "session_id": _IDS,
    "stop": ("",),
    "system_prompt": ("{{now}}", "{{variables}}", "{{variables.}}", "{{ variables.a-b }}", "{{today}}" * 65),
    "tenant_id": (),
    "text": (" ", "\n\t\u2003"),
    "time_zone": ("Nowhere/Land", "../../etc/passwd", "utc\0", "UTC ", "+01:00"),
    "token_url": _URLS,
    "tool_name": ("", "1a", "a b", "ü", "a\0", "a.b"),
    "turn_id": ("turn_", f"turn_{'g' * 28}", f"turn_{'0' * 29}", "a b", "\0"),
    "url": _URLS,
    "user": (),
    "user_reference": (),
    "webhook_name": ("", "A", "a_b", "-a", "a-", "1a", "a b", "ü", "a\0"),
    "why": _PRINTED,
    "godoty.v1.McpHeader.name": ("", "a b", "a:", "ü", "a\n", "Host", "content-length", "Mcp-Session-Id"),
    "godoty.v1.DeleteAgentRequest.agent": ("a@1", "A", "a_b"),
    "godoty.v1.ListAgentVersionsRequest.agent": ("a@1", "A", "a_b"),
    "godoty.v1.CreateTenantRequest.tenant_id": ("Acme", "ac", "-acme", "acme-", "1acme", "a_b", "ac\0me", "ü" * 4),
}
MASKS: tuple[Sequence[str], ...] = (
    *([], [""], ["no_such_field"], ["a.b"], ["*.a"], ["camelCase"], ["\0"], ["$set"], ["*", "no_such_field"]),
    *(["a" * 129], ["*"] * 33),
)
NUMBERS: dict[int, Sequence[float]] = {
    FieldDescriptor.CPPTYPE_INT32: (-1, -(2**31)),
    FieldDescriptor.CPPTYPE_INT64: (-1, -(2**63)),
    FieldDescriptor.CPPTYPE_DOUBLE: (-1.0, 2.5, -1e-300, 1e300, float("inf"), float("-inf"), float("nan")),
}
MAPS: tuple[dict[str, str], ...] = (
    *({"": "a"}, {"a b": "a"}, {"1": "a"}, {"ü": "a"}, {"a.b": "a"}, {"a" * 65: "a"}, {"a" * 999: "a"}),
    *({"a": "b" * 1025}, {"a": "b" * 9999}, {f"a{number}": "" for number in range(33)}),
)
TIMES = (
    *(Timestamp(seconds=_LAST_SECOND + 1), Timestamp(seconds=-62_135_596_801), Timestamp(seconds=2**62)),
    *(Timestamp(seconds=-(2**63)), Timestamp(seconds=1, nanos=-1), Timestamp(seconds=1, nanos=10**9)),
)
DURATIONS = (
    *(Duration(seconds=-1), Duration(nanos=-1), Duration(seconds=1, nanos=-1), Duration(seconds=1, nanos=10**9)),
    *(Duration(seconds=2**62), Duration(seconds=-(2**63)), Duration(seconds=315_576_000_001)),
)
# Fields that take any text that their length allows: names of models by other providers have no form.
ANY_TEXT = {"godoty.v1.ListLedgerEntriesRequest.model"}


@dataclass(frozen=True)
class Misfit:
    """A value that a field cannot have.

    Attributes:
        path: The fields that lead to it, from the request's.
        value: The value.
    """

    path: list[FieldDescriptor]
    value: Any

    @property
    def name(self) -> str:
        """The path as an error names it."""
        return path_of(self.path)

    def is_named(self, fields: Sequence[str]) -> bool:
        """Return whether an error names the field, or a value in it, and no other field."""
        return bool(fields) and all(
            each == self.name or each.startswith((f"{self.name}[", f"{self.name}.")) for each in fields
        )

    def __str__(self) -> str:
        return f"{self.name} = {str(self.value)[:60]!r}"


def misfits(descriptor: Descriptor, parents: Sequence[FieldDescriptor] = ()) -> Iterator[Misfit]:
    """Return what does not fit the fields of a request, and those of the messages in it."""
    for field in descriptor.fields:
        path = [*parents, field]
        behavior = field.GetOptions().Extensions[field_behavior]
        if OUTPUT_ONLY in behavior or (parents and IDENTIFIER in behavior):
            continue  # ignored in requests, with any value
        inner = field.message_type
        if is_map(field):
            yield from (Misfit(path, value) for value in MAPS)
            continue
        if inner is not None and inner.file.package == descriptor.file.package:
            yield from misfits(inner, path)
        for value in _values(field):
            yield Misfit(path, [value] if field.is_repeated else value)
        if field.is_repeated:
            yield Misfit(path, [_smallest(field)] * (COUNTS[field.name] + 1))


def _values(field: FieldDescriptor) -> Sequence[Any]:
    """Return what a field, or one of its values, cannot be."""
    if field.cpp_type in NUMBERS:
        return NUMBERS[field.cpp_type]
    if field.message_type is not None:
        masks = [FieldMask(paths=paths) for paths in MASKS]
        known: dict[str, Sequence[Any]] = {
            Timestamp.DESCRIPTOR.full_name: TIMES,
            Duration.DESCRIPTOR.full_name: DURATIONS,
            FieldMask.DESCRIPTOR.full_name: masks,
        }
        return known.get(field.message_type.full_name, ())
    if field.type == FieldDescriptor.TYPE_BYTES:
        return (b"", bytes(BYTES[field.name] + 1))
    if field.enum_type is not None:
        return (99, -1, *([0] if field.is_repeated else []))
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return _texts(field)
        case FieldDescriptor.CPPTYPE_BOOL:
            return ()
    raise AssertionError(f"{field.full_name}: say what does not fit a field of this type")


def _texts(field: FieldDescriptor) -> Sequence[str]:
    texts = TEXTS.get(field.full_name, TEXTS.get(field.name))
    assert texts is not None, f"{field.full_name}: say in TEXTS what does not fit it"
    longest = LENGTHS.get(field.name, 256 * 1024)
    if field.full_name in ANY_TEXT:
        return ["a" * (2 * longest + 1)]
    lengths = (2 * longest + 1,) if field.name == "etag" else (longest + 1, 2 * longest + 1)
    return (*texts, *("a" * length for length in lengths if length < 300 * 1024))


def _smallest(field: FieldDescriptor) -> Any:
    if field.message_type is not None:
        return new_message(field.message_type)()
    return 1 if field.enum_type is not None else "a"
