"""Reads agent definitions from YAML files, and writes them as YAML: by the field names of agent.proto, and shorter.

Shorter than the messages: tools (`tool_files.py`), `overridable` is a list, `provider` and `output_schema` are
mappings, and enum values have no prefix. `docs/agent.schema.json` describes the form for editors.
"""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from godoty.v1 import agent_pb2 as pb
from google.protobuf import json_format

from godoty_service.cli.agents.tool_files import long_tool, short_tool
from godoty_service.rpc.agents.fields import provider_json
from godoty_service.tenancy.routing import read_preferences

_MODE, _EFFORT, _OVERRIDE = "HISTORY_MODE_", "REASONING_EFFORT_", "AGENT_OVERRIDE_"
_ENGINES = {"web_search": "WEB_SEARCH_ENGINE_", "web_fetch": "WEB_FETCH_ENGINE_"}
_MAX_BYTES = 1024 * 1024  # of a file


def read_definitions(path: Path) -> list[pb.AgentDefinition]:
    """Read the definitions of a file: one, or several that `---` separates.

    Raises:
        ValueError: The file is no YAML, is too large, or has what a definition has not; the text names the file.
        OSError: It cannot be read.
    """
    return [_definition(each, path) for each in read_documents(path)]


def read_documents(path: Path) -> list[dict[Any, Any]]:
    """Read the mappings of a file: one, or several that `---` separates.

    Raises:
        ValueError: The file is no YAML, is too large, or has something else; the text names the file.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        text = file.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise ValueError(f"{path}: must have at most {_MAX_BYTES:,} bytes")
    try:
        documents = [each for each in yaml.load_all(text, Loader=_Loader) if each is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if not documents:
        raise ValueError(f"{path}: has no definition")
    if not all(isinstance(each, dict) for each in documents):
        raise ValueError(f"{path}: must be a mapping of the fields of a definition")
    return documents


def to_yaml(definition: pb.AgentDefinition) -> str:
    """Return a definition as YAML, in the order of its fields."""
    fields = json_format.MessageToDict(definition, preserving_proto_field_name=True)
    if "tools" in fields:
        fields["tools"] = [short_tool(tool) for tool in fields["tools"]]
    if definition.HasField("overridable"):
        fields["overridable"] = [_short(each, _OVERRIDE) for each in fields["overridable"].get("fields", ())]
    if mode := fields.get("history", {}).get("mode"):
        fields["history"]["mode"] = _short(mode, _MODE)
    for tool, prefix in _ENGINES.items():
        if engine := fields.get(tool, {}).get("engine"):
            fields[tool]["engine"] = _short(engine, prefix)
    parameters = fields.get("parameters", {})
    if effort := parameters.get("reasoning", {}).get("effort"):
        parameters["reasoning"]["effort"] = _short(effort, _EFFORT)
    if "seed" in parameters:  # JSON has 64 bits as text
        parameters["seed"] = int(parameters["seed"])
    if "provider_json" in parameters:
        parameters["provider"] = json.loads(parameters.pop("provider_json"), parse_float=Decimal)
    if "output_schema" in fields:
        fields["output_schema"] = json.loads(fields["output_schema"], parse_float=Decimal)
    ordered = {field.name: fields[field.name] for field in pb.AgentDefinition.DESCRIPTOR.fields if field.name in fields}
    return dump(ordered)


def dump(fields: dict[str, Any]) -> str:
    """Write a mapping as YAML, in its order."""
    text: str = yaml.dump(fields, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # it ships no types
    """A loader without aliases: a file of some bytes could stand for gigabytes. A key is there once in a mapping."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("aliases (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - the signature of yaml
        """Construct a mapping; of a key that is there twice, yaml would drop the first value in silence.

        Raises:
            ValueError: A key is there twice.
        """
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the key {name} is there twice, {str(node.start_mark).strip()}")
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):  # type: ignore[misc] # the same
    """A dumper that writes texts of several lines as blocks."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


def _represent_number(dumper: yaml.SafeDumper, number: Decimal) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:float", format(number, "f"))


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(Decimal, _represent_number)


def _definition(document: dict[Any, Any], path: Path) -> pb.AgentDefinition:
    """Convert a document.

    Raises:
        ValueError: It has what a definition has not.
    """
    message = pb.AgentDefinition()
    try:
        json_format.ParseDict(dict(_long(document)), message, max_recursion_depth=20)
        if preferences := message.parameters.provider_json:
            message.parameters.provider_json = provider_json(read_preferences(preferences))
    except (json_format.ParseError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    return message


def _long(document: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a document as the JSON form of the message has them."""
    for name, value in document.items():
        match name, value:
            case "tools", list(tools):
                yield name, [long_tool(tool) for tool in tools]
            case "overridable", list(fields):
                yield name, {"fields": [_full(each, _OVERRIDE) for each in fields]}
            case "history", {"mode": str(mode), **rest}:
                yield name, {**rest, "mode": _full(mode, _MODE)}
            case "output_schema", dict() | bool():
                yield name, json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            case "parameters", dict(parameters):
                yield name, dict(_long_parameters(parameters))
            case (("web_search" | "web_fetch"), {"engine": str(engine), **rest}):
                yield name, {**rest, "engine": _full(engine, _ENGINES[name])}
            case _:
                yield str(name), value


def _long_parameters(parameters: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in parameters.items():
        match name, value:
            case "provider", dict(provider):
                yield "provider_json", json.dumps(provider, ensure_ascii=False)
            case "reasoning", {"effort": str(effort), **rest}:
                yield name, {**rest, "effort": _full(effort, _EFFORT)}
            case _:
                yield str(name), value


def _full(name: Any, prefix: str) -> Any:
    return f"{prefix}{name.upper()}" if isinstance(name, str) and not name.startswith(prefix) else name


def _short(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
