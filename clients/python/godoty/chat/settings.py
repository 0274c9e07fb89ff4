"""The server's address and the API key from the development environment file."""

from __future__ import annotations

from pathlib import Path

DEV_ENV = Path(".local/dev.env")
"""Written by `make run`: KEY=VALUE lines."""
DEFAULT_LISTEN = "127.0.0.1:50051"

_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - replaced, not bound


def read_env_file(path: Path) -> dict[str, str]:
    """Read KEY=VALUE lines; return an empty dict if the file is missing."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.strip().removeprefix("export ").split("=", 1) for line in lines if "=" in line)
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs if not key.lstrip().startswith("#")}


def dial_address(listen: str) -> str:
    """Return the address to connect to for a listen address: a wildcard host becomes the loopback address."""
    host, colon, port = listen.rpartition(":")
    return _WILDCARDS.get(host, host) + colon + port
