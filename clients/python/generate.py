"""Writes the modules that are made from the contract: `clients/python/generate.py [--check]`, which `make gen` calls.

`godoty/types.py` has a dataclass for each message that users read or write, `godoty/reasons.py` an error class for each
reason. The documentation is that of the protos. With --check it writes nothing and exits with status 1 if a file is
stale.
"""

import importlib
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from godoty.v1 import errors_pb2, turn_pb2
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor

PACKAGE = Path(__file__).parent / "godoty"
PROTOS = Path(__file__).parents[2] / "protos" / "godoty" / "v1"
WIDTH = 120

LEFT_OUT = {"TurnEvent", "Heartbeat", "AttachmentSource"}
RENAMED = {"Turn": "TurnSummary"}  # a `Turn` is what `converse` returns
# Responses whose fields belong together; of other responses, users get the one field or the list that they have.
RESPONSES = {
    "GetSessionMetricsResponse": "SessionMetrics",
    "GetUsageResponse": "UsageReport",
    "GetAgentResponse": "Agent",
    "ApplyAgentResponse": "AppliedAgent",
    "ApplyMcpServerResponse": "AppliedMcpServer",
    "ApplyWebhookResponse": "AppliedWebhook",
    "StartTurnResponse": "StartedTurn",
    "CheckMcpServerResponse": "McpServerCheck",
    "CreateApiKeyResponse": "CreatedApiKey",
    "RotateApiKeyResponse": "RotatedApiKey",
    "GetPolicyResponse": "TenantPolicy",
    "AdjustCallResponse": "AdjustedCall",
    "EraseUserResponse": "Erasure",
    "ForkSessionResponse": "Fork",
}
SECRETS = {
    *("CreateApiKeyResponse.text", "RotateApiKeyResponse.text", "ApplyWebhookResponse.secret"),
    *("McpHeader.secret", "McpOAuthClient.client_secret"),
}
ERRORS = {"INTERNAL": "InternalError"}  # names of errors that are not those of their reasons
# Beside the methods without side effects: doing it again changes nothing.

HEAD = '"""{what} Made from the protos by `make gen`: not to be edited."""\n\nfrom __future__ import annotations\n\n'
TYPES_HEAD = (
    HEAD.format(what="What the service answers, and what it is asked for.")
    + """from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    \"\"\"What all events of a turn have.\"\"\"

{event_fields}
"""
)
SCALARS = {
    FieldDescriptor.CPPTYPE_BOOL: ("bool", "False"),
    FieldDescriptor.CPPTYPE_INT32: ("int", "0"),
    FieldDescriptor.CPPTYPE_INT64: ("int", "0"),
    FieldDescriptor.CPPTYPE_DOUBLE: ("float", "0.0"),
}
TIMES = {
    "google.protobuf.Timestamp": ("datetime", "EPOCH"),
    "google.protobuf.Duration": ("timedelta", "timedelta(0)"),
}
_DECLARATION = re.compile(r"(message|enum|service) (\w+) \{")
_FIELD = re.compile(r"(?:optional |repeated )?[\w.<>, ]+ (\w+) = \d+\b")
_VALUE = re.compile(r"(\w+) = \d+\b")


def comments() -> dict[str, str]:
    """Return the comments of the protos by "Message", "Message.field" and "Enum.VALUE"."""
    found: dict[str, str] = {}
    for path in sorted(PROTOS.glob("*.proto")):
        parent, comment = "", list[str]()
        for line in path.read_text(encoding="utf-8").splitlines():
            text = line.strip()
            if text.startswith("//"):
                comment.append(text.removeprefix("//").removeprefix(" "))
                continue
            if match := _DECLARATION.match(text):
                parent = match[2]
                found[parent] = "\n".join(comment)
            elif match := _FIELD.match(text) or _VALUE.match(text):
                found[f"{parent}.{match[1]}"] = "\n".join(comment)
            comment = []
    return found


COMMENTS = comments()


def files() -> list[FileDescriptor]:
    """Return the descriptors of all protos."""
    names = (path.stem for path in sorted(PROTOS.glob("*.proto")))
    return [importlib.import_module(f"godoty.v1.{name}_pb2").DESCRIPTOR for name in names]


def docstring(text: str, indent: str = "    ") -> str:
    """Return a comment as a docstring: its paragraphs, wrapped."""
    paragraphs = [" ".join(each.split()) for each in text.removeprefix("Required. ").split("\n\n")]
    # A backslash would be an escape; quotes would end the string.
    whole = "\n\n".join(paragraphs).replace("\\", "\\\\").replace('"""', "'''")
    if whole.endswith('"'):
        whole += " "
    if len(whole) + len(indent) + 6 <= WIDTH and "\n" not in whole:
        return f'{indent}"""{whole}"""'
    lines: list[str] = []
    for number, paragraph in enumerate(whole.split("\n\n")):
        lines += ([""] if number else []) + textwrap.wrap(paragraph, WIDTH - len(indent) - 3, break_long_words=False)
    body = "\n".join(f"{indent}{line}" if line else "" for line in lines)
    return f'{indent}"""{body.removeprefix(indent)}\n{indent}"""'


def class_name(descriptor: Descriptor | EnumDescriptor) -> str:
    """Return the name of a message's or enum's class."""
    return RENAMED.get(descriptor.name) or RESPONSES.get(descriptor.name) or descriptor.name


def shown(descriptor: Descriptor) -> bool:
    """Return whether a message has a dataclass."""
    if descriptor.name in RESPONSES:
        return True
    return descriptor.name not in LEFT_OUT and not descriptor.name.endswith(("Request", "Response"))


def attribute(field: FieldDescriptor) -> str:
    """Return the line of a field, and its documentation."""
    comment = COMMENTS[f"{field.containing_type.name}.{field.name}"]
    behavior = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    optional = field_behavior_pb2.OPTIONAL in behavior or "Unset" in comment
    kind, default = type_of(field, optional=optional)
    if f"{field.containing_type.name}.{field.name}" in SECRETS:
        default = f"field(default={default}, repr=False)"
    return f"    {field.name}: {kind} = {default}\n{docstring(comment)}\n"


def type_of(field: FieldDescriptor, *, optional: bool) -> tuple[str, str]:
    """Return the type of a field and its default."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return "Mapping[str, str]", "field(default_factory=dict)"
    kind, default = value_of(field)
    if field.is_repeated:
        return f"tuple[{kind}, ...]", "()"
    if field.containing_oneof is not None or (field.message_type is not None and optional):
        return f"{kind} | None", "None"
    return kind, default


def value_of(field: FieldDescriptor) -> tuple[str, str]:
    """Return the type and the default of one value of a field."""
    if field.message_type is not None:
        if field.message_type.full_name in TIMES:
            return TIMES[field.message_type.full_name]
        name = class_name(field.message_type)
        return name, f"field(default_factory={name})"
    if field.enum_type is not None:
        return field.enum_type.name, f"{field.enum_type.name}.UNSPECIFIED"
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return "bytes", 'b""'
        return ("Decimal", "None") if field.name.endswith("_usd") else ("str", '""')
    return SCALARS[field.cpp_type]


def enum_class(descriptor: EnumDescriptor) -> str:
    """Return the class of an enum: its values are their names without the enum's prefix."""
    prefix = descriptor.values[0].name.removesuffix("UNSPECIFIED")
    members = []
    for value in descriptor.values:
        name = value.name.removeprefix(prefix)
        comment = COMMENTS[f"{descriptor.name}.{value.name}"]
        members.append(f'    {name} = "{name}"\n{docstring(comment)}\n')
    return f"class {descriptor.name}(StrEnum):\n{docstring(COMMENTS[descriptor.name])}\n\n" + "".join(members)


def message_class(descriptor: Descriptor, *, event: bool) -> str:
    """Return the dataclass of a message."""
    arguments = "frozen=True, slots=True" + ("" if event else ", kw_only=True")
    base = "(Event)" if event else ""
    return (
        f"@dataclass({arguments})\nclass {class_name(descriptor)}{base}:\n{docstring(COMMENTS[descriptor.name])}\n\n"
        + "".join(attribute(field) for field in descriptor.fields)
    ).rstrip("\n") + "\n"


def in_order(descriptors: list[Descriptor]) -> Iterator[Descriptor]:
    """Yield messages after those that they contain."""
    seen: set[str] = set()

    def visit(descriptor: Descriptor) -> Iterator[Descriptor]:
        if descriptor.full_name in seen:
            return
        seen.add(descriptor.full_name)
        for field in descriptor.fields:
            inner = field.message_type
            if inner is not None and inner.file.package == descriptor.file.package and not inner.containing_type:
                yield from visit(inner)
        yield descriptor

    for each in descriptors:
        yield from visit(each)


def types() -> str:
    """Return the text of types.py."""
    event = turn_pb2.TurnEvent.DESCRIPTOR
    inner = [each for each in event.oneofs_by_name["event"].fields if each.name != "heartbeat"]
    event_messages = {each.message_type.full_name for each in inner}
    common = "".join(attribute(each) for each in event.fields if each.containing_oneof is None)
    enums = [each for file in files() for each in file.enum_types_by_name.values() if each.name != "ErrorReason"]
    messages = [each for file in files() for each in file.message_types_by_name.values() if shown(each)]
    parts = [TYPES_HEAD.format(event_fields=common.rstrip("\n")), *(enum_class(each) for each in enums)]
    parts += [message_class(each, event=each.full_name in event_messages) for each in in_order(messages)]
    parts.insert(
        1, _all(["Event", "TurnEvent", *(each.name for each in enums), *(class_name(each) for each in messages)])
    )
    union = " | ".join(class_name(each.message_type) for each in inner)
    parts.append(
        f"TurnEvent: TypeAlias = (\n    {union}\n)\n"
        '"""An event of a turn. Later versions of the contract add some: a `match` needs a case for those."""\n\n'
        "EVENTS: Mapping[str, type[Event]] = {\n"
        + "".join(f'    "{each.name}": {class_name(each.message_type)},\n' for each in inner)
        + '}\n"""The classes of events by their fields in `godoty.v1.TurnEvent`."""\n\n'
        "CLASSES: Mapping[str, type[object]] = {\n"
        + "".join(f'    "{each.full_name}": {class_name(each)},\n' for each in messages)
        + "".join(f'    "{each.full_name}": {each.name},\n' for each in enums)
        + '}\n"""The classes by their messages and enums in `godoty.v1`."""\n'
    )
    return "\n\n".join(parts)


def _all(names: list[str]) -> str:
    return "__all__ = [\n" + "".join(f'    "{name}",\n' for name in sorted(names)) + "]\n"


def reasons() -> str:
    """Return the text of reasons.py."""
    names = [each.name.removeprefix("ERROR_REASON_") for each in errors_pb2.ErrorReason.DESCRIPTOR.values]
    classes = {name: ERRORS.get(name) or "".join(each.title() for each in name.split("_")) for name in names[1:]}
    parts = [HEAD.format(what="An error class for each reason.") + "from godoty.errors import GodotyError\n"]
    parts += [
        f"class {kind}(GodotyError):\n{docstring(COMMENTS[f'ErrorReason.ERROR_REASON_{name}'])}\n"
        for name, kind in classes.items()
    ]
    table = "".join(f'    "{name}": {kind},\n' for name, kind in classes.items())
    parts.insert(1, _all(list(classes.values())))
    parts.append(f'BY_REASON: dict[str, type[GodotyError]] = {{\n{table}}}\n"""The classes by their reasons."""\n')
    return "\n\n".join(parts)


def main() -> None:
    """Write the files, or check them."""
    for name, text in (("types.py", types()), ("reasons.py", reasons())):
        path = PACKAGE / name
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"stale: clients/python/godoty/{name}; run make gen")


if __name__ == "__main__":
    main()
