"""Generates valid values, and invalid ones, from a JSON schema: inputs of tools, and answers by a schema."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

# Plausible values for properties whose schema is only "string".
_BY_NAME = {
    "expression": "6 * 7",
    "timezone": "UTC",
    "tz": "UTC",
    "city": "Paris",
    "location": "Paris",
    "url": "https://example.com/",
    "date": "2026-08-22",
}
_BY_FORMAT = {
    "date": "2026-08-22",
    "date-time": "2026-08-22T12:00:00Z",
    "time": "12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


_DEEP = 6  # levels from which on the shortest alternative is taken, so that recursive schemas end
_WRONG = {"sandbox": "wrong"}


def sample_value(schema: Any, known: Mapping[str, str] | None = None) -> Any:
    """Return a value that is valid for a JSON schema, with required properties only.

    A pattern, and what only several keywords together say, is met by the schema's own `examples` or `default`.

    Args:
        schema: The schema; a `$ref` into the schema itself is resolved.
        known: Values by property name, preferred to generated ones.
    """
    return _Sampler(schema, known or {}).value(schema, "")


def wrong_value(schema: Any) -> Any:
    """Return a value that is not valid for a JSON schema, if it accepts not every object."""
    value = sample_value(schema)
    required = schema.get("required") if isinstance(schema, dict) else None
    if not isinstance(value, dict) or not required:
        return _WRONG
    last = required[-1]
    inner = schema.get("properties", {}).get(last, True)
    if len(required) == 1 and inner is not True:  # such as the object around a value that is none itself
        return {**value, last: _WRONG}
    return {name: each for name, each in value.items() if name != last}


class _Sampler:
    def __init__(self, root: Any, known: Mapping[str, str]) -> None:
        self._root = root
        self._known = known
        self._depth = 0

    def value(self, schema: Any, name: str) -> Any:
        if not isinstance(schema, dict):
            return "sandbox"
        self._depth += 1
        try:
            return self._value(schema, name)
        finally:
            self._depth -= 1

    def _value(self, schema: Mapping[str, Any], name: str) -> Any:
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        for key in ("examples", "enum"):
            if schema.get(key):
                return schema[key][0]
        for key in ("$ref", "$dynamicRef"):
            if key in schema:
                return self.value({**self._resolved(schema[key]), **_without(schema, key)}, name)
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                return self.value(_merged(_without(schema, key), self._chosen(schema[key])), name)
        if schema.get("allOf"):
            first, *others = schema["allOf"]
            rest = {**_without(schema, "allOf"), **({"allOf": others} if others else {})}
            return self.value(_merged(rest, self._target(first)), name)
        return self._by_type(schema, name)

    def _chosen(self, alternatives: Sequence[Any]) -> Any:
        """Return the first alternative; deep inside a value, the shortest."""
        if self._depth <= _DEEP:
            return self._target(alternatives[0])
        return min(map(self._target, alternatives), key=lambda each: str(each).count("$ref") * 1000 + len(str(each)))

    def _target(self, schema: Any) -> Any:
        while isinstance(schema, dict) and "$ref" in schema:
            schema = {**self._resolved(schema["$ref"]), **_without(schema, "$ref")}
        return schema

    def _resolved(self, reference: str) -> Mapping[str, Any]:
        target: Any = self._root
        if reference != "#" and not reference.startswith("#/"):
            return _anchored(self._root, reference.removeprefix("#"))
        for part in unquote(reference).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            target = target[int(key)] if isinstance(target, list) else target[key]
        found: Mapping[str, Any] = target if isinstance(target, dict) else {}
        return found

    def _by_type(self, schema: Mapping[str, Any], name: str) -> Any:
        kind = schema.get("type") or _kind_of(schema)
        if isinstance(kind, list):
            kind = kind[-1] if self._depth > _DEEP else kind[0]
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return self._array(schema, name)
        if kind in {"integer", "number"}:
            return _number(schema)
        return {"boolean": True, "null": None}.get(kind, self._string(schema, name))

    def _array(self, schema: Mapping[str, Any], name: str) -> list[Any]:
        first = [self.value(each, name) for each in schema.get("prefixItems", ())]
        items = schema.get("contains", schema.get("items", {}))
        count = max(0, schema.get("minItems", 0 if first or self._depth > _DEEP else 1) - len(first))
        rest = [self.value(items, name) for _ in range(count)]
        if schema.get("uniqueItems") and isinstance(items, dict) and len(items.get("enum", ())) >= count:
            rest = list(items.get("enum", rest))[:count]
        return [*first, *rest]

    def _object(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", ())
        names = [name for name in properties if name in required or name in self._known]
        value = {name: self._property(properties[name], name) for name in names}
        other = schema.get("additionalProperties", {})
        for name in required:
            value.setdefault(name, self.value(other, name))
        while len(value) < schema.get("minProperties", 0):
            value[f"key{len(value)}"] = self.value(other, "")
        return value

    def _property(self, schema: Any, name: str) -> Any:
        return self._known[name] if name in self._known else self.value(schema, name)

    def _string(self, schema: Mapping[str, Any], name: str) -> str:
        text = _BY_FORMAT.get(schema.get("format", "")) or _BY_NAME.get(name, "sandbox")
        text = text.ljust(schema.get("minLength", 0), "x")
        return text[: schema.get("maxLength", len(text))]


def _without(schema: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != key}


def _merged(schema: dict[str, Any], other: Any) -> dict[str, Any]:
    """Return a schema with the keywords of another one; properties and required names of both."""
    if not isinstance(other, dict):
        return schema
    merged = {**schema, **other}
    if "properties" in schema and "properties" in other:
        merged["properties"] = {**schema["properties"], **other["properties"]}
    if "required" in schema and "required" in other:
        merged["required"] = [*schema["required"], *other["required"]]
    return merged


def _anchored(schema: Any, anchor: str) -> Mapping[str, Any]:
    """Return the part of a schema that has an anchor."""
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    if isinstance(schema, dict) and anchor in (schema.get("$anchor"), schema.get("$dynamicAnchor")):
        return schema
    return next((found for each in inner if (found := _anchored(each, anchor))), {})


def _kind_of(schema: Mapping[str, Any]) -> str:
    """Return the type that a schema without one is about."""
    if {"properties", "required", "additionalProperties", "minProperties", "patternProperties"} & schema.keys():
        return "object"
    if {"items", "prefixItems", "minItems", "contains"} & schema.keys():
        return "array"
    return "number" if {"minimum", "exclusiveMinimum", "maximum", "multipleOf"} & schema.keys() else "string"


def _number(schema: Mapping[str, Any]) -> Any:
    if "multipleOf" in schema:
        step = schema["multipleOf"]
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        return step * (int(least // step) + 1)
    if "minimum" in schema:
        return schema["minimum"]
    if "exclusiveMinimum" in schema:
        return schema["exclusiveMinimum"] + 1
    return min(1, schema.get("maximum", 1), schema.get("exclusiveMaximum", 2) - 1)
