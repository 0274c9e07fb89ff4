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
    settings = backends.settings(backends.new_database(), local_dir=tmp_path, OPENROUTER_API_KEY=key)
    running = asyncio.create_task(run_dev(settings))
    try:
        async with asyncio.timeout(90):
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
