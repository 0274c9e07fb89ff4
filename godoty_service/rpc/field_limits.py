"""Bounds every request before anything is done with it: its bytes before it is decoded, then the length of each field.

The limits stand here, once. What the fields must hold besides is checked in `requests.py` and its siblings, which can
rely on these lengths.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from godoty_service.errors import FieldViolation, GodotyError, InvalidRequest
from godoty_service.rpc.paging import LONGEST_TOKEN

# Characters of a text, by the name of its field; a field of another name in any request is a fault of ours.
LENGTHS = {
    "add_usd": 64,
    "allowed_models": 128,
    "call_id": 128,
    "cost_usd": 64,
    "default_fallback_models": 128,
    "default_model": 128,
    "fallback_models": 128,
    "key_id": 128,
    "limit_usd": 64,
    "max_cost_usd": 64,
    "model": 128,
    "name": 200,
    "page_token": LONGEST_TOKEN,
    "provider_json": 8192,
    "provider_key": 256,
    "request_id": 128,
    "session_id": 128,
    "tenant_id": 128,
    "time_zone": 64,
    "turn_id": 128,
    "user": 128,
    "why": 1000,
}
# Values of a repeated field, by its name.
COUNTS = {
    "allowed_models": 100,
    "budgets": 16,
    "default_fallback_models": 8,
    "fallback_models": 8,
    "group_by": 16,
    "scopes": 16,
}
_TEXT = "text"  # of a turn: its length is a setting
_GROSS = 2  # times a length from which a text is refused here; up to it, all that is wrong is named together
_UTF8 = 4  # bytes of a character, at most
_AROUND = 16  # bytes of a field's tag and length, or of a number, at most
_UNKNOWN = 4096  # bytes left for fields of a later build


class RequestTooLarge(GodotyError):
    """The request has more bytes than all that its method takes."""

    reason = "MALFORMED_REQUEST"


class FieldLimits:
    """Checks requests."""

    def __init__(self, services: Sequence[ServiceDescriptor], *, max_text_bytes: int) -> None:
        """Build the limits.

        Args:
            services: The services whose requests are checked.
            max_text_bytes: The largest text of a turn; one that is up to twice as long is decoded to be refused by
                name.
        """
        self._text = _GROSS * max_text_bytes
        self._largest = {
            f"/{service.full_name}/{method.name}": self.largest(method.input_type)
            for service in services
            for method in service.methods
        }

    def decoder(self, method: str, decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        """Return what decodes the requests of a method, and refuses those that exceed the limits.

        Args:
            method: Its full name.
            decode: Decodes a request of any size.
        """
        most = self._largest[method]

        def bounded(body: bytes) -> Any:
            if len(body) > most:
                raise RequestTooLarge(f"The request has {len(body):,} bytes; this method takes at most {most:,}.")
            request = decode(body)
            self.check(request)
            return request

        return bounded

    def largest(self, descriptor: Descriptor) -> int:
        """Return how many bytes a request of this type may have."""
        return _UNKNOWN + _largest(descriptor, self._text)

    def check(self, request: Message) -> None:
        """Refuse a request with a field that is too long.

        Raises:
            InvalidRequest: It has some; all are named.
        """
        violations = list(self._violations(request, ""))
        if violations:
            text = "; ".join(f"{each.field}: {each.description}" for each in violations)
            raise InvalidRequest(text, violations=violations)

    def _violations(self, message: Message, path: str) -> Iterator[FieldViolation]:
        for field, value in message.ListFields():
            name = f"{path}{field.name}"
            if not field.is_repeated:
                yield from self._violations_of(field, value, name)
            elif len(value) > COUNTS[field.name]:
                yield FieldViolation(field=name, description=f"must be at most {COUNTS[field.name]}")
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                for place, each in enumerate(value):
                    yield from self._violations(each, f"{name}[{place}].")
            elif field.type == FieldDescriptor.TYPE_STRING and value:
                yield from self._violations_of(field, max(value, key=len), name)

    def _violations_of(self, field: FieldDescriptor, value: Any, name: str) -> Iterator[FieldViolation]:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from self._violations(value, f"{name}.")
        elif field.type != FieldDescriptor.TYPE_STRING or field.name == _TEXT:
            return
        elif len(value) > _GROSS * LENGTHS[field.name]:
            yield FieldViolation(field=name, description=f"must have at most {LENGTHS[field.name]} characters")


@cache
def _largest(descriptor: Descriptor, text: int) -> int:
    """Return how many bytes the fields of a message may have together."""
    total = 0
    for field in descriptor.fields:
        size = _AROUND
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            size += _largest(field.message_type, text)
        elif field.type == FieldDescriptor.TYPE_STRING:
            size += text if field.name == _TEXT else _GROSS * _UTF8 * LENGTHS[field.name]
        total += size * (COUNTS[field.name] if field.is_repeated else 1)
    return total
