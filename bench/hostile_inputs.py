"""Requests that cost a server much if it does anything with them before it has looked at their lengths.

For each RPC of the contract, and of health and reflection, a list of named bodies: each field as long as a message may
be, and as long as its limit permits; the texts that parsers are slow on; and what no field holds. Methods that are
added to the contract are covered without a change here.
"""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

from godoty.v1 import admin_service_pb2, agent_definition_service_pb2, agent_service_pb2, billing_service_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from godoty_service.rpc.validation import COUNTS, LENGTHS

_CONTRACT = (agent_service_pb2, agent_definition_service_pb2, admin_service_pb2, billing_service_pb2)
SERVICES = tuple(
    service
    for file in (*_CONTRACT, health_pb2, reflection_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
METHODS: tuple[MethodDescriptor, ...] = tuple(method for service in SERVICES for method in service.methods)

Wrap = Callable[[bytes], bytes]  # puts the bytes of a field into the whole message

HUGE = (256 + 256 + 1024) * 1024 - 1024  # bytes: the largest message that gRPC lets through, or a little less
_VARINT, _BYTES, _GROUP, _GROUP_END = 0, 2, 3, 4  # wire types
_DEEP = 90  # groups in one another: decoders take 100
_NO_FIELD = 1000  # a number that no message has
_SEVEN_BITS, _MORE = 0x7F, 0x80  # of a varint's byte


@dataclass(frozen=True, slots=True)
class HostileInput:
    """One request.

    Attributes:
        method: The full name of the method.
        name: What it is.
        body: Its bytes.
        streams: The method answers with a stream.
    """

    method: str
    name: str
    body: bytes
    streams: bool


def hostile_inputs(method: MethodDescriptor) -> Iterator[HostileInput]:
    """Return the requests of one method; each is built when it is asked for, because they are large."""
    for name, build in builders(method.input_type):
        full_name = f"/{method.containing_service.full_name}/{method.name}"
        yield HostileInput(full_name, name, build(), bool(method.server_streaming))


def builders(descriptor: Descriptor) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Return named builders of bodies of one message type."""
    for path, wrap, field in _fields(descriptor):
        if field.type != FieldDescriptor.TYPE_STRING:
            continue
        most = LENGTHS.get(field.name, 256 * 1024)
        for name, fill in _TEXTS.items():
            yield f"{path}: {name}, within its limit", partial(_wrapped, wrap, field, fill, most)
            if name in _HUGE_TEXTS:
                yield f"{path}: {name}", partial(_wrapped, wrap, field, fill, HUGE)
    for path, wrap, field in _fields(descriptor):
        if field.is_repeated:
            yield f"{path}: as many as fit", partial(_wrapped_many, wrap, field, HUGE)
            count = COUNTS.get(field.name, 100)
            yield f"{path}: as many as its limit permits", partial(_wrapped_many, wrap, field, count, each=True)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            yield f"{path}: given half a million times", partial(_repeated, wrap, field)
    yield "unknown numbers", lambda: (_key(_NO_FIELD, _VARINT) + b"\x01") * (HUGE // 8)
    yield "an unknown text", lambda: _delimited(_NO_FIELD, b"x" * HUGE)
    yield "unknown groups in one another", _groups
    yield "no message at all", lambda: b"\xff" * HUGE
    yield "a length beyond its end", lambda: _key(1, _BYTES) + _number(HUGE * 100) + b"x" * HUGE


def _fields(descriptor: Descriptor, path: str = "", wrap: Wrap = bytes) -> Iterator[tuple[str, Wrap, FieldDescriptor]]:
    """Return the fields of a message and of those in it, each with what puts its bytes into the whole."""
    for field in descriptor.fields:
        yield f"{path}{field.name}", wrap, field
        if field.message_type is not None and not path.count("."):
            inner = _inside(field, wrap)
            yield from _fields(field.message_type, f"{path}{field.name}.", inner)


def _inside(field: FieldDescriptor, wrap: Wrap) -> Wrap:
    return lambda body: wrap(_tagged(field, body))


def _wrapped(wrap: Wrap, field: FieldDescriptor, fill: Callable[[int], str], size: int) -> bytes:
    return wrap(_tagged(field, fill(size).encode()))


def _many(field: FieldDescriptor, size: int, *, each: bool = False) -> bytes:
    """Return a repeated field of a size in bytes, or of a number of values of the greatest length."""
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _tagged(field, b"") * (size if each else size // 3)
    if field.type == FieldDescriptor.TYPE_STRING:
        value = _tagged(field, b"a" * (LENGTHS.get(field.name, 128) if each else 1))
        return value * (size if each else size // len(value))
    return _tagged(field, b"\x01" * size)  # packed numbers


def _wrapped_many(wrap: Wrap, field: FieldDescriptor, size: int, *, each: bool = False) -> bytes:
    return wrap(_many(field, size, each=each))


def _repeated(wrap: Wrap, field: FieldDescriptor) -> bytes:
    return wrap(_tagged(field, b"") * (HUGE // 8))


@lru_cache(maxsize=1)
def _groups() -> bytes:
    opened = b"".join(_key(_NO_FIELD + depth, _GROUP) for depth in range(_DEEP))
    closed = b"".join(_key(_NO_FIELD + depth, _GROUP_END) for depth in reversed(range(_DEEP)))
    one = opened + closed
    return one * (HUGE // len(one))


def _tagged(field: FieldDescriptor, body: bytes) -> bytes:
    return _delimited(field.number, body)


def _delimited(number: int, body: bytes) -> bytes:
    return _key(number, _BYTES) + _number(len(body)) + body


def _key(number: int, kind: int) -> bytes:
    return _number(number << 3 | kind)


def _number(value: int) -> bytes:
    """Encode a number as protobuf's varint."""
    encoded = bytearray()
    while value > _SEVEN_BITS:
        encoded.append(value & _SEVEN_BITS | _MORE)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


@lru_cache(maxsize=8)
def _token(size: int) -> str:
    """Return what is base64 of JSON of many values, as a page token is."""
    values = json.dumps(["0" * 16, *([1] * (size // 4))], separators=(",", ":"))
    return base64.urlsafe_b64encode(values.encode()[: size * 3 // 4]).decode().rstrip("=")[:size]


_TEXTS: dict[str, Callable[[int], str]] = {
    "letters": lambda size: "a" * size,
    "digits": lambda size: "9" * size,
    "spaces": lambda size: " " * size,
    "brackets": lambda size: "[" * size,
    "asterisks": lambda size: "a*" * (size // 2),
    "an array": lambda size: ("[" + "1," * (size // 2))[: size - 2] + "1]",
    "objects": lambda size: '{"a":' * (size // 5),
    "dots": lambda size: "a." * (size // 2),
    "wide letters": lambda size: "\U0001d51e" * (size // 4),
    "control characters": lambda size: "\0" * size,
    "a page token": _token,
}
_HUGE_TEXTS = ("letters", "brackets", "wide letters", "a page token")
