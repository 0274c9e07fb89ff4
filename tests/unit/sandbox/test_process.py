import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from openrouter_sandbox.server import Sandbox

_PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "openrouter_sandbox"], stdout=subprocess.PIPE)
print(child.pid, child.stdout.readline().decode().strip(), flush=True)
time.sleep(60)
"""


@asynccontextmanager
async def _started(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process, (await asyncio.wait_for(process.stdout.readline(), 180)).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_process_prints_base_url_and_stops_on_signal(signum: signal.Signals) -> None:
    """`python -m openrouter_sandbox` prints its base URL, serves, and exits with 0 on SIGTERM and SIGINT."""
    async with _started("-m", "openrouter_sandbox", "--listen", "127.0.0.1:0") as (process, line):
        base_url = line.removeprefix("sandbox ready ")
        async with httpx.AsyncClient() as client:
            listed = await client.get(f"{base_url}/models")
        process.send_signal(signum)
        code = await asyncio.wait_for(process.wait(), 180)

    assert (listed.status_code, code) == (200, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
async def test_process_dies_with_killed_parent() -> None:
    """SIGKILL to the parent ends the sandbox too."""
    async with _started("-c", _PARENT) as (parent, line):
        child = int(line.split()[0])
        parent.kill()
        await parent.wait()
        await asyncio.to_thread(_until_gone, child)


async def test_stop_does_not_wait_for_hanging_client() -> None:
    """Stopping aborts open connections; the port can be reused at once."""
    first = Sandbox()
    await first.start()
    port = int(first.origin.rsplit(":", 1)[1])
    body = {"model": "openai/gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "@sandbox hang"}]}
    async with httpx.AsyncClient(headers={"authorization": "Bearer sandbox"}) as client:
        async with client.stream("POST", f"{first.base_url}/chat/completions", json=body) as response:
            async with asyncio.timeout(60):
                await first.stop()
            with pytest.raises(httpx.TransportError):
                await response.aread()
        async with Sandbox(port=port) as second:
            assert (await client.get(f"{second.base_url}/models")).status_code == 200


def _until_gone(pid: int) -> None:
    """Wait for the end of a process that is not a child of this one (init reaps it)."""
    deadline = time.monotonic() + 30
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and " Z " not in stat.read_text("ascii"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
