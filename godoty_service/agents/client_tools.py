"""Tools that the callers of an agent run: the server knows what models see of them. Pure."""

import json
from dataclasses import dataclass
from typing import Any, Final

MAX_SCHEMA_CHARACTERS: Final = 8_192
MAX_SCHEMA_DEPTH: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTool:
    """A tool that callers run.

    Attributes:
        name: The name that models see.
        description: What it does, for models.
        input_schema: The JSON schema of its input, as compact JSON; empty: it has no input.
        closes_on_expiry: A call without a result in time closes its step, in place of being denied.
    """

    name: str
    description: str
    input_schema: str = ""
    closes_on_expiry: bool = False

    @property
    def policy_name(self) -> str:
        """The name by which a policy allows it as a tool of a definition."""
        return f"client:{self.name}"

    @property
    def size(self) -> int:
        """Characters of its texts."""
        return len(self.name) + len(self.description) + len(self.input_schema)


def name_key(name: str) -> str:
    """Return what must be unique of a tool's name: Strands takes two as one that differ in `-` and `_` alone."""
    return name.replace("-", "_")


def read_input_schema(text: str) -> str:
    """Return the schema of a client tool's input as compact JSON.

    Raises:
        ValueError: It is none; the text says what it must be.
    """
    if not text:
        return ""
    if len(text) > MAX_SCHEMA_CHARACTERS:
        raise ValueError(f"must have at most {MAX_SCHEMA_CHARACTERS} characters")
    try:
        schema = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ValueError("must be a JSON Schema as JSON text") from None
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise ValueError('must be the JSON Schema of an object: its "type" is "object"')
    if _is_deep(schema):
        raise ValueError(f"must be nested at most {MAX_SCHEMA_DEPTH} deep")
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_SCHEMA_DEPTH):
        inner = (each for one in level for each in (one.values() if isinstance(one, dict) else one))
        level = [each for each in inner if isinstance(each, (dict, list))]
        if not level:
            return False
    return True
