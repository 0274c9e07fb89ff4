"""Converts messages of the stubs to the dataclasses of types.py, and back."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from godoty.types import CLASSES, EPOCH, EVENTS, TextDelta, TurnEvent
from godoty.v1 import turn_pb2 as turn_pb

_T = TypeVar("_T")
_Message = TypeVar("_Message", bound=Message)
_Getter = Callable[[Any], Any]

_TIMESTAMP, _DURATION = Timestamp.DESCRIPTOR.full_name, Duration.DESCRIPTOR.full_name


def from_message(kind: type[_T], message: Message) -> _T:
    """Return a message as its dataclass; enum values that this version does not know are UNSPECIFIED."""
    return kind(**{name: get(message) for name, get in _getters(cast("Any", kind), message.DESCRIPTOR)})


def all_from(kind: type[_T], messages: Iterable[Message]) -> tuple[_T, ...]:
    """Return messages as their dataclass."""
    return tuple(from_message(kind, each) for each in messages)


def event_from(message: turn_pb.TurnEvent) -> TurnEvent | None:
    """Return an event; None for a heartbeat, and for an event that this version does not know."""
    name = message.WhichOneof("event")
    time = _to_datetime(message.time) if message.HasField("time") else None
    if name == "text_delta":  # most events are
        return TextDelta(
            message.text_delta.text,
            sequence=message.sequence,
            turn_id=message.turn_id,
            time=time,
            agent_path=message.agent_path,
        )
    kind = EVENTS.get(name or "")
    if kind is None or name is None:
        return None
    inner = getattr(message, name)
    fields: dict[str, Any] = {
        "sequence": message.sequence,
        "turn_id": message.turn_id,
        "time": time,
        "agent_path": message.agent_path,
    }
    for own, get in _own_getters(cast("Any", kind), name):  # an `Action` has a turn and a path of its own
        fields[own] = get(inner)
    return cast("TurnEvent", kind(**fields))


def to_message(kind: type[_Message], value: object) -> _Message:
    """Return a dataclass as its message; what is None stays unset."""
    message = kind()
    _fill(message, value)
    return message


def to_timestamp(time: datetime) -> Timestamp:
    """Return a time as a Timestamp.

    Raises:
        ValueError: It has no time zone.
    """
    if time.tzinfo is None:
        raise ValueError(f"{time!r} has no time zone: use datetime(…, tzinfo=UTC), or the zone that is meant")
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def to_duration(duration: timedelta) -> Duration:
    """Return a time span as a Duration."""
    message = Duration()
    message.FromTimedelta(duration)
    return message


def to_amount(amount: Decimal | str | int) -> str:
    """Return an amount of money in plain notation.

    Raises:
        TypeError: It is a float, which is not exact.
    """
    if isinstance(amount, float):
        raise TypeError(f"amounts of money are exact: Decimal('{amount}') instead of {amount}")
    return format(Decimal(amount), "f")


def enum_number(descriptor: EnumDescriptor, value: str) -> int:
    """Return the number of a value, given by its name without the enum's prefix, in any case.

    Raises:
        ValueError: There is no such value.
    """
    prefix = _prefix(descriptor)
    found = descriptor.values_by_name.get(prefix + value.upper())
    if found is None:
        known = ", ".join(each.name.removeprefix(prefix) for each in descriptor.values if each.number)
        raise ValueError(f"{value!r} is no {descriptor.name}: {known}")
    return found.number


def _fill(message: Message, value: object) -> None:
    for field in dataclasses.fields(cast("Any", value)):
        given = getattr(value, field.name)
        descriptor: Any = message.DESCRIPTOR.fields_by_name[field.name]
        if given is None or _is_default(given, descriptor):
            continue
        if descriptor.is_repeated:
            _fill_repeated(getattr(message, field.name), given, descriptor)
        elif descriptor.message_type is not None:
            _fill_inner(getattr(message, field.name), given)
        else:
            setattr(message, field.name, _to_scalar(given, descriptor))


def _is_default(given: object, field: FieldDescriptor) -> bool:
    return given == EPOCH or (not given and not field.has_presence)


def _fill_repeated(target: Any, given: Any, field: FieldDescriptor) -> None:
    if isinstance(given, Mapping):
        target.update(given)
    elif field.message_type is not None:
        for each in given:
            _fill_inner(target.add(), each)
    else:
        target.extend(_to_scalar(each, field) for each in given)


def _fill_inner(message: Any, given: Any) -> None:
    if isinstance(given, datetime):
        message.CopyFrom(to_timestamp(given))
    elif isinstance(given, timedelta):
        message.CopyFrom(to_duration(given))
    else:
        message.SetInParent()  # an empty message is set all the same
        _fill(message, given)


def _to_scalar(given: Any, field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return enum_number(field.enum_type, given)
    if field.name.endswith("_usd"):
        return to_amount(given)
    return given


@cache
def _getters(kind: Any, descriptor: Descriptor) -> tuple[tuple[str, _Getter], ...]:
    hints = typing.get_type_hints(kind)
    names = [each.name for each in dataclasses.fields(kind) if each.name in descriptor.fields_by_name]
    return tuple((name, _getter(descriptor.fields_by_name[name], hints[name])) for name in names)


@cache
def _own_getters(kind: Any, event: str) -> tuple[tuple[str, _Getter], ...]:
    return _getters(kind, turn_pb.TurnEvent.DESCRIPTOR.fields_by_name[event].message_type)


def _getter(field: FieldDescriptor, hint: Any) -> _Getter:
    """Return the function that reads a field from a message."""
    name = field.name
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return lambda message: dict(getattr(message, name))
    convert = _converter(field)
    if field.is_repeated:
        return lambda message: tuple(convert(each) for each in getattr(message, name))
    if isinstance(hint, types.UnionType):  # "… | None"
        return lambda message: convert(getattr(message, name)) if message.HasField(name) else None
    if convert is _same:
        return attrgetter(name)
    return lambda message: convert(getattr(message, name))


def _converter(field: FieldDescriptor) -> _Getter:
    """Return the function that converts one value of a field."""
    if field.message_type is not None:
        if field.message_type.full_name == _TIMESTAMP:
            return _to_datetime
        if field.message_type.full_name == _DURATION:
            return _to_timedelta
        kind = CLASSES[field.message_type.full_name]
        return lambda message: from_message(kind, message)
    if field.enum_type is not None:
        members = _members(field.enum_type)
        return lambda number: members.get(number, members[0])
    return Decimal if field.name.endswith("_usd") else _same


def _same(value: Any) -> Any:
    return value


def _members(descriptor: EnumDescriptor) -> dict[int, Any]:
    kind = cast("type[StrEnum]", CLASSES[descriptor.full_name])
    prefix = _prefix(descriptor)
    return {each.number: kind(each.name.removeprefix(prefix)) for each in descriptor.values}


def _prefix(descriptor: EnumDescriptor) -> str:
    return str(descriptor.values_by_number[0].name).removesuffix("UNSPECIFIED")


def _to_datetime(stamp: Timestamp) -> datetime:
    return EPOCH + timedelta(0, stamp.seconds, stamp.nanos // 1000)


def _to_timedelta(duration: Duration) -> timedelta:
    return timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)
