"""`godoty dev` as a user starts it: a process in an empty directory, stopped by Ctrl-C, and restarted."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from godoty.v1 import agent_service_pb2_grpc
from pymongo import MongoClient

from godoty_service.dev import run as run_dev
from tests.e2e.rpc.conftest import lasting_port
from tests.support.backends import Backends
from tests.support.caller import Caller
from tests.support.command import Command
from tests.support.service import Deployment, Service, format_amount, soon

pytestmark = pytest.mark.usefixtures("first_ports")
DATABASE = "godoty_test_dev"
_START = """
import sys
from godoty_service import cli, dev
dev._MONGOD_PORT = int(sys.argv.pop())
cli.main()
"""


@dataclass
class Dev:
    """A running `godoty dev`."""

    folder: Path
    mongod_port: int
    environment: dict[str, str]
    seen: int = 0  # bytes of what earlier runs printed

    @property
    def settings(self) -> dict[str, str]:
        """What `.local/dev.env` says."""
        lines = (self.folder / ".local/dev.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def printed(self) -> str:
        """What it has printed."""
        return (self.folder / "stdout").read_bytes()[self.seen :].decode()

    def finished_sessions(self) -> list[str]:
        """Return the sessions of the finished turns that it has shown."""
        mark, lines = "webhook event: ", self.printed.split("\n")[:-1]  # the last line may be incomplete
        events = [json.loads(each.removeprefix(mark)) for each in lines if each.startswith(mark)]
        return [each["data"]["session_id"] for each in events if each["type"] == "turn.finished"]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Caller]:
        """Start it, and stop it by SIGINT: it exits with success, and leaves no process running."""
        out = self.folder / "stdout"
        self.seen = out.stat().st_size if out.exists() else 0
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _START, "dev", str(self.mongod_port)),
            cwd=self.folder,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out.open("ab"),
            stderr=(self.folder / "stderr").open("ab"),
        )
        try:
            async with asyncio.timeout(180):
                while not (self.folder / ".local/dev.env").exists():
                    assert process.returncode is None, (self.folder / "stderr").read_text()
                    await asyncio.sleep(0.02)
            settings = self.settings
            async with grpc.aio.insecure_channel(settings["GODOTY_LISTEN"]) as channel:
                yield _caller(settings, channel)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
            code = await asyncio.wait_for(process.wait(), 180)
        assert code == 0
        for address in (
            settings["GODOTY_LISTEN"],
            f"127.0.0.1:{self.mongod_port}",
            _sandbox(settings).removeprefix("http://"),
        ):
            assert not _answers(address), address
        assert not (self.folder / ".local/dev.env").exists()


def _caller(settings: dict[str, str], channel: grpc.aio.Channel) -> Caller:
    key = settings["GODOTY_API_KEY"]
    mongo: MongoClient[dict[str, Any]] = MongoClient(settings["GODOTY_MONGODB_URI"], tz_aware=True)
    database = mongo[DATABASE]
    tenant_id = database["api_keys"].find_one({"_id": key.split("_")[1]})["tenant_id"]  # type: ignore[index] # it is
    deployment = Deployment(target=settings["GODOTY_LISTEN"], database=database, backends=None)  # type: ignore[arg-type] # none
    service = Service(deployment=deployment, tenant_id=tenant_id, api_key=key, key_id=key.split("_")[1])
    caller = Caller(service, channel)
    caller.stub = agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated
    return caller


def _sandbox(settings: dict[str, str]) -> str:
    return settings["GODOTY_OPENROUTER_BASE_URL"].removesuffix("/api/v1")


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


async def _chat(dev: Dev, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "godoty.chat", *arguments), cwd=dev.folder, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 180)
    assert process.returncode == 0
    return out.decode()


async def _ledger(dev: Dev, command: str) -> int:
    """Run `godoty ledger ...` with the settings of `.local/dev.env`; return its exit status."""
    environment = dev.environment | dev.settings
    process = Command("ledger", command, environment=environment, out=dev.folder / "out", err=dev.folder / "stderr")
    return await asyncio.wait_for(process.wait(), 180)


async def test_dev_starts_stops_and_restarts_with_its_data(tmp_path: Path) -> None:
    """The first run creates a tenant and a key, and accounts exactly; the second one finds them."""
    environment = {**os.environ, "GODOTY_LISTEN": f"127.0.0.1:{lasting_port()}", "GODOTY_MONGODB_DATABASE": DATABASE}
    dev = Dev(tmp_path, lasting_port(), environment)
    async with dev.running() as caller:
        first = dev.settings
        assert (tmp_path / ".local/dev.env").stat().st_mode & 0o077 == 0
        assert first["GODOTY_LISTEN"] == environment["GODOTY_LISTEN"]
        await caller.converse("hello")
        await caller.converse("who are you?")
        loop = await caller.converse("@sandbox tool-loop calls=5")
        totals = loop.finished.session_totals
        async with httpx.AsyncClient() as http:
            invoice = (await http.get(f"{_sandbox(first)}/_sandbox/invoice")).json()
        entries = caller.service.entry_documents("talk")
        summed = format_amount(sum((each["cost"].to_decimal() for each in entries), Decimal(0)))
        assert [each["number"] for each in entries] == list(range(1, 8))
        assert totals.cost_usd == (await caller.metrics()).totals.cost_usd == summed == invoice["total"]
        assert len(loop.calls) == 5
        assert "156" in await _chat(dev, "--session", "first", "--once", "What is 12*13?")
        for command in ("verify", "reconcile", "compare"):
            assert await _ledger(dev, command) == 0, (tmp_path / "stderr").read_text()
        await soon(lambda: len(dev.finished_sessions()) >= 4)
        assert dev.finished_sessions() == ["talk", "talk", "talk", "first"]
    assert first["GODOTY_API_KEY"] in dev.printed
    assert "canned" in dev.printed
    assert "grpcurl" in dev.printed

    async with dev.running() as caller:
        assert {**dev.settings, "GODOTY_OPENROUTER_BASE_URL": ""} == {**first, "GODOTY_OPENROUTER_BASE_URL": ""}
        assert (await caller.metrics()).totals == totals
        assert len(await caller.messages()) == 14
        turn = await caller.converse("and again")
        assert not turn.started.session_created
        assert turn.started.totals == totals
        assert turn.calls[0].number == 8


@pytest.mark.parametrize(("key", "kept"), [("sk-or-v1-real", None), ("sandbox-demo", "sandbox-demo")])
async def test_provider_key_of_the_environment_is_not_written(
    backends: Backends, tmp_path: Path, key: str, kept: str | None
) -> None:
    """A key in the environment is used and written nowhere; the sandbox's own key is no secret."""
    settings = backends.settings(backends.empty_database(), local_dir=tmp_path, OPENROUTER_API_KEY=key)
    running = asyncio.create_task(run_dev(settings))
    try:
        async with asyncio.timeout(180):
            while not (tmp_path / "dev.env").exists():
                assert not running.done(), running
                await asyncio.sleep(0.02)
        lines = dict(line.split("=", 1) for line in (tmp_path / "dev.env").read_text().splitlines())
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert lines.get("OPENROUTER_API_KEY") == kept
    assert (lines["GODOTY_OPENROUTER_BASE_URL"] == backends.sandbox.base_url) is (kept is None)
    assert "real" not in str(lines)
