"""Thirty output schemas of all kinds, by name; and some that a server must refuse."""

import json
from collections.abc import Callable
from typing import Any, Final

_STRING, _NUMBER, _INTEGER, _NULL = ({"type": each} for each in ("string", "number", "integer", "null"))


def closed(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object with these properties and no others, all of them required."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SCHEMAS: Final[dict[str, Any]] = {
    "flat": closed(name=_STRING, age=_INTEGER),
    "nested": closed(customer=closed(name=_STRING, address=closed(city=_STRING, zip=_STRING)), total=_NUMBER),
    "array of objects": closed(lines={"type": "array", "items": closed(text=_STRING, amount=_NUMBER), "minItems": 2}),
    "definition": {**closed(home={"$ref": "#/$defs/place"}), "$defs": {"place": closed(city=_STRING)}},
    "two definitions": {
        **closed(a={"$ref": "#/$defs/a"}, b={"$ref": "#/$defs/b"}),
        "$defs": {"a": closed(b={"$ref": "#/$defs/b"}), "b": {"enum": ["x", "y"]}},
    },
    "escaped pointer": {**closed(a={"$ref": "#/$defs/a~1b~0c%25"}), "$defs": {"a/b~c%": _INTEGER}},
    "anchor": {**closed(a={"$ref": "#place"}), "$defs": {"place": {"$anchor": "place", **closed(city=_STRING)}}},
    "sibling of a reference": {
        **closed(a={"$ref": "#/$defs/a", "minLength": 9}),
        "$defs": {"a": {"type": "string", "maxLength": 12}},
    },
    "one of two objects": closed(
        shape={
            "oneOf": [
                closed(kind={"const": "circle"}, radius=_NUMBER),
                closed(kind={"const": "square"}, side=_NUMBER),
            ]
        }
    ),
    "one of at the root": {
        "oneOf": [closed(error=_STRING), closed(value=_NUMBER)],
    },
    "any of": closed(id={"anyOf": [{"type": "integer", "minimum": 5}, {"type": "string", "minLength": 3}]}),
    "all of": closed(
        both={
            "allOf": [
                {"type": "object", "properties": {"a": _STRING}, "required": ["a"]},
                {"type": "object", "properties": {"b": _INTEGER}, "required": ["b"]},
            ]
        }
    ),
    "enum without a type": closed(state={"enum": ["open", 5, None, True]}),
    "enum at the root": {"enum": ["yes", "no", 7, None]},
    "constant": closed(version={"const": 5}, kind={"const": {"a": [1, 2.5]}}),
    "bounds of numbers": closed(
        share={"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        count={"type": "integer", "minimum": 3, "maximum": 9},
        price={"type": "number", "multipleOf": 0.25, "minimum": 10},
    ),
    "bounds of texts": closed(
        code={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$", "examples": ["AB-1234"]},
        name={"type": "string", "minLength": 12, "maxLength": 14},
    ),
    "bounds of arrays": closed(
        tags={"type": "array", "items": {"enum": ["a", "b", "c"]}, "minItems": 3, "maxItems": 3, "uniqueItems": True}
    ),
    "tuple": closed(point={"type": "array", "prefixItems": [_NUMBER, _STRING], "items": False, "minItems": 2}),
    "contains": closed(all={"type": "array", "contains": {"const": "x"}, "minItems": 1}),
    "additional properties": {
        "type": "object",
        "additionalProperties": _INTEGER,
        "minProperties": 2,
    },
    "additional properties below": closed(
        scores={"type": "object", "additionalProperties": _NUMBER, "required": ["a"]}
    ),
    "pattern properties": closed(
        extra={
            "type": "object",
            "patternProperties": {"^x-": _STRING},
            "additionalProperties": False,
            "examples": [{"x-a": "b"}],
            "minProperties": 1,
        }
    ),
    "recursive": {
        **closed(tree={"$ref": "#/$defs/node"}),
        "$defs": {"node": closed(name=_STRING, children={"type": "array", "items": {"$ref": "#/$defs/node"}})},
    },
    "recursive root": {
        "type": "object",
        "properties": {"value": _INTEGER, "next": {"anyOf": [{"$ref": "#"}, _NULL]}},
        "required": ["value", "next"],
        "additionalProperties": False,
    },
    "recursive root that is no object": {"anyOf": [_INTEGER, {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]},
    "union with null": closed(nick={"type": ["string", "null"]}, age={"anyOf": [_NULL, _INTEGER]}),
    "array at the root": {"type": "array", "items": closed(name=_STRING), "minItems": 1},
    "number at the root": {"type": "number", "minimum": 2.5},
    "condition": closed(
        event={
            "type": "object",
            "properties": {"kind": {"enum": ["a", "b"]}, "count": _INTEGER},
            "required": ["kind", "count"],
            "if": {"properties": {"kind": {"const": "a"}}},
            "then": {"properties": {"count": {"minimum": 10}}},
            "examples": [{"kind": "a", "count": 12}],
        }
    ),
}


def _deep(levels: int) -> str:
    return '{"items":' * levels + "{}" + "}" * levels


def _doubling(keyword: str, levels: int = 40) -> str:
    """Return a schema in which each definition applies the next one twice."""
    definitions = {f"a{number}": {keyword: [{"$ref": f"#/$defs/a{number + 1}"}] * 2} for number in range(levels)} | {
        f"a{levels}": {"type": "string"}
    }
    return json.dumps({"$ref": "#/$defs/a0", "$defs": definitions})


def _doubling_dependencies() -> str:
    """Return a schema that doubles through a keyword of earlier drafts, which validators of 2020-12 may still apply."""
    bomb = json.loads(_doubling("allOf"))["$defs"]
    definitions = {name: {"dependencies": {"a": each}} for name, each in bomb.items()}
    return json.dumps({"$ref": "#/$defs/a0", "$defs": definitions})


def _one_place(pointer: Callable[[int], str]) -> str:
    """Return a schema with many references to one wide place, each written in another way."""
    wide: dict[str, Any] = {"properties": {f"p{number}": {} for number in range(700)}}
    references = {f"r{number}": {"$ref": f"#/$defs/{pointer(number)}"} for number in range(120)}
    return json.dumps({"properties": references, "$defs": {"~~~~~~~~": wide, "a": {"anyOf": [wide]}}})


def _mutual(count: int) -> str:
    """Return a schema of kinds that refer to one another, each with members that have items."""
    members: dict[str, Any] = {f"p{number}": {"items": {}} for number in range(7)}
    definitions = {
        f"d{number}": {
            "properties": {
                **members,
                "a": {"$ref": f"#/$defs/d{(number + 1) % count}"},
                "b": {"$ref": f"#/$defs/d{(number * 7 + 3) % count}"},
            }
        }
        for number in range(count)
    }
    return json.dumps({"$ref": "#/$defs/d0", "$defs": definitions})


def _tildes(number: int) -> str:
    return "".join("~0" if number >> bit & 1 else "~" for bit in range(8))


# By name: the text of a schema, and a part of what the refusal says.
HOSTILE: Final[dict[str, tuple[Callable[[], str], str]]] = {
    "10,000 levels": (lambda: _deep(10_000), "must have at most 32768 characters"),
    "3,000 levels": (lambda: _deep(3_000), "JSON text"),
    "80 levels": (lambda: _deep(80), "nested at most 64 deep"),
    "no JSON": (lambda: "{", "JSON text"),
    "not a number": (lambda: '{"minimum": NaN}', "JSON text"),
    "no schema": (lambda: "[]", "an object or a boolean"),
    "too long": (lambda: json.dumps({"description": "a" * 40_000}), "at most 32768 characters"),
    "too many members": (lambda: json.dumps({"properties": {f"a{n}": {} for n in range(2_500)}}), "at most 4,000"),
    "huge number": (lambda: '{"maximum": 1e999999999}', "exponent"),
    "long number": (lambda: f'{{"maximum": {"9" * 2_000}}}', "characters"),
    "remote reference": (lambda: '{"$ref": "http://127.0.0.1:1/schema"}', "refer to itself only"),
    "remote reference below": (
        lambda: '{"properties": {"a": {"items": {"$ref": "https://example.com/a#/b"}}}}',
        "refer to itself only",
    ),
    "file": (lambda: '{"$ref": "file:///etc/passwd"}', "refer to itself only"),
    "relative reference": (lambda: '{"$id": "https://example.com/", "$ref": "other"}', "refer to itself only"),
    "dynamic remote reference": (lambda: '{"$dynamicRef": "https://example.com/a#b"}', "refer to itself only"),
    "other dialect": (lambda: '{"$schema": "http://json-schema.org/draft-07/schema#"}', "2020-12"),
    "remote dialect": (lambda: '{"$schema": "http://127.0.0.1:1/meta"}', "2020-12"),
    "identifier below": (lambda: '{"properties": {"a": {"$id": "http://127.0.0.1:1/"}}}', "at its root only"),
    "reference to nothing": (lambda: '{"$ref": "#/$defs/a"}', "not there"),
    "anchor that is not there": (lambda: '{"$ref": "#a"}', "not there"),
    "reference to itself": (lambda: '{"$ref": "#"}', "without end"),
    "circle in place": (
        lambda: '{"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}}',
        "without end",
    ),
    "circle through not": (lambda: '{"type": "object", "not": {"$ref": "#"}}', "without end"),
    "allOf bomb": (lambda: _doubling("allOf"), "apply to one place"),
    "anyOf bomb": (lambda: _doubling("anyOf"), "apply to one place"),
    "oneOf bomb": (lambda: _doubling("oneOf"), "apply to one place"),
    "bomb in a keyword of earlier drafts": (_doubling_dependencies, "apply to one place"),
    "bomb behind an anchor apart": (
        lambda: json.dumps(
            {
                "$ref": "#a",
                "contentSchema": {"$anchor": "a", "$ref": "#/$defs/a0"},
                "$defs": {**json.loads(_doubling("allOf"))["$defs"], "harmless": {"$anchor": "a"}},
            }
        ),
        "each anchor once",
    ),
    "anchor twice": (
        lambda: '{"$ref": "#a", "$defs": {"a": {"$anchor": "a"}, "b": {"$dynamicAnchor": "a", "type": "null"}}}',
        "each anchor once",
    ),
    "wide anyOf": (lambda: json.dumps({"anyOf": [{"type": "string"}] * 900}), "apply to one place"),
    "list of items": (lambda: '{"items": [{}]}', "object or a boolean"),
    "one place with many indices": (lambda: _one_place(lambda number: f"a/anyOf/{'0' * (number + 2)}"), "not there"),
    "one place with many names": (lambda: _one_place(_tildes), "does not exist"),
    "99 kinds that refer to one another": (lambda: _mutual(99), "must be simpler"),
    "300 references": (
        lambda: json.dumps({"properties": {f"a{n}": {"$ref": "#/$defs/a"} for n in range(300)}, "$defs": {"a": {}}}),
        "at most 200 references",
    ),
    "unevaluated bomb": (
        lambda: '{"unevaluatedProperties": false, "allOf": [' * 12 + "{}" + "]}" * 12,
        "unevaluated",
    ),
    "many patterns": (
        lambda: json.dumps({"properties": {f"a{n}": {"pattern": "a"} for n in range(100)}}),
        "at most 64 patterns",
    ),
    "long pattern": (lambda: json.dumps({"pattern": "a" * 600}), "at most 512 characters"),
    "pattern of many states": (lambda: json.dumps({"pattern": "((a{1,100}){1,100}){1,100}"}), "simpler patterns"),
    "pattern property of many states": (
        lambda: json.dumps({"patternProperties": {r"(\p{L}{50}){50}": {}}}),
        "simpler patterns",
    ),
    "look-ahead": (lambda: json.dumps({"pattern": "^(?=a)"}), "2020-12"),
    "back-reference": (lambda: json.dumps({"pattern": r"(a+)\1"}), "2020-12"),
    "broken pattern": (lambda: json.dumps({"pattern": "(["}), "2020-12"),
    "wrong type of a keyword": (lambda: '{"minLength": "a"}', "2020-12"),
    "unknown type": (lambda: '{"type": "text"}', "2020-12"),
}
