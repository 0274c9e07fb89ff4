"""Writes docs/settings.md from the settings: `python docs/generate_settings.py [--check]`.

With --check it writes nothing and exits with status 1 if the file is stale.
"""

import sys
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from godoty_service.settings.settings import Settings

TARGET = Path(__file__).with_name("settings.md")
HEAD = """# Settings

Generated from [settings.py](../godoty_service/settings/settings.py) by `make docs`. A server reads its settings from
the environment once, when it starts; [operations.md](operations.md) says how wrong ones are reported.

| variable | default | range | meaning |
|---|---|---|---|
"""


def variable(name: str, field: FieldInfo) -> str:
    """Return the environment variable of a setting."""
    alias: Any = field.validation_alias
    choices = getattr(alias, "choices", [alias] if alias else [])
    return str(choices[0]) if choices else f"GODOTY_{name.upper()}"


def default_of(field: FieldInfo) -> str:
    """Return a setting's default as it would be written in the environment."""
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None:
        return "unset"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    text = f"{field.default:,}" if isinstance(field.default, int) else str(field.default)
    return f"`{text}`" if text else "empty"


def range_of(field: FieldInfo) -> str:
    """Return the numbers that a setting takes."""
    signs = {Ge: ("ge", "from"), Gt: ("gt", "above"), Le: ("le", "to"), Lt: ("lt", "below")}
    found = [(kind, each) for each in field.metadata for kind in signs if isinstance(each, kind)]
    return " ".join(f"{signs[kind][1]} {getattr(each, signs[kind][0]):,}" for kind, each in found)


def page() -> str:
    """Return the text of docs/settings.md."""
    rows = (
        f"| `{variable(name, field)}` | {default_of(field)} | {range_of(field)} | {field.description or ''} |"
        for name, field in Settings.model_fields.items()
    )
    return HEAD + "\n".join(rows).replace("—", "-") + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        if not TARGET.exists() or TARGET.read_text() != page():
            sys.exit(f"stale: {TARGET.name}; run make docs")
    else:
        TARGET.write_text(page())
