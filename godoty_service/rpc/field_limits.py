"""Checks the size of requests: their bytes before they are decoded, then the length of each field."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from godoty_service.errors import FieldViolation, GodotyError
from godoty_service.rpc.validation import BYTES, COUNTS, LENGTHS, Decode, Violations

_TURN_TEXT = "text"  # its maximum length is a setting
_TOLERANCE = 2  # a text is refused here above this multiple of its length; below, the codec names all its faults
_UTF8 = 4  # maximum bytes of a character
_OVERHEAD = 16  # maximum bytes of a field's tag and length, or of a number
_UNKNOWN_FIELDS = 4096  # bytes for fields of a later build


class RequestTooLarge(GodotyError):
    """The request has more bytes than its method accepts."""

    reason = "MALFORMED_REQUEST"


class FieldLimits:
    """Checks the size of requests, by the bounds in `validation.py`."""

    def __init__(self, services: Sequence[ServiceDescriptor], *, max_text_bytes: int) -> None:
        """Create the limits.

        Args:
            services: The services whose requests are checked.
            max_text_bytes: Maximum bytes of a turn's text; a text of up to twice that is decoded, so that the error
                can name the field.
        """
        self._text = _TOLERANCE * max_text_bytes
        self._max_bytes = {
            f"/{service.full_name}/{method.name}": self.largest(method.input_type)
            for service in services
            for method in service.methods
        }

    def decoder(self, method: str, decode: Decode) -> Decode:
        """Return a decoder of a method's requests that refuses those above the limits.

        Args:
            method: Its full name.
            decode: Decodes a request of any size.
        """
        max_bytes = self._max_bytes[method]

        def bounded(body: bytes) -> Any:
            if len(body) > max_bytes:
                raise RequestTooLarge(
                    f"The request has {len(body):,} bytes; this method accepts at most {max_bytes:,}."
                )
            request = decode(body)
            self.check(request)
            return request

        return bounded

    def largest(self, descriptor: Descriptor) -> int:
        """Return the maximum bytes of a request of this type."""
        return _UNKNOWN_FIELDS + _max_bytes(descriptor, self._text)

    def check(self, request: Message) -> None:
        """Refuse a request with a field that is too long.

        Raises:
            InvalidRequest: One or more fields are too long; the error names them all.
        """
        violations = Violations()
        violations.found.extend(self._violations(request, ""))
        violations.raise_if_any()

    def _violations(self, message: Message, path: str) -> Iterator[FieldViolation]:
        for field, value in message.ListFields():
            name = f"{path}{field.name}"
            if not field.is_repeated:
                yield from self._field_violations(field, value, name)
            elif len(value) > COUNTS[field.name]:
                yield FieldViolation(field=name, description=f"must be at most {COUNTS[field.name]}")
            elif _is_map(field):
                yield from self._map_violations(value, name)
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                for index, each in enumerate(value):
                    yield from self._violations(each, f"{name}[{index}].")
            elif field.type == FieldDescriptor.TYPE_STRING and value:
                yield from self._field_violations(field, max(value, key=len), name)

    def _map_violations(self, values: Mapping[str, str], name: str) -> Iterator[FieldViolation]:
        """Check the lengths in a map of texts."""
        for what, texts in (("key", values.keys()), ("value", values.values())):
            if texts and len(max(texts, key=len)) > _TOLERANCE * LENGTHS[what]:
                yield FieldViolation(
                    field=name, description=f"each {what} must have at most {LENGTHS[what]} characters"
                )

    def _field_violations(self, field: FieldDescriptor, value: Any, name: str) -> Iterator[FieldViolation]:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            yield from self._violations(value, f"{name}.")
        elif field.type == FieldDescriptor.TYPE_BYTES and len(value) > BYTES[field.name]:
            yield FieldViolation(field=name, description=f"must have at most {BYTES[field.name]:,} bytes")
        elif field.type != FieldDescriptor.TYPE_STRING or field.name == _TURN_TEXT:
            return
        elif len(value) > _TOLERANCE * LENGTHS[field.name]:
            yield FieldViolation(field=name, description=f"must have at most {LENGTHS[field.name]} characters")


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


@cache
def _max_bytes(descriptor: Descriptor, text: int) -> int:
    """Return the maximum bytes of a message's fields together."""
    total = 0
    for field in descriptor.fields:
        size = _OVERHEAD
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            size += _max_bytes(field.message_type, text)
        elif field.type == FieldDescriptor.TYPE_STRING:
            size += text if field.name == _TURN_TEXT else _TOLERANCE * _UTF8 * LENGTHS[field.name]
        elif field.type == FieldDescriptor.TYPE_BYTES:
            size += BYTES[field.name]
        total += size * (COUNTS[field.name] if field.is_repeated else 1)
    return total
