import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from godoty_service.sandbox.server import Sandbox

_PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "godoty_service.sandbox"], stdout=subprocess.PIPE)
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
        yield process, (await asyncio.wait_for(process.stdout.readline(), 10)).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_says_when_it_is_ready_and_stops_on_a_signal(signum: signal.Signals) -> None:
    """`python -m godoty_service.sandbox` prints its base URL, serves, and ends well on SIGTERM and SIGINT."""
    async with _started("-m", "godoty_service.sandbox", "--listen", "127.0.0.1:0") as (process, line):
        base_url = line.removeprefix("sandbox ready ")
        async with httpx.AsyncClient() as client:
            listed = await client.get(f"{base_url}/models")
        process.send_signal(signum)
        code = await asyncio.wait_for(process.wait(), 5)

    assert (listed.status_code, code) == (200, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
async def test_the_process_dies_with_its_parent() -> None:
    """Killing the parent with SIGKILL ends the sandbox too."""
    async with _started("-c", _PARENT) as (parent, line):
        child = int(line.split()[0])
        parent.kill()
        await parent.wait()
        await asyncio.to_thread(_until_gone, child)


async def test_a_stop_does_not_wait_for_a_hanging_client() -> None:
    """Stopping cuts what is open; a port can be taken again at once."""
    first = Sandbox()
    await first.start()
    port = int(first.origin.rsplit(":", 1)[1])
    body = {"model": "openai/gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "@sandbox hang"}]}
    async with httpx.AsyncClient(headers={"authorization": "Bearer sandbox"}) as client:
        async with client.stream("POST", f"{first.base_url}/chat/completions", json=body) as response:
            async with asyncio.timeout(2):
                await first.stop()
            with pytest.raises(httpx.TransportError):
                await response.aread()
        async with Sandbox(port=port) as second:
            assert (await client.get(f"{second.base_url}/models")).status_code == 200


def _until_gone(pid: int) -> None:
    """Wait for the end of a process that is nobody's child here (its new parent reaps it)."""
    deadline = time.monotonic() + 5
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and " Z " not in stat.read_text("ascii"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
