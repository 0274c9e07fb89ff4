"""JSON schemas of type hints, and values of such types from JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

from godoty.actions.docstrings import parsed

Schema = dict[str, Any]

_MISSING: Any = dataclasses.MISSING
_NOT_REQUIRED, _REQUIRED = typing.NotRequired, typing.Required
_ARRAYS: dict[Any, Callable[[list[Any]], Any]] = {list: list, tuple: tuple, set: set, frozenset: frozenset}
_SCALARS = (str, int, float, bool, type(None))


class InvalidValue(ValueError):
    """A value does not fit its type hint; the text says where, and what it must be."""


class Kind(NamedTuple):
    """A type.

    Attributes:
        schema: Its JSON schema.
        read: Returns the value of a JSON value. Its arguments: the JSON value, the path of the value for errors, and
            whether values of other JSON types are converted if nothing is lost, such as "5" to 5.
    """

    schema: Schema
    read: Callable[[Any, str, bool], Any]


class Member(NamedTuple):
    """A parameter, or a field of a class.

    Attributes:
        hint: Its type hint.
        default: Its default, if it has one that is a value.
        required: Whether it must be there.
        description: What it is, for the model.
    """

    hint: Any
    default: Any
    required: bool
    description: str


class Schemas:
    """The kinds of type hints that one schema consists of.

    Attributes:
        definitions: The schemas that references name (`$defs`).
    """

    def __init__(self) -> None:
        self.definitions: Schema = {}
        self._inside: list[Any] = []
        self._special: dict[Any, Callable[[tuple[Any, ...]], Kind]] = {
            typing.Annotated: self._annotated,
            typing.Union: self._union,
            types.UnionType: self._union,
            typing.Literal: lambda arguments: _one_of({_plain(each): each for each in arguments}),
            **dict.fromkeys((_REQUIRED, _NOT_REQUIRED), lambda arguments: self.kind(arguments[0])),
        }

    def members(self, members: Mapping[str, Member]) -> Kind:
        """Return the kind of an object: its value is a dict with the members that are there."""
        kinds = {name: self.kind(member.hint) for name, member in members.items()}
        schema: Schema = {"type": "object", "properties": {}, "additionalProperties": False}
        for name, member in members.items():
            own = dict(kinds[name].schema)
            if member.description:
                own["description"] = member.description
            if isinstance(default := _plain(member.default), _SCALARS) and default is not None:
                own["default"] = default
            schema["properties"][name] = own
        required = [name for name, member in members.items() if member.required]
        if required:
            schema["required"] = required

        def read(value: Any, path: str, lax: bool) -> dict[str, Any]:  # noqa: FBT001 - as `Kind.read` is
            if not isinstance(value, dict):
                raise _invalid(path, "must be an object")
            if unknown := [name for name in value if name not in kinds]:
                raise _invalid(_inner(path, unknown[0]), "there is no such member")
            if missing := [name for name in required if name not in value]:
                raise _invalid(_inner(path, missing[0]), "is missing")
            return {name: kinds[name].read(each, _inner(path, name), lax) for name, each in value.items()}

        return Kind(schema, read)

    def kind(self, hint: Any) -> Kind:
        """Return the kind of a type hint.

        Raises:
            TypeError: It has no schema.
        """
        simple = _SIMPLE.get(hint) if isinstance(hint, type) or hint in (None, Any) else None
        if simple is not None:
            return simple
        for name in ("__supertype__", "__value__"):  # of a NewType, and of `type X = …`
            if hasattr(hint, name):
                return self.kind(getattr(hint, name))
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in self._special:
            return self._special[origin](arguments)
        return self._collection(origin or hint, arguments) or self._class(hint)

    def _annotated(self, arguments: tuple[Any, ...]) -> Kind:
        kind = self.kind(arguments[0])
        text = next((each for each in arguments[1:] if isinstance(each, str)), None)
        return kind if text is None else kind._replace(schema={**kind.schema, "description": text})

    def _union(self, arguments: tuple[Any, ...]) -> Kind:
        kinds = [self.kind(each) for each in arguments]

        def read(value: Any, path: str, lax: bool) -> Any:  # noqa: FBT001 - as `Kind.read` is
            problems = []
            for converting in (False, True) if lax else (False,):  # a value that fits one goes to it
                for kind in kinds:
                    try:
                        return kind.read(value, path, converting)
                    except InvalidValue as problem:
                        problems.append(str(problem))
            raise InvalidValue("; or ".join(dict.fromkeys(problems[-len(kinds) :])))

        return Kind({"anyOf": [each.schema for each in kinds]}, read)

    def _collection(self, origin: Any, arguments: tuple[Any, ...]) -> Kind | None:
        """Return the kind of a list, set, tuple or dict; None: it is none."""
        if not isinstance(origin, type):
            return None
        if issubclass(origin, Mapping) and not typing.is_typeddict(origin):
            return self._mapping(arguments)
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            return self._tuple([self.kind(each) for each in arguments])
        made = next((kind for kind in _ARRAYS if origin is kind), None)
        if made is None and origin in (Sequence, Iterable, AbstractSet, MutableSequence):
            made = frozenset if origin is AbstractSet else list
        if made is None:
            return None
        return _array(self.kind(arguments[0]) if arguments else _SIMPLE[Any], made)

    def _mapping(self, arguments: tuple[Any, ...]) -> Kind:
        if arguments and arguments[0] not in (str, Any):
            raise TypeError(f"the keys of a dict are texts in JSON, and not {arguments[0]}")
        values = self.kind(arguments[1]) if arguments else _SIMPLE[Any]
        schema = {"type": "object", **({"additionalProperties": values.schema} if values.schema else {})}

        def read(value: Any, path: str, lax: bool) -> dict[str, Any]:  # noqa: FBT001 - as `Kind.read` is
            if not isinstance(value, dict):
                raise _invalid(path, "must be an object")
            return {name: values.read(each, _inner(path, name), lax) for name, each in value.items()}

        return Kind(schema, read)

    def _tuple(self, kinds: Sequence[Kind]) -> Kind:
        schemas, count = [each.schema for each in kinds], len(kinds)

        def read(value: Any, path: str, lax: bool) -> tuple[Any, ...]:  # noqa: FBT001 - as `Kind.read` is
            if not isinstance(value, list) or len(value) != count:
                raise _invalid(path, f"must be a list of {count}")
            return tuple(
                kind.read(each, f"{path}[{index}]", lax)
                for index, (kind, each) in enumerate(zip(kinds, value, strict=True))
            )

        return Kind({"type": "array", "prefixItems": schemas, "minItems": count, "maxItems": count}, read)

    def _class(self, hint: Any) -> Kind:
        if not isinstance(hint, type):
            raise TypeError(f"{hint!r} has no JSON schema")
        if hint in self._inside:
            raise TypeError(f"{hint.__name__} contains itself: it has no JSON schema here")
        self._inside.append(hint)
        try:
            if issubclass(hint, Enum):
                return _one_of({_plain(each): each for each in hint})
            if hasattr(hint, "model_json_schema") and hasattr(hint, "model_validate_json"):
                return self._model(hint)
            if dataclasses.is_dataclass(hint):
                return self._constructed(hint, _fields(hint))
            if typing.is_typeddict(hint):
                return self._constructed(hint, _keys(hint))
        finally:
            self._inside.pop()
        raise TypeError(f"{hint.__name__} has no JSON schema")

    def _constructed(self, kind: Any, members: Mapping[str, Member]) -> Kind:
        inner = self.members(members)
        automatic = (kind.__doc__ or "").startswith(f"{kind.__name__}(")  # of a dataclass
        summary = "" if automatic else parsed(kind.__doc__)[0]
        schema = {**inner.schema, **({"description": summary} if summary else {})}

        def read(value: Any, path: str, lax: bool) -> Any:  # noqa: FBT001 - as `Kind.read` is
            given = inner.read(value, path, lax)
            try:
                return kind(**given)
            except ValueError as error:
                raise _invalid(path, str(error)) from error

        return Kind(schema, read)

    def _model(self, kind: Any) -> Kind:
        """Return the kind of a pydantic class, whose definitions become those of the whole."""
        schema = kind.model_json_schema()
        for name, definition in schema.pop("$defs", {}).items():
            if self.definitions.setdefault(name, definition) != definition:
                raise TypeError(f"there are two classes of the name {name}")

        def read(value: Any, path: str, lax: bool) -> Any:  # noqa: ARG001, FBT001 - the class decides
            try:
                return kind.model_validate_json(json.dumps(value))
            except ValueError as error:
                raise _invalid(path, str(error)) from error

        return Kind(schema, read)


def _fields(kind: Any) -> dict[str, Member]:
    hints, texts = typing.get_type_hints(kind, include_extras=True), parsed(kind.__doc__)[1]
    return {
        each.name: Member(
            hints[each.name],
            each.default,
            each.default is _MISSING and each.default_factory is _MISSING,
            texts.get(each.name, ""),
        )
        for each in dataclasses.fields(kind)
        if each.init
    }


def _keys(kind: Any) -> dict[str, Member]:
    hints, texts = typing.get_type_hints(kind, include_extras=True), parsed(kind.__doc__)[1]

    def required(name: str) -> bool:
        # The class does not see a marker that is a text, as with `from __future__ import annotations`.
        origin = typing.get_origin(hints[name])
        return origin is _REQUIRED or (origin is not _NOT_REQUIRED and name in kind.__required_keys__)

    return {name: Member(hint, _MISSING, required(name), texts.get(name, "")) for name, hint in hints.items()}


def _array(item: Kind, made: Callable[[list[Any]], Any]) -> Kind:
    schema: Schema = {"type": "array", **({"items": item.schema} if item.schema else {})}
    if made in (set, frozenset):
        schema["uniqueItems"] = True

    def read(value: Any, path: str, lax: bool) -> Any:  # noqa: FBT001 - as `Kind.read` is
        if not isinstance(value, list):
            raise _invalid(path, "must be a list")
        return made([item.read(each, f"{path}[{index}]", lax) for index, each in enumerate(value)])

    return Kind(schema, read)


def _one_of(values: Mapping[Any, Any]) -> Kind:
    """Return the kind of one of some values, by what JSON has for each."""
    kinds = {type(each) for each in values}
    if not kinds <= set(_SCALARS):
        raise TypeError(f"{list(values.values())} are no values of JSON")
    schema: Schema = {"enum": list(values)}
    if len(kinds) == 1 and (name := _NAMES.get(next(iter(kinds)))):
        schema["type"] = name
    wanted = "must be one of " + ", ".join(json.dumps(each, ensure_ascii=False) for each in values)

    def read(value: Any, path: str, lax: bool) -> Any:  # noqa: FBT001 - as `Kind.read` is
        for each, found in values.items():
            if type(value) is type(each) and value == each:
                return found
        for each, found in values.items():
            if lax and isinstance(value, _SCALARS) and str(value).lower() == str(each).lower():
                return found
        raise _invalid(path, wanted)

    return Kind(schema, read)


def _scalar(
    schema: Schema, fits: type[Any] | tuple[type[Any], ...], convert: Callable[[Any], Any], wanted: str
) -> Kind:
    """Return the kind of a scalar: `convert` makes it of a value that fits, or of another one if that is allowed."""

    def read(value: Any, path: str, lax: bool) -> Any:  # noqa: FBT001 - as `Kind.read` is
        if isinstance(value, fits) and (not isinstance(value, bool) or fits is bool):
            pass
        elif not lax or not isinstance(value, str | int | float) or isinstance(value, bool):
            raise _invalid(path, wanted)
        try:
            return convert(value)
        except (ValueError, TypeError, KeyError, ArithmeticError):
            raise _invalid(path, wanted) from None

    return Kind(schema, read)


def _integer(value: Any) -> int:
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError(value)
    return number


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _decimal(value: Any) -> Decimal:
    number = Decimal(str(value))
    if not number.is_finite():
        raise ValueError(value)
    return number


def _boolean(value: Any) -> bool:
    return value if isinstance(value, bool) else {"true": True, "false": False}[str(value).lower()]


def _null(value: Any) -> None:
    if value is not None:
        raise ValueError(value)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _inner(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _invalid(path: str, problem: str) -> InvalidValue:
    return InvalidValue(f"{path}: {problem}" if path else problem)


_NAMES: dict[type[Any], str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
_NULL = _scalar({"type": "null"}, type(None), _null, "must be null")
_SIMPLE: dict[Any, Kind] = {
    str: _scalar({"type": "string"}, str, str, "must be a text"),
    int: _scalar({"type": "integer"}, int, _integer, "must be an integer"),
    float: _scalar({"type": "number"}, (int, float), _number, "must be a number"),
    bool: _scalar({"type": "boolean"}, bool, _boolean, "must be true or false"),
    type(None): _NULL,
    None: _NULL,
    Decimal: _scalar({"type": "number"}, (int, float), _decimal, "must be a number"),
    datetime: _scalar(
        {"type": "string", "format": "date-time"}, str, datetime.fromisoformat, "must be an ISO 8601 time"
    ),
    date: _scalar({"type": "string", "format": "date"}, str, date.fromisoformat, "must be a date, as 2026-11-30"),
    Any: Kind({}, lambda value, _path, _lax: value),
    object: Kind({}, lambda value, _path, _lax: value),
}
