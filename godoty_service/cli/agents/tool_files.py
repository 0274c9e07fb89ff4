"""The tools of agent definitions in YAML files: shorter than the messages.

A tool of the server is its name, `approval: always` has no condition, conditions and schemas are mappings, enum values
have no prefix.
"""

import json
from decimal import Decimal
from typing import Any

_PREFIXES = {"decider": "ACTION_DECIDER_", "on_expiry": "ACTION_EXPIRY_"}  # of the values of enums, by field
_ALWAYS = "always"


def short_tool(tool: dict[str, Any]) -> Any:
    """Return a tool as a file has it.

    Args:
        tool: The JSON form of its message.
    """
    if list(tool) == ["builtin"]:
        return tool["builtin"]
    fields = dict(tool)
    if "approval" in fields:
        approval = _short_enums(fields["approval"])
        if "condition" in approval:
            approval["condition"] = json.loads(approval["condition"], parse_float=Decimal)
        fields["approval"] = approval or _ALWAYS
    if "client" in fields:
        client = _short_enums(fields["client"])
        if "input_schema" in client:
            client["input_schema"] = json.loads(client["input_schema"], parse_float=Decimal)
        fields["client"] = client
    return fields


def long_tool(tool: Any) -> Any:
    """Return the JSON form of the message of a tool in a file."""
    if isinstance(tool, str):
        return {"builtin": tool}
    if not isinstance(tool, dict):
        return tool
    fields = dict(tool)
    match fields.get("approval"):
        case str(word) if word == _ALWAYS:
            fields["approval"] = {}
        case dict(approval):
            fields["approval"] = _long(approval, schema="condition")
    match fields.get("client"):
        case dict(client):
            fields["client"] = _long(client, schema="input_schema")
    return fields


def _short_enums(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields with the values of enums as a file has them."""
    names = {name: fields[name].removeprefix(prefix).lower() for name, prefix in _PREFIXES.items() if name in fields}
    return fields | names


def _long(fields: dict[Any, Any], *, schema: str) -> dict[Any, Any]:
    """Return fields of a file as the message has them: a schema as text, the values of enums with their prefixes."""
    found = dict(fields)
    if isinstance(found.get(schema), dict | bool):
        found[schema] = json.dumps(found[schema], ensure_ascii=False, separators=(",", ":"))
    for name, prefix in _PREFIXES.items():
        value = found.get(name)
        if isinstance(value, str) and not value.startswith(prefix):
            found[name] = f"{prefix}{value.upper()}"
    return found
