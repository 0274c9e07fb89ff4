"""The form in which a schema is sent to a model: the schema itself, or inside an object if its root is none. Pure."""

from collections.abc import Callable
from typing import Any, Final

from godoty_service.agents.output import structure

VALUE: Final = "value"  # the only member of the object around the value of a schema whose root is no object
_NOT_AT_ROOT: Final = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "enum", "const", *structure.REFERENCES})
_ROOT_ONLY: Final = ("$id", "$schema")
# The keywords with which providers guarantee that an answer is valid; with others they refuse the guarantee.
_GUARANTEED: Final = frozenset(
    {
        *("type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$ref", "$defs"),
        *("definitions", "title", "description", "format", "pattern", "minimum", "maximum", "exclusiveMinimum"),
        *("exclusiveMaximum", "multipleOf", "minItems", "maxItems", "$comment"),
    }
)


def is_wrapped(schema: Any) -> bool:
    """Return whether a schema is sent inside an object: providers take no root that may be anything but one object."""
    if not isinstance(schema, dict):
        return True
    return schema.get("type") != "object" or bool(_NOT_AT_ROOT & schema.keys())


def sent_schema(schema: Any) -> dict[str, Any]:
    """Return the schema that a model gets: one whose root is an object."""
    if not is_wrapped(schema):
        return {name: value for name, value in schema.items() if name not in _ROOT_ONLY}
    inner, definitions = schema, dict[str, Any]()
    if isinstance(schema, dict):
        inner = {name: value for name, value in schema.items() if name not in _ROOT_ONLY}
        definitions = {name: inner.pop(name) for name in structure.DEFINITIONS if name in inner}
    return {
        "type": "object",
        "properties": {VALUE: _moved(inner)},
        "required": [VALUE],
        "additionalProperties": False,
        **{name: _in_map(each, _moved) for name, each in definitions.items()},
    }


def is_guaranteed(schema: Any) -> bool:
    """Return whether providers can guarantee answers by a sent schema: its objects are closed, all members required."""
    if not isinstance(schema, dict) or not schema.keys() <= _GUARANTEED:
        return False
    if "properties" in schema or schema.get("type") == "object":
        members = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(members) != set(schema.get("required", ())):
            return False
    elif "additionalProperties" in schema:
        return False
    return all(is_guaranteed(each) for each in _inner_schemas(schema))


def _inner_schemas(schema: dict[str, Any]) -> list[Any]:
    maps = [schema[name] for name in ("properties", *structure.DEFINITIONS) if isinstance(schema.get(name), dict)]
    found = [each for some in maps for each in some.values()]
    return [*found, *schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())]


def _moved(schema: Any) -> Any:
    """Return a schema whose references lead to where its parts are inside the object."""
    if not isinstance(schema, dict):
        return schema
    moved: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in structure.REFERENCES and isinstance(value, str):
            moved[keyword] = _moved_reference(value)
        elif keyword in (*structure.IN_PLACE, *structure.BELOW, *structure.APART):
            moved[keyword] = _moved(value)
        elif keyword in (*structure.IN_PLACE_LISTS, structure.BELOW_NUMBERED) and isinstance(value, list):
            moved[keyword] = [_moved(each) for each in value]
        elif keyword in (*structure.IN_PLACE_MAPS, "properties", "patternProperties", *structure.DEFINITIONS):
            moved[keyword] = _in_map(value, _moved)
        else:
            moved[keyword] = value
    return moved


def _in_map(value: Any, change: Callable[[Any], Any]) -> Any:
    return {name: change(each) for name, each in value.items()} if isinstance(value, dict) else value


def _moved_reference(reference: str) -> str:
    """Return a reference as it is inside the object; anchors and definitions keep their names."""
    kept = any(reference.startswith(f"#/{name}/") for name in structure.DEFINITIONS)
    if kept or not (reference == "#" or reference.startswith("#/")):
        return reference
    return f"#/properties/{VALUE}{reference[1:]}"
