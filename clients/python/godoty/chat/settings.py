"""Where the server is and which key opens it."""

from __future__ import annotations

from pathlib import Path

DEV_ENV = Path(".local/dev.env")
"""What `make run` writes: KEY=VALUE lines."""
DEFAULT_LISTEN = "127.0.0.1:50051"

_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - dialled, not bound


def read_env_file(path: Path) -> dict[str, str]:
    """Reads KEY=VALUE lines; a file that is not there has none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.strip().removeprefix("export ").split("=", 1) for line in lines if "=" in line)
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs if not key.lstrip().startswith("#")}


def dialled(listen: str) -> str:
    """Turns the address that a server listens on into one to dial: a server everywhere is here, too."""
    host, colon, port = listen.rpartition(":")
    return _EVERYWHERE.get(host, host) + colon + port
