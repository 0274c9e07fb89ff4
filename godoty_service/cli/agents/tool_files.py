"""The tools of agent definitions in YAML files: shorter than the messages.

A tool of the server is its name, `approval: always` has no condition, conditions and schemas are mappings, enum values
have no prefix.
"""

import json
from decimal import Decimal
from typing import Any

_DECIDER = "ACTION_DECIDER_"
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
        approval = dict(fields["approval"])
        if "condition" in approval:
            approval["condition"] = json.loads(approval["condition"], parse_float=Decimal)
        if "decider" in approval:
            approval["decider"] = approval["decider"].removeprefix(_DECIDER).lower()
        fields["approval"] = approval or _ALWAYS
    if schema := fields.get("client", {}).get("input_schema"):
        fields["client"] = {**fields["client"], "input_schema": json.loads(schema, parse_float=Decimal)}
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
            fields["approval"] = _long_approval(approval)
    match fields.get("client"):
        case {"input_schema": dict(schema), **rest}:
            fields["client"] = {**rest, "input_schema": _text(schema)}
    return fields


def _long_approval(approval: dict[Any, Any]) -> dict[Any, Any]:
    fields = dict(approval)
    condition, decider = fields.get("condition"), fields.get("decider")
    if isinstance(condition, dict | bool):
        fields["condition"] = _text(condition)
    if isinstance(decider, str) and not decider.startswith(_DECIDER):
        fields["decider"] = f"{_DECIDER}{decider.upper()}"
    return fields


def _text(schema: Any) -> str:
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
