"""Generates invalid requests: random bytes, random and mutated messages, random metadata."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from godoty.v1 import admin_service_pb2, agent_definition_service_pb2, agent_service_pb2, billing_service_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

Metadata = tuple[tuple[str, str | bytes], ...]

_FILES = (agent_service_pb2, agent_definition_service_pb2, billing_service_pb2, admin_service_pb2)
METHODS: tuple[MethodDescriptor, ...] = tuple(
    method for file in _FILES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods
)
_NUMBERS = (0, 1, -1, 2, 7, 100, 500, 501, 2**31 - 1, -(2**31), 253402300800, -62135596801)
_WORDS = (
    *(
        "",
        " ",
        "\0",
        "\n",
        "a",
        "A.b_c:d-9",
        "talk",
        "$ne",
        '{"$ne": null}',
        "a.b",
        "$where",
        "..",
        "../../etc",
        "null",
    ),
    *("ünï", "\u200b", "\u202e", "𝔞", "оpenai", "1", "0.1", "1e9999", "-0", "NaN", "9" * 40, "UTC", "Europe/Berlin"),  # noqa: RUF001 - look-alikes
    *("openai/gpt-4o-mini", "openai/*", "*", "[", "[" * 3000, "{}", '{"order":["x"]}', "tnt_0", "turn_" + "0" * 28),
    *("x" * 128, "x" * 129, "ü" * 5000, "gdt_" + "0" * 16 + "_" + "A" * 43, "%s%n", "'; --", "\U0010ffff"),
)


# What a field of this name may well hold: a request of these is nearly right, and so gets further.
_LIKELY: dict[str, tuple[Any, ...]] = {
    "session_id": ("talk", "talk", "other"),
    "text": ("hi", "What is 12*13?"),
    "model": ("", "openai/gpt-4o-mini"),
    "fallback_models": ("openai/gpt-4o",),
    "user": ("", "someone"),
    "request_id": ("", "once"),
    "page_size": (0, 1, 9),
    "page_token": ("",),
    "cursor": ("",),
    "after_sequence": (0, 1),
    "time_zone": ("", "Europe/Berlin"),
    "name": ("someone",),
    "provider_json": ("", '{"zdr": true}'),
    "provider_key": ("", "sk-or-v1-made-up"),
    "limit_usd": ("1", "0.5"),
    "max_cost_usd": ("0.01",),
    "overlap_seconds": (0, 60),
    "max_output_tokens": (100,),
    "max_model_calls": (1,),
    "seconds": (1_790_000_000, 1_800_000_000, 4_000_000_000),
    "nanos": (0, 5),
    "default_model": ("", "openai/gpt-4o-mini"),
    "allowed_models": ("*",),
    "allowed_agents": ("*",),
    "allowed_tools": ("*",),
    "agent": ("", "", "assistant", "someone", "someone@1"),
    "builtin": ("calculator", "current_time"),
    "description": ("", "helps"),
    "system_prompt": ("", "Today is {{today}}."),
    "temperature": (0.0, 1.0),
    "top_p": (0.5,),
    "seed": (0, 7),
    "stop": ("END",),
    "messages": (4, 40),
    "max_tokens": (100,),
}


@dataclass(frozen=True)
class FuzzedRequest:
    """One request.

    Attributes:
        method: The full name of a method, or of none.
        streams: It answers with a stream.
        body: The bytes that are sent.
        metadata: What is sent with it.
    """

    method: str
    streams: bool
    body: bytes
    metadata: Metadata


class RequestFuzzer:
    """Generates requests; the same seed generates the same ones."""

    def __init__(self, *, seed: int, keys: Sequence[str], words: Sequence[str]) -> None:
        """Create a generator.

        Args:
            seed: Determines the requests.
            keys: API keys to call with.
            words: Existing ids, inserted at random.
        """
        self._random = random.Random(seed)
        self._keys = keys
        self._words = (*_WORDS, *words, *words)
        self._likely = 0.0  # how often a field holds what it should
        self._ids = tuple(words)
        self._kinds: tuple[Callable[[Descriptor], bytes], ...] = (
            self._bytes,
            self._message_bytes,
            self._message_bytes,
            self._mutated,
        )

    def generate(self) -> FuzzedRequest:
        """Return a request."""
        method = self._random.choice(METHODS)
        name = f"/{method.containing_service.full_name}/{method.name}"
        if self._random.random() < 0.01:
            name = self._random.choice(("/godoty.v1.AgentService/Nothing", "/x/y", "/godoty.v1.adminservice/GetTenant"))
        self._likely = self._random.choice((0.0, 0.5, 0.95))
        body = self._random.choice(self._kinds)(method.input_type)
        streams = bool(method.server_streaming)
        return FuzzedRequest(method=name, streams=streams, body=body, metadata=self._metadata())

    def _bytes(self, _: Descriptor) -> bytes:
        return self._random.randbytes(self._random.choice((0, 1, 2, 9, 40, 400)))

    def _message_bytes(self, descriptor: Descriptor) -> bytes:
        body: bytes = self._message(descriptor, depth=0).SerializeToString()
        return body

    def _mutated(self, descriptor: Descriptor) -> bytes:
        body = bytearray(self._message_bytes(descriptor) or b"\x0a\x00")
        for _ in range(self._random.randint(1, 4)):
            at = self._random.randrange(len(body)) if body else 0
            match self._random.randrange(5):
                case 0 if body:
                    body[at] ^= 1 << self._random.randrange(8)
                case 1:
                    del body[at:]
                case 2:
                    body[at:at] = self._random.randbytes(3)
                case 3:
                    body += body[:200]
                case _:
                    body[at : at + 2] = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
        return bytes(body)

    def _message(self, descriptor: Descriptor, *, depth: int) -> Any:
        message = message_factory.GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if self._random.random() < (0.35 if depth else 0.25):
                continue
            if field.message_type is not None and depth > 2:
                continue
            self._fill(message, field, depth)
        return message

    def _fill(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name).update({self._text(): self._text() for _ in range(self._random.randrange(3))})
        elif field.is_repeated:
            values = [self._value(field, depth) for _ in range(self._random.choice((0, 1, 1, 2, 9)))]
            getattr(message, field.name).extend(values)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(self._value(field, depth))
        else:
            setattr(message, field.name, self._value(field, depth))

    def _value(self, field: FieldDescriptor, depth: int) -> Any:
        if field.message_type is not None:
            return self._message(field.message_type, depth=depth + 1)
        if self._random.random() < self._likely and (likely := self._likely_values(field)):
            return self._random.choice(likely)
        if field.enum_type is not None:
            return self._random.choice([*(value.number for value in field.enum_type.values), 99, -1])
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return self._random.randbytes(40) if field.type == FieldDescriptor.TYPE_BYTES else self._text()
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return self._random.random() < 0.5
        return self._number(field)

    def _likely_values(self, field: FieldDescriptor) -> Sequence[Any]:
        if field.enum_type is not None:
            return [value.number for value in field.enum_type.values[1:]]
        return _LIKELY.get(field.name) or (self._ids if field.name.endswith("_id") else ())

    def _number(self, field: FieldDescriptor) -> int:
        number = self._random.choice(_NUMBERS)
        if field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32):
            number = max(-(2**31), min(2**31 - 1, number))
        unsigned = field.cpp_type in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)
        return abs(number) if unsigned else number

    def _text(self) -> str:
        if self._random.random() < 0.85:
            return self._random.choice(self._words)
        return "".join(chr(self._random.randrange(1, 0xD7FF)) for _ in range(self._random.randrange(30)))

    def _metadata(self) -> Metadata:
        pairs: list[tuple[str, str | bytes]] = []
        if self._random.random() < 0.9:
            pairs.append(("authorization", f"Bearer {self._random.choice(self._keys)}"))
        if self._random.random() < 0.9:
            return tuple(pairs)
        visible = "".join(chr(self._random.randrange(0x20, 0x7F)) for _ in range(self._random.randrange(60)))
        strange: list[tuple[str, str | bytes]] = [
            ("authorization", visible),
            ("authorization", "Bearer gdt_"),
            ("traceparent", self._random.choice(("00-" + "f" * 32 + "-" + "0" * 16 + "-01", visible, "00-0-0-0"))),
            ("tracestate", visible * 20),
            ("baggage", "a=b," * 300),
            ("x-request-id", visible),
            ("strange-bin", self._random.randbytes(50)),
            ("grpc-status-details-bin", self._random.randbytes(9)),
            ("content-language", "x" * 3000),
            (f"k{self._random.randrange(10**6)}", visible),
        ]
        return tuple(pairs + self._random.sample(strange, self._random.randint(1, 4)))
