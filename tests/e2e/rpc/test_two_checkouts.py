"""Two checkouts on one machine: each `godoty dev` finds its own ports, and reuses them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb

from tests.support.caller import stub_of
from tests.support.command import Command

pytestmark = pytest.mark.usefixtures("first_ports")
LOCAL = "kept"
PREFERRED = (27_117, 50_051)
KEPT = ("GODOTY_LISTEN", "GODOTY_MONGODB_URI", "GODOTY_API_KEY")


@asynccontextmanager
async def dev(folder: Path) -> AsyncIterator[dict[str, str]]:
    """Run `godoty dev` with its own local directory; yield the settings of its dev.env."""
    folder.mkdir(exist_ok=True)
    dev_env = folder / LOCAL / "dev.env"
    environment = {**os.environ, "GODOTY_LOCAL_DIR": str(folder / LOCAL), "GODOTY_MONGODB_DATABASE": "godoty_test_dev"}
    process = Command("dev", environment=environment, out=folder / "out")
    try:
        async with asyncio.timeout(180):
            while not dev_env.exists():
                assert process.returncode is None, (folder / "out").read_text()
                await asyncio.sleep(0.05)
        yield dict(line.split("=", 1) for line in dev_env.read_text().splitlines())
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        code = await asyncio.wait_for(process.wait(), 180)
    assert code == 0, (folder / "out").read_text()


async def answer(settings: dict[str, str]) -> str:
    """Run a turn with the settings of a dev.env."""
    metadata = (("authorization", f"Bearer {settings['GODOTY_API_KEY']}"),)
    async with grpc.aio.insecure_channel(settings["GODOTY_LISTEN"]) as channel:
        call = stub_of(channel).Converse(pb.ConverseRequest(text="What is 12*13?"), metadata=metadata, timeout=90)
        return "".join([each.event.text_delta.text async for each in call])


@asynccontextmanager
async def taken(port: int) -> AsyncIterator[None]:
    """Listen on a port like another process that closes every connection, unless one has it already."""
    async with AsyncExitStack() as stack:
        with suppress(OSError):
            server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
            await stack.enter_async_context(server)
        yield


def kept(settings: dict[str, str]) -> dict[str, str]:
    """Return the settings that stay the same between starts."""
    return {name: settings[name] for name in KEPT}


async def test_two_checkouts_serve_at_the_same_time_and_keep_their_ports(tmp_path: Path) -> None:
    """Started concurrently they get different ports, and print them; each keeps its ports, also across a start.

    If a port is used at the next start, the data is served on another port, which is then kept.
    """
    async with AsyncExitStack() as stack:
        both = await asyncio.gather(*(stack.enter_async_context(dev(tmp_path / name)) for name in ("first", "second")))
        for name in ("GODOTY_LISTEN", "GODOTY_MONGODB_URI", "GODOTY_OPENROUTER_BASE_URL"):
            assert len({settings[name] for settings in both}) == 2, name
        assert all("156" in each for each in await asyncio.gather(*map(answer, both)))
    lines = (tmp_path / "first" / "out").read_text()
    assert [
        each for each in ("Starting MongoDB", "Starting the sandbox", "Starting the service") if each not in lines
    ] == []

    before = both[1]
    port = int(before["GODOTY_LISTEN"].rpartition(":")[2])
    mongo = int(before["GODOTY_MONGODB_URI"].rpartition("127.0.0.1:")[2].partition("/")[0])
    async with AsyncExitStack() as stack:
        for each in PREFERRED:  # else they would be found again although they are not stored
            await stack.enter_async_context(taken(each))
        async with taken(port), taken(mongo), dev(tmp_path / "second") as moved:
            assert "156" in await answer(moved)
        assert moved["GODOTY_API_KEY"] == before["GODOTY_API_KEY"]
        assert {moved["GODOTY_LISTEN"], moved["GODOTY_MONGODB_URI"]}.isdisjoint(
            {before["GODOTY_LISTEN"], before["GODOTY_MONGODB_URI"]}
        )
        for _ in range(3):  # another process of the machine may take a port in the meantime
            async with dev(tmp_path / "second") as again:
                pass
            if kept(again) == kept(moved):
                return
            moved = again
    raise AssertionError("it does not keep its ports")
