"""Generates valid input for an offered tool from its JSON schema."""

from collections.abc import Mapping
from typing import Any

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


def sample_value(schema: Mapping[str, Any], known: Mapping[str, str] | None = None) -> Any:
    """Return a value that is valid for a JSON schema, with required properties only.

    Args:
        schema: The schema; a `$ref` into its own `$defs` is resolved.
        known: Values by property name, preferred to generated ones.
    """
    return _Sampler(schema, known or {}).value(schema, "")


class _Sampler:
    def __init__(self, root: Mapping[str, Any], known: Mapping[str, str]) -> None:
        self._root = root
        self._known = known

    def value(self, schema: Mapping[str, Any], name: str) -> Any:
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        if schema.get("enum"):
            return schema["enum"][0]
        if "$ref" in schema:
            return self.value(self._resolved(schema["$ref"]), name)
        for key in ("anyOf", "oneOf", "allOf"):
            if schema.get(key):
                return self.value(schema[key][0], name)
        return self._by_type(schema, name)

    def _resolved(self, reference: str) -> Mapping[str, Any]:
        target: Any = self._root
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        found: Mapping[str, Any] = target
        return found

    def _by_type(self, schema: Mapping[str, Any], name: str) -> Any:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = kind[0]
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return [self.value(schema.get("items", {}), name) for _ in range(schema.get("minItems", 1))]
        if kind in {"integer", "number"}:
            return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        return {"boolean": True, "null": None}.get(kind, self._string(schema, name))

    def _object(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        properties = schema.get("properties", {})
        names = [name for name in properties if name in schema.get("required", ()) or name in self._known]
        return {name: self._property(properties[name], name) for name in names}

    def _property(self, schema: Mapping[str, Any], name: str) -> Any:
        return self._known[name] if name in self._known else self.value(schema, name)

    def _string(self, schema: Mapping[str, Any], name: str) -> str:
        text = _BY_FORMAT.get(schema.get("format", "")) or _BY_NAME.get(name, "sandbox")
        text = text.ljust(schema.get("minLength", 0), "x")
        return text[: schema.get("maxLength", len(text))]
