"""Reads MCP servers from YAML files, and writes them as YAML: by the field names of mcp_server.proto.

Shorter than the message: `headers` is a mapping of names to values. `${NAME}` in a secret is the value of a variable in
the environment of the command, so that a file need not have secrets.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from godoty.v1 import mcp_server_pb2 as pb
from google.protobuf import json_format

from godoty_service.cli.agents.files import dump, read_documents

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SHOWN = ("name", "url", "headers", "oauth", "allow", "deny", "prefix", "timeout", "output_bytes")


def read_servers(path: Path, environment: Mapping[str, str] = os.environ) -> list[pb.McpServer]:
    """Read the servers of a file: one, or several that `---` separates.

    Raises:
        ValueError: The file is no YAML, is too large, or has what a server has not, or a variable is not set.
        OSError: It cannot be read.
    """
    return [_server(each, path, environment) for each in read_documents(path)]


def to_yaml(server: pb.McpServer) -> str:
    """Return a server as YAML, which `read_servers` reads: without secrets, so the stored ones remain."""
    fields = json_format.MessageToDict(server, preserving_proto_field_name=True)
    if "headers" in fields:
        fields["headers"] = {each["name"]: None for each in fields["headers"]}
    return dump({name: fields[name] for name in _SHOWN if name in fields})


def _server(document: dict[Any, Any], path: Path, environment: Mapping[str, str]) -> pb.McpServer:
    """Convert a document.

    Raises:
        ValueError: It has what a server has not, or a variable is not set.
    """
    fields = dict(document)
    headers, oauth = fields.get("headers"), fields.get("oauth")
    if isinstance(headers, dict):
        fields["headers"] = [_header(str(name), value, path, environment) for name, value in headers.items()]
    if isinstance(oauth, dict) and isinstance(secret := oauth.get("client_secret"), str):
        fields["oauth"] = {**oauth, "client_secret": _filled(secret, path, environment)}
    message = pb.McpServer()
    try:
        json_format.ParseDict(fields, message, max_recursion_depth=20)
    except (json_format.ParseError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    return message


def _header(name: str, value: Any, path: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return a header; one without a value is the stored one."""
    if value is None:
        return {"name": name}
    return {"name": name, "secret": _filled(str(value), path, environment)}


def _filled(text: str, path: Path, environment: Mapping[str, str]) -> str:
    """Return a secret with the values of environment variables in place of their names.

    Raises:
        ValueError: One is not set.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise ValueError(f"{path}: the environment variable {match[1]} is not set")
        return environment[match[1]]

    return _VARIABLE.sub(value, text)
