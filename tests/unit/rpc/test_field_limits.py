"""Limits of requests: their bytes before they are decoded, then the length of each field."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from godoty.v1 import admin_service_pb2 as admin_pb
from godoty.v1 import agent_definition_service_pb2 as definitions_pb
from godoty.v1 import agent_pb2, attachment_pb2, budget_pb2, tenant_pb2
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import billing_service_pb2 as billing_pb
from godoty.v1 import mcp_server_pb2 as mcp_pb
from godoty.v1 import turn_pb2 as turn_pb
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor

from bench.hostile_inputs import HUGE
from godoty_service.agents.outbound.addresses import AddressRules
from godoty_service.clock import utc_now
from godoty_service.errors import InvalidRequest
from godoty_service.rpc.admin import codec, key_codec, policy_codec
from godoty_service.rpc.agents import codec as agents_codec
from godoty_service.rpc.agents import mcp_codec
from godoty_service.rpc.billing import codec as billing_codec
from godoty_service.rpc.conversations.attachment_codec import RequestLimits, inline_bytes
from godoty_service.rpc.conversations.turn_request_codec import parse_turn_request
from godoty_service.rpc.field_limits import FieldLimits, RequestTooLarge
from godoty_service.rpc.pagination import decode_any_token
from godoty_service.rpc.validation import BYTES, COUNTS, LENGTHS

TEXT_BYTES = 256 * 1024
SERVICES: list[ServiceDescriptor] = [
    service
    for file in (pb, definitions_pb, admin_pb, billing_pb)
    for service in file.DESCRIPTOR.services_by_name.values()
]
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]
LIMITS = FieldLimits(SERVICES, max_text_bytes=TEXT_BYTES)
MANY = 200_000
VARIABLES = pb.ConverseRequest(text="hi", variables={str(number): "" for number in range(9_000)})
HEADER = mcp_pb.McpHeader(name="X-Key", secret="a")
SOURCE = attachment_pb2.AttachmentSource(attachment_id="a")
TOOL = agent_pb2.AgentTool(builtin="calculator")
GROUP, SCOPE = billing_pb.USAGE_GROUP_HOUR, tenant_pb2.API_SCOPE_CONVERSE
BOUNDED = 2000  # lines of Python: what is done with a request that is refused for its length


def names(methods: list[MethodDescriptor]) -> list[str]:
    """Return the ids of test cases."""
    return [method.name for method in methods]


def fields(descriptor: Descriptor | None) -> Iterator[FieldDescriptor]:
    """Return the fields of a message and of its nested messages."""
    for field in descriptor.fields if descriptor is not None else ():
        yield field
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from fields(field.message_type)


def longest(field: FieldDescriptor) -> Any:
    """Return the longest value of a field that is no message."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return "\U0001d51e" * (TEXT_BYTES // 4 if field.name == "text" else LENGTHS[field.name])
    return bytes(BYTES[field.name]) if field.type == FieldDescriptor.TYPE_BYTES else -1


def full(descriptor: Descriptor) -> Any:
    """Return a message whose fields all have their maximum length, in the widest characters."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        count = COUNTS[field.name] if field.is_repeated else 1
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            keys = ("\U0001d51e" * (LENGTHS["key"] - 3) + f"{number:03}" for number in range(count))
            getattr(message, field.name).update(dict.fromkeys(keys, "\U0001d51e" * LENGTHS["value"]))
            continue
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            assert field.message_type is not None
            inner = full(field.message_type)
            chosen = message.WhichOneof(field.containing_oneof.name) if field.containing_oneof is not None else None
            if chosen is not None and message.ByteSize() > inner.ByteSize():
                continue  # the largest of the fields of which one is set
            if field.is_repeated:
                getattr(message, field.name).extend([inner] * count)
            else:
                getattr(message, field.name).CopyFrom(inner)
            continue
        value = longest(field)
        chosen = message.WhichOneof(field.containing_oneof.name) if field.containing_oneof is not None else None
        if chosen is not None and message.ByteSize() > len(str(value).encode()):
            continue  # the largest of the fields of which one is set
        if field.is_repeated:
            getattr(message, field.name).extend([value] * count)
        elif field.type == FieldDescriptor.TYPE_BOOL:
            setattr(message, field.name, True)
        else:
            setattr(message, field.name, value)
    return message


@pytest.mark.parametrize("method", METHODS, ids=names(METHODS))
def test_each_field_has_a_limit(method: MethodDescriptor) -> None:
    """A text or repeated field that is added to the contract needs a limit."""
    for field in fields(method.input_type):
        if field.type == FieldDescriptor.TYPE_BYTES:
            assert field.name in BYTES, field.full_name
        if field.type == FieldDescriptor.TYPE_STRING and field.name != "text":
            assert field.name in LENGTHS, field.full_name
        if field.is_repeated:
            assert field.name in COUNTS, field.full_name


@pytest.mark.parametrize("method", METHODS, ids=names(METHODS))
def test_message_with_fields_of_maximum_length_is_decoded(method: MethodDescriptor) -> None:
    """A method's maximum bytes follow from its fields: a message of maximum fields is within them."""
    body = full(method.input_type).SerializeToString()
    decode = message_factory.GetMessageClass(method.input_type).FromString
    decoder = LIMITS.decoder(f"/{method.containing_service.full_name}/{method.name}", decode)

    assert decoder(body) is not None
    assert LIMITS.largest(method.input_type) <= max(4 * len(body), len(body) + 16 * 1024)


@pytest.mark.parametrize("method", METHODS, ids=names(METHODS))
def test_larger_message_is_not_decoded(method: MethodDescriptor) -> None:
    """A message above its method's maximum bytes is refused before decoding."""

    def decode(_: bytes) -> None:
        raise AssertionError("it was decoded")

    decoder = LIMITS.decoder(f"/{method.containing_service.full_name}/{method.name}", decode)

    with pytest.raises(RequestTooLarge, match="this method accepts at most"):
        decoder(b"x" * (LIMITS.largest(method.input_type) + 1))


def test_inline_bytes_are_apart() -> None:
    """A turn may have a mebibyte of them; as much of anything else is refused before it is decoded."""
    limits = RequestLimits(SERVICES, max_text_bytes=TEXT_BYTES)
    decode = limits.decoder("/godoty.v1.AgentService/Converse", pb.ConverseRequest.FromString)
    inline = attachment_pb2.AttachmentSource(inline=bytes(1024 * 1024))
    request = pb.ConverseRequest(text="x" * TEXT_BYTES, session_id="a", attachments=[inline])

    assert decode(request.SerializeToString()) == request
    assert inline_bytes(request.SerializeToString()) == 1024 * 1024
    nested = pb.StartTurnRequest(request=request)
    start = limits.decoder("/godoty.v1.AgentService/StartTurn", pb.StartTurnRequest.FromString)
    assert start(nested.SerializeToString()) == nested
    for hostile in (b"\x0a" * 1_400_000, b"\x12\x00" * 700_000, nested.SerializeToString()[:-9] * 2):
        with pytest.raises(RequestTooLarge):
            start(hostile)
    for hostile in (b"\x72\x00" * 700_000, b"\x62\x02\x0a\x00" * 350_000, request.SerializeToString()[:-9] * 2):
        with pytest.raises(RequestTooLarge):
            decode(hostile)
    for _ in range(200):
        assert inline_bytes(request.SerializeToString()[: _ * 7]) == 0


TOO_LONG: list[tuple[str, Any]] = [
    ("session_id", pb.GetSessionRequest(session_id="a" * 257)),
    ("user", pb.ConverseRequest(text="hi", user="a" * 257)),
    ("fallback_models", pb.ConverseRequest(text="hi", fallback_models=["a"] * 9)),
    ("fallback_models", pb.ConverseRequest(text="hi", fallback_models=["a", "b" * 257])),
    ("limits.max_cost_usd", pb.ConverseRequest(text="hi", limits=turn_pb.TurnLimits(max_cost_usd="1" * 129))),
    ("variables", pb.ConverseRequest(text="hi", variables={str(number): "" for number in range(33)})),
    ("variables", pb.ConverseRequest(text="hi", variables={"a": "b", "c" * 129: ""})),
    ("variables", pb.ConverseRequest(text="hi", variables={"a": "b", "c": "d" * 2049})),
    (
        "definition.tools[1].builtin",
        definitions_pb.ApplyAgentRequest(definition={"tools": [{}, {"builtin": "a" * 129}]}),
    ),
    ("page_token", pb.ListSessionsRequest(page_token="a" * 16385)),
    ("policy.provider_json", admin_pb.UpdatePolicyRequest(policy=tenant_pb2.Policy(provider_json=" " * 16385))),
    (
        "policy.budgets[1].limit_usd",
        admin_pb.UpdatePolicyRequest(policy=tenant_pb2.Policy(budgets=[{}, {"limit_usd": "1" * 129}])),
    ),
    ("group_by", billing_pb.GetUsageRequest(group_by=[GROUP] * 17)),
    ("scopes", admin_pb.CreateApiKeyRequest(scopes=[SCOPE] * 17)),
]


@pytest.mark.parametrize(("field", "request_"), TOO_LONG, ids=[field for field, _ in TOO_LONG])
def test_too_long_field_is_named(field: str, request_: Any) -> None:
    """The violation has the field's path and its limit."""
    with pytest.raises(InvalidRequest) as caught:
        LIMITS.check(request_)

    (violation,) = caught.value.violations
    assert violation.field == field
    assert "at most" in violation.description


def test_all_too_long_fields_are_named_in_one_error() -> None:
    """One error names them all."""
    with pytest.raises(InvalidRequest) as caught:
        LIMITS.check(pb.ConverseRequest(session_id="a" * 300, user="a" * 300, model="a" * 300))

    assert [each.field for each in caught.value.violations] == ["session_id", "model", "user"]


def lines_of(work: Callable[[], Any]) -> int:
    """Return the number of lines of Python that a refusal executes, each loop iteration counted."""
    count = 0

    def trace(_frame: Any, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(InvalidRequest):
            work()
    finally:
        sys.settrace(before)
    return count


HOSTILE: dict[str, Callable[[], Any]] = {
    "limits": lambda: LIMITS.check(billing_pb.GetUsageRequest(group_by=[GROUP] * MANY)),
    "limits of messages": lambda: LIMITS.check(
        admin_pb.UpdatePolicyRequest(policy=tenant_pb2.Policy(budgets=[budget_pb2.Budget()] * MANY))
    ),
    "GetUsage groups": lambda: billing_codec.parse_usage_query(billing_pb.GetUsageRequest(group_by=[GROUP] * MANY)),
    "CreateApiKey scopes": lambda: key_codec.parse_new_key(
        admin_pb.CreateApiKeyRequest(tenant_id="t", scopes=[SCOPE] * MANY), now=utc_now()
    ),
    "UpdatePolicy budgets": lambda: policy_codec.parse_policy_change(
        admin_pb.UpdatePolicyRequest(tenant_id="t", policy=tenant_pb2.Policy(budgets=[budget_pb2.Budget()] * MANY))
    ),
    "UpdatePolicy models": lambda: policy_codec.parse_policy_change(
        admin_pb.UpdatePolicyRequest(tenant_id="t", policy=tenant_pb2.Policy(allowed_models=["a"] * MANY))
    ),
    "UpdatePolicy paths": lambda: policy_codec.parse_policy_change(
        admin_pb.UpdatePolicyRequest(tenant_id="t", policy=tenant_pb2.Policy(), update_mask={"paths": ["x"] * MANY})
    ),
    "Converse fallbacks": lambda: parse_turn_request(
        pb.ConverseRequest(text="hi", model="a", fallback_models=["a"] * MANY), catalogue=None, max_text_bytes=100
    ),
    "CreateApiKey models": lambda: key_codec.parse_new_key(
        admin_pb.CreateApiKeyRequest(tenant_id="t", scopes=[SCOPE], models=["a"] * MANY), now=utc_now()
    ),
    "Converse attachments": lambda: parse_turn_request(
        pb.ConverseRequest(text="hi", attachments=[SOURCE] * MANY), catalogue=None, max_text_bytes=100
    ),
    "Converse variables": lambda: parse_turn_request(VARIABLES, catalogue=None, max_text_bytes=100),
    "ApplyAgent tools": lambda: agents_codec.parse_application(
        definitions_pb.ApplyAgentRequest(definition={"name": "a", "tools": [TOOL] * MANY}), catalogue=None, tools=()
    ),
    "ApplyAgent overrides": lambda: agents_codec.parse_application(
        definitions_pb.ApplyAgentRequest(definition={"name": "a", "overridable": {"fields": [1] * MANY}}),
        catalogue=None,
        tools=(),
    ),
    "ApplyAgent unknown fields": lambda: agents_codec.parse_application(
        definitions_pb.ApplyAgentRequest(definition=agent_pb2.AgentDefinition.FromString(b"\xf8\x3f\x01" * MANY)),
        catalogue=None,
        tools=(),
    ),
    "ApplyMcpServer headers": lambda: mcp_codec.parse_server(
        mcp_pb.ApplyMcpServerRequest(server={"name": "a", "url": "https://a.example/", "headers": [HEADER] * MANY}),
        AddressRules(),
    ),
    "ApplyMcpServer tools": lambda: mcp_codec.parse_server(
        mcp_pb.ApplyMcpServerRequest(server={"name": "a", "url": "https://a.example/", "allow": ["a"] * MANY}),
        AddressRules(),
    ),
    "ApplyMcpServer url": lambda: mcp_codec.parse_server(
        mcp_pb.ApplyMcpServerRequest(server={"name": "a", "url": "https://" + "a" * HUGE}), AddressRules()
    ),
    "a page token": lambda: decode_any_token("W" * HUGE, ("sessions", "tenant", "")),
    "AdjustCall why": lambda: codec.parse_adjustment(admin_pb.AdjustCallRequest(why="a" * HUGE), by="b"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_work_before_a_refusal_does_not_grow_with_the_request(name: str) -> None:
    """Lengths are checked first: two hundred thousand values are refused without visiting each."""
    assert lines_of(HOSTILE[name]) < BOUNDED
