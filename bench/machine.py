"""Describes the machine and the versions of a run."""

import os
import platform
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from bench.environments import versions

_PROJECT = ("strands-agents", "openai", "aiohttp", "grpcio", "protobuf", "pymongo", "uvloop", "uvicorn")
_PEERS = {
    "litellm": ("litellm", "strands-agents", "openai", "grpcio", "uvicorn", "uvloop"),
    "strands": ("strands-agents", "openai", "a2a-sdk", "grpcio", "uvicorn"),
}


def machine() -> dict[str, object]:
    """Return the cores, processor, memory and system."""
    return {
        "cores": os.cpu_count(),
        "processor": _field("/proc/cpuinfo", "model name"),
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) // 2**20} GiB of memory",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def all_versions() -> dict[str, dict[str, str]]:
    """Return the measured versions, by environment."""
    project = {name: version(name) for name in _PROJECT}
    return {"project": project, **{name: versions(name, *packages) for name, packages in _PEERS.items()}}


def heading(command: str, before: tuple[float, ...], *, versions_of: Mapping[str, Mapping[str, str]]) -> str:
    """Return the first lines of a report."""
    known = machine()
    moment = f"{datetime.now().astimezone():%Y-%m-%d %H:%M}"
    lines = [
        f"`{command}`, {moment}.",
        f"{known['cores']} cores ({known['processor']}), {known['memory']}, {known['system']}.",
        f"Load average {before[0]:.1f} before the run, {os.getloadavg()[0]:.1f} after it; the run itself makes 1 to 2.",
    ]
    lines += [f"{name}: {', '.join(f'{each} {has}' for each, has in of.items())}." for name, of in versions_of.items()]
    return "\n".join(f"- {line}" for line in lines)


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return "unknown"
