"""What a client tool has returned, as the model gets it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any

from godoty.codec import to_message
from godoty.types import Attachment, ClientToolOutput
from godoty.v1 import action_pb2 as pb

_MAX_TEXT, _MAX_JSON, _MAX_ERROR = 65_536, 32_768, 1_000  # characters


def output_of(value: Any) -> pb.ClientToolOutput | bytes:
    """Return the output for what a tool has returned; the bytes of an image, which must be uploaded first."""
    match value:
        case bytes() | bytearray() | memoryview():
            return bytes(value)
        case ClientToolOutput():
            return to_message(pb.ClientToolOutput, value)
        case Attachment():
            return pb.ClientToolOutput(attachment_id=value.attachment_id)
        case BaseException():
            return failure(value)
        case str():
            return _text(value)
        case _:
            return _json(value)


def failure(error: BaseException) -> pb.ClientToolOutput:
    """Return the output for a tool that has failed: the class of the exception and its text, in one line."""
    name = type(error).__name__
    line = " ".join(f"{name}: {error}".split()).removesuffix(":")
    return pb.ClientToolOutput(error=printable(line, _MAX_ERROR) or name)


def printable(text: str, longest: int) -> str:
    """Return a text in one line, with what cannot be printed replaced, and cut to a length."""
    line = " ".join(text.split())
    cut = line if len(line) <= longest else line[: longest - 1] + "…"
    return "".join(each if each.isprintable() else "�" for each in cut)


def _json(value: Any) -> pb.ClientToolOutput:
    try:
        text = json.dumps(value, default=_jsonable, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return failure(TypeError(f"the result is no JSON value: {error}"))
    return pb.ClientToolOutput(output_json=_sound(text)) if len(text) <= _MAX_JSON else _text(text)


def _text(text: str) -> pb.ClientToolOutput:
    if len(text) > _MAX_TEXT:
        return failure(ValueError(f"the result has {len(text)} characters, and may have {_MAX_TEXT}"))
    return pb.ClientToolOutput(output_text=_sound(text))


def _sound(text: str) -> str:
    """Return a text without lone surrogates, which UTF-8 does not have."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _jsonable(value: Any) -> Any:
    """Return what JSON has for a value that is none of JSON's."""
    for kind, convert in _JSON.items():
        if isinstance(value, kind):
            return convert(value)
    if hasattr(value, "model_dump"):  # of pydantic
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    raise TypeError(f"a {type(value).__name__} is none")


_JSON: dict[type[Any], Callable[[Any], Any]] = {
    Enum: lambda value: value.value,
    Decimal: lambda value: format(value, "f"),
    datetime: datetime.isoformat,  # which is a date, too
    date: date.isoformat,
    time: time.isoformat,
    Mapping: dict,
    AbstractSet: list,
}
