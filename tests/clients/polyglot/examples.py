"""Runs the examples in other languages."""

import asyncio
import os
import re
import subprocess
from pathlib import Path

CLIENTS = Path(__file__).parents[3] / "clients"
_TIMEOUT = 300  # go, npm and maven may have to fetch and compile
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # mvn prints some even with -Dstyle.color=never


async def run(folder: str, *command: str, **environment: str) -> tuple[int, str]:
    """Run a command in a client's folder; return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=CLIENTS / folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), timeout=_TIMEOUT)
    return process.returncode or 0, _COLOUR.sub("", out.decode())
