"""The settings of the development environment file."""

from __future__ import annotations

from pathlib import Path

DEV_ENV = Path(".local/dev.env")
"""Written by `make run`: KEY=VALUE lines."""


def read_env_file(path: Path) -> dict[str, str]:
    """Read KEY=VALUE lines; return an empty dict if the file is missing."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.strip().removeprefix("export ").split("=", 1) for line in lines if "=" in line)
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs if not key.lstrip().startswith("#")}
