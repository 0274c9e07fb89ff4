"""Starts the testbed of the contenders: a sandbox OpenRouter, a MongoDB, and the load generator."""

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
from pydantic import SecretStr

from bench.contenders.contender import clean_environment, python
from bench.generator.plan import Load, Target, to_line
from bench.process import Child
from godoty_service.bootstrap.components import open_components
from godoty_service.settings.settings import Settings
from godoty_service.tenancy.auth import Scope
from openrouter_sandbox.mongodb.replica_set import LocalMongo

DATABASE = "godoty_bench"
PROVIDER_KEY = "sandbox-bench"


@dataclass(kw_only=True)
class Testbed:
    """What the measured servers run against.

    Attributes:
        upstream: The sandbox's base URL.
        sandbox: Its process.
        mongo: The database.
        generator: The load generator's process.
        api_key: A key of the tenant that Godoty serves.
        directory: The directory of logs and data.
    """

    upstream: str
    sandbox: Child
    mongo: LocalMongo
    generator: Child
    api_key: str
    directory: Path

    @property
    def mongo_pid(self) -> int:
        """The database's process."""
        if self.mongo.mongod.pid is None:
            raise RuntimeError("mongod does not run")
        return self.mongo.mongod.pid

    async def run_plan(self, target: Target, load: Load) -> dict[str, Any]:
        """Run a plan in the load generator; return its measurements (`Measures`)."""
        await self.generator.say(to_line(target, load))
        seen: dict[str, Any] = json.loads(await self.generator.line(load.timeout + 120))
        return seen

    def child(self, name: str, command: list[str], **more: Any) -> Child:
        """Return a process with its own log."""
        return Child(command, log=self.directory / f"{name}.log", **{"environment": clean_environment(), **more})


@asynccontextmanager
async def open_testbed() -> AsyncIterator[Testbed]:
    """Start everything; stop and delete it after the block."""
    async with AsyncExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="godoty-bench-", ignore_cleanup_errors=True))
        )
        sandbox = await _started(stack, directory, "sandbox", "openrouter_sandbox")
        upstream = (await sandbox.line(30)).split()[-1]
        async with httpx.AsyncClient() as client:
            settings = f"{upstream.removesuffix('/api/v1')}/_sandbox/settings"
            (await client.post(settings, json={"record_requests": False})).raise_for_status()
        mongo = await stack.enter_async_context(LocalMongo(directory / "mongodb"))
        generator = await _started(stack, directory, "generator", "bench.generator")
        yield Testbed(
            upstream=upstream,
            sandbox=sandbox,
            mongo=mongo,
            generator=generator,
            api_key=await _issue_key(mongo.uri),
            directory=directory,
        )


async def _started(stack: AsyncExitStack, directory: Path, name: str, module: str) -> Child:
    child = Child(python(module), log=directory / f"{name}.log", environment=clean_environment())
    await child.start()
    stack.push_async_callback(child.stop)
    return child


async def _issue_key(uri: str) -> str:
    """Create the tenant and an API key of it."""
    settings = Settings(mongodb_uri=uri, mongodb_database=DATABASE, OPENROUTER_API_KEY=SecretStr(PROVIDER_KEY))
    async with open_components(settings) as components:
        tenant = await components.tenancy.tenants.create("bench")
        _, key = await components.tenancy.api_keys.issue(tenant.tenant_id, scopes=frozenset({Scope.CONVERSE}))
    return key
