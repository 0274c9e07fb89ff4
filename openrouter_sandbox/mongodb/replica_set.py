"""Replica sets of local mongods: one member for a laptop, three for tests that kill the primary."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

from openrouter_sandbox.mongodb.mongod import Mongod, MongodError

_NOT_YET_INITIALIZED = 94
_PRIMARY_SECONDS = 30.0
_SHORT_ELECTION_MS = 1000
_POLL_SECONDS = 0.02
_CONFIGURE_SECONDS = 60.0  # mongod itself waits 30 s for an unresponsive process on its previous port


class LocalMongo:
    """A one-member replica set: `async with LocalMongo(folder) as mongo: connect(mongo.uri)`.

    An existing data directory is reused, on another port if necessary.

    Args:
        data_dir: Directory of the data and the log.
        port: The TCP port; None selects a free one.
        replica_set: The replica set's name; must match an existing data directory's.
        binary: The mongod to start; None finds one.
        parameters: Server parameters, see `Mongod`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        replica_set: str = "godoty",
        binary: Path | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        self.mongod = Mongod(data_dir, port=port, replica_set=replica_set, binary=binary, parameters=parameters)

    @property
    def uri(self) -> str:
        """The connection string."""
        return f"mongodb://{self.mongod.host}/?replicaSet={self.mongod.replica_set}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the member, initiate a new replica set, and return when the member is primary and writable."""
        await self.mongod.start()
        try:
            await _configure(self.mongod, [self.mongod])
            await _wait_until(lambda: _is_primary(self.mongod), f"{self.mongod.host} to become primary")
        except BaseException:
            await self.mongod.stop()
            raise

    async def stop(self) -> None:
        """Stop the process; the data is retained."""
        await self.mongod.stop()


class LocalReplicaSet:
    """A replica set of several members, for tests that kill its primary.

    An election starts 1 s after the primary was killed, so writes are interrupted for about 2 s. Until one is killed,
    it takes MongoDB's usual 10 s: a busy machine would else have elections that no test asked for.

    Args:
        data_dir: Parent directory of the members' data directories.
        members: Number of members.
        replica_set: The replica set's name.
        binary: The mongod to start; None finds one.
    """

    def __init__(
        self, data_dir: Path, *, members: int = 3, replica_set: str = "godoty", binary: Path | None = None
    ) -> None:
        self.members = [
            Mongod(data_dir / f"member{number}", replica_set=replica_set, binary=binary, cache_gb="0.25")
            for number in range(members)
        ]

    @property
    def uri(self) -> str:
        """The connection string, with every member's address."""
        hosts = ",".join(member.host for member in self.members)
        return f"mongodb://{hosts}/?replicaSet={self.members[0].replica_set}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start every member and return when one is primary and the others are secondaries."""
        try:
            await asyncio.gather(*(member.start() for member in self.members))
            await _configure(self.members[0], self.members)
            await self.primary()
            await _wait_until(self._all_ready, "every member to be primary or secondary")
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop every member; the data is retained."""
        await asyncio.gather(*(member.stop() for member in self.members))

    async def primary(self) -> Mongod:
        """Return the primary; waits for an election if there is none."""
        found: list[Mongod] = []

        async def has_primary() -> bool:
            found.extend([member for member in self.members if member.running and await _is_primary(member)])
            return bool(found)

        await _wait_until(has_primary, "the election of a primary")
        return found[0]

    async def kill_primary(self) -> Mongod:
        """Kill the primary with SIGKILL and return it, for `restart`."""
        primary = await self.primary()
        async with primary.client() as client:
            await _shorten_elections(client.admin)
        primary.kill()
        return primary

    async def step_down(self) -> Mongod:
        """Make the primary step down, as in a planned failover; return the former primary."""
        primary = await self.primary()
        async with primary.client() as client:
            with contextlib.suppress(AutoReconnect):  # older servers close the connection when they step down
                # On a busy machine the secondaries take a while to catch up, without which it does not step down.
                await client.admin.command({"replSetStepDown": 60, "secondaryCatchUpPeriodSecs": 30})
        return primary

    async def restart(self, member: Mongod) -> None:
        """Start a killed member on its data and wait until every member is primary or secondary."""
        await member.start()
        await _wait_until(self._all_ready, f"{member.host} to be primary or secondary")

    async def _all_ready(self) -> bool:
        states = [await _hello(member) for member in self.members if member.running]
        return all(state.get("isWritablePrimary") or state.get("secondary") for state in states)


async def _configure(first: Mongod, members: list[Mongod]) -> None:
    """Initiate a new replica set; in an existing one replace the members' hosts if their ports have changed."""
    hosts = [member.host for member in members]
    deadline = asyncio.get_running_loop().time() + _CONFIGURE_SECONDS
    while True:
        try:
            async with first.client() as client:
                await _configure_once(client.admin, first.replica_set, hosts)
        except PyMongoError as error:  # it listens before its configuration is loaded, and may close connections then
            if asyncio.get_running_loop().time() > deadline:
                raise MongodError(f"the replica set of {first.host} cannot be configured: {error}") from error
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return


async def _configure_once(admin: AsyncDatabase[dict[str, object]], name: str, hosts: list[str]) -> None:
    try:
        answer = await admin.command("replSetGetConfig")
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALIZED:
            raise
        await admin.command("replSetInitiate", _new_config(name, hosts))
        return
    config: dict[str, Any] = answer["config"]
    if [member["host"] for member in config["members"]] != hosts:
        config["version"] += 1
        for member, host in zip(config["members"], hosts, strict=True):
            member["host"] = host
        await admin.command({"replSetReconfig": config, "force": True})


def _new_config(name: str, hosts: list[str]) -> dict[str, Any]:
    members = [{"_id": number, "host": host} for number, host in enumerate(hosts)]
    return {"_id": name, "members": members}


async def _shorten_elections(admin: AsyncDatabase[dict[str, object]]) -> None:
    """Return once a majority of the members starts an election 1 s after it has lost the primary."""
    config: dict[str, Any] = (await admin.command("replSetGetConfig"))["config"]
    if config["settings"]["electionTimeoutMillis"] != _SHORT_ELECTION_MS:
        config["version"] += 1
        config["settings"]["electionTimeoutMillis"] = _SHORT_ELECTION_MS
        await admin.command({"replSetReconfig": config})


async def _hello(member: Mongod) -> dict[str, Any]:
    try:
        async with member.client() as client:
            answer: dict[str, Any] = await client.admin.command("hello")
            return answer
    except PyMongoError:
        return {}


async def _is_primary(member: Mongod) -> bool:
    return bool((await _hello(member)).get("isWritablePrimary"))


async def _wait_until(condition: Callable[[], Awaitable[bool]], expected: str) -> None:
    deadline = asyncio.get_running_loop().time() + _PRIMARY_SECONDS
    while not await condition():
        if asyncio.get_running_loop().time() > deadline:
            raise MongodError(f"timed out after {_PRIMARY_SECONDS:.0f} s waiting for {expected}")
        await asyncio.sleep(_POLL_SECONDS)
