"""Writes docs/agent.schema.json, by which editors check agents in YAML: `generate_agent_schema.py [--check]`.

It is made from the messages of agent.proto and their comments, with the limits of the server. With --check it writes
nothing and exits with status 1 if the file is stale.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from godoty.v1 import agent_pb2 as pb
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from godoty_service.agents.tools.registry import NEED_SETTINGS, built_in_tools
from godoty_service.clock import utc_now
from godoty_service.rpc.agents import server_tools, tool_codec
from godoty_service.rpc.validation import AGENT_NAME, COUNTS, LENGTHS, MODEL_ID

TARGET = Path(__file__).with_name("agent.schema.json")
PROTOS = Path(__file__).parents[1] / "protos" / "godoty" / "v1"
PATTERNS = {
    "name": AGENT_NAME.pattern,
    "tool_name": tool_codec.TOOL_NAME.pattern,
    "model": MODEL_ID.pattern,
    "fallback_models": MODEL_ID.pattern,
    "allowed_domains": server_tools.DOMAIN.pattern,
    "excluded_domains": server_tools.DOMAIN.pattern,
}
BOUNDS: dict[str, dict[str, float]] = {
    "temperature": {"minimum": 0, "maximum": 2},
    "top_p": {"exclusiveMinimum": 0, "maximum": 1},
    "seed": {"minimum": 0},
    "messages": {"minimum": 4, "maximum": 1000},
    **{name: {"minimum": least, "maximum": most} for name, (least, most) in server_tools.BOUNDS.items()},
}
TYPES = {
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer", "minimum": 1},
    FieldDescriptor.CPPTYPE_INT64: {"type": "integer"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
}


def comments() -> dict[str, str]:
    """Return the comments of the protos by "Message" and "Message.field", in one line each."""
    found: dict[str, str] = {}
    for name in ("agent.proto", "action.proto", "turn.proto"):
        message, comment = "", list[str]()
        for line in (PROTOS / name).read_text().splitlines():
            text = line.strip()
            if text.startswith("//"):
                comment.append(text.removeprefix("//").strip())
                continue
            if match := re.match(r"message (\w+) \{", text):
                message = match[1]
                found[message] = " ".join(comment)
            elif match := re.match(r"(?:optional |repeated )?[\w.]+ (\w+) = \d+", text):
                found[f"{message}.{match[1]}"] = " ".join(comment)
            comment = []
    return found


COMMENTS = comments()


def schema_of_message(descriptor: Descriptor) -> dict[str, Any]:
    """Return the schema of a message: its fields and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": dict(property_of(descriptor, field) for field in descriptor.fields),
    }


def property_of(descriptor: Descriptor, field: FieldDescriptor) -> tuple[str, dict[str, Any]]:
    """Return the name and the schema of a field in a file, whose form is shorter than the message's for some fields."""
    comment = COMMENTS[f"{descriptor.name}.{field.name}"].removeprefix("Required. ")
    described = {"description": comment}
    if field.name == "provider_json":
        return "provider", {**described, "type": "object"}
    if field.name in ("condition", "input_schema", "output_schema"):
        return field.name, {**described, "type": ["object", "boolean"]}
    if field.name == "approval":
        return field.name, {**described, "anyOf": [{"const": "always"}, value_of(field)]}
    if field.name == "overridable":
        return field.name, {**described, "type": "array", "items": values_of(pb.AgentOverride.DESCRIPTOR)}
    if field.name == "tools":
        names = {"enum": sorted([*built_in_tools(clock=utc_now), *NEED_SETTINGS])}
        tool = schema_of_message(pb.AgentTool.DESCRIPTOR)
        tool["properties"]["builtin"] |= names
        items: dict[str, Any] = {"anyOf": [names, {**tool, "minProperties": 1, "maxProperties": 3}]}
    else:
        items = value_of(field)
    if not field.is_repeated:
        return field.name, {**described, **items}
    return field.name, {**described, "type": "array", "maxItems": COUNTS[field.name], "items": items}


def value_of(field: FieldDescriptor) -> dict[str, Any]:
    """Return the schema of a field's value."""
    if field.message_type is not None:
        return schema_of_message(field.message_type)
    if field.enum_type is not None:
        return values_of(field.enum_type)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        pattern = {"pattern": f"^{PATTERNS[field.name]}$"} if field.name in PATTERNS else {}
        return {"type": "string", "maxLength": LENGTHS[field.name], **pattern}
    return TYPES[field.cpp_type] | BOUNDS.get(field.name, {})


def values_of(descriptor: EnumDescriptor) -> dict[str, Any]:
    """Return the schema of an enum: its values without their prefix, in lower case."""
    prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", descriptor.name).upper() + "_"
    return {"enum": [each.name.removeprefix(prefix).lower() for each in descriptor.values if each.number]}


def text() -> str:
    """Return the text of docs/agent.schema.json."""
    descriptor = pb.AgentDefinition.DESCRIPTOR
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Godoty agent",
        "description": COMMENTS[descriptor.name],
        **schema_of_message(descriptor),
        "required": ["name"],
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the file, or check it."""
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text(), encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text():
        sys.exit("stale: docs/agent.schema.json; run make docs")


if __name__ == "__main__":
    main()
