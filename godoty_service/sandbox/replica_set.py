"""Replica sets of local mongods: one member for a laptop, three for tests that kill the primary."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

from godoty_service.sandbox.mongod import Mongod, MongodError

_NOT_YET_INITIALIZED = 94
_PRIMARY_SECONDS = 30.0
_POLL_SECONDS = 0.02
_CONFIGURE_SECONDS = 60.0  # it waits half of that for a mute process on the port that it had before


class LocalMongo:
    """A one-member replica set: `async with LocalMongo(folder) as mongo: connect(mongo.uri)`.

    An existing data directory is taken up again, on another port too.

    Args:
        data_dir: Where the data and the log live.
        port: The TCP port; None takes a free one.
        replica_set: The replica set's name; a data directory keeps the one it was made with.
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
        """Where clients connect."""
        return f"mongodb://{self.mongod.host}/?replicaSet={self.mongod.replica_set}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start, initiate when new, and return when the member is primary and writable."""
        await self.mongod.start()
        try:
            await _configure(self.mongod, [self.mongod])
            await _until(lambda: _is_primary(self.mongod), f"{self.mongod.host} became primary")
        except BaseException:
            await self.mongod.stop()
            raise

    async def stop(self) -> None:
        """Stop the process in order; the data stays."""
        await self.mongod.stop()


class LocalReplicaSet:
    """Replica set of several members (three by default) whose primary a test can kill.

    Elections start after 1 s without a primary, so a killed one leaves about 2 s without writes.

    Args:
        data_dir: One folder for each member is made in it.
        members: How many.
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
        """Where clients connect: every member's address and the set's name."""
        hosts = ",".join(member.host for member in self.members)
        return f"mongodb://{hosts}/?replicaSet={self.members[0].replica_set}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start every member and return when one is primary and the others follow it."""
        try:
            await asyncio.gather(*(member.start() for member in self.members))
            await _configure(self.members[0], self.members)
            await self.primary()
            await _until(self._all_follow, "every member follows the primary")
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop every member; the data stays."""
        await asyncio.gather(*(member.stop() for member in self.members))

    async def primary(self) -> Mongod:
        """The member that is primary; waits for an election when there is none."""
        found: list[Mongod] = []

        async def look() -> bool:
            found.extend([member for member in self.members if member.running and await _is_primary(member)])
            return bool(found)

        await _until(look, "a primary was elected")
        return found[0]

    async def kill_primary(self) -> Mongod:
        """SIGKILL the primary; returns it, and `restart` brings it back."""
        primary = await self.primary()
        primary.kill()
        return primary

    async def step_down(self) -> Mongod:
        """Make the primary step down, as a planned failover does; returns the member that was primary."""
        primary = await self.primary()
        async with primary.client() as client:
            with contextlib.suppress(AutoReconnect):  # older servers close the connection with the answer
                await client.admin.command({"replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 2})
        return primary

    async def restart(self, member: Mongod) -> None:
        """Start a killed member again on its data and wait until it follows."""
        await member.start()
        await _until(self._all_follow, f"{member.host} follows again")

    async def _all_follow(self) -> bool:
        states = [await _hello(member) for member in self.members if member.running]
        return all(state.get("isWritablePrimary") or state.get("secondary") for state in states)


async def _configure(speaker: Mongod, members: list[Mongod]) -> None:
    """Initiate a new set; on an old data directory put the hosts of today into its configuration."""
    hosts = [member.host for member in members]
    deadline = asyncio.get_running_loop().time() + _CONFIGURE_SECONDS
    while True:
        try:
            async with speaker.client() as client:
                await _configure_once(client.admin, speaker.replica_set, hosts)
        except PyMongoError as error:  # it listens a moment before it has read its configuration, and may hang up then
            if asyncio.get_running_loop().time() > deadline:
                raise MongodError(f"the replica set of {speaker.host} cannot be configured: {error}") from error
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
    return {"_id": name, "members": members, "settings": {"electionTimeoutMillis": 1000}}


async def _hello(member: Mongod) -> dict[str, Any]:
    try:
        async with member.client() as client:
            answer: dict[str, Any] = await client.admin.command("hello")
            return answer
    except PyMongoError:
        return {}


async def _is_primary(member: Mongod) -> bool:
    return bool((await _hello(member)).get("isWritablePrimary"))


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + _PRIMARY_SECONDS
    while not await condition():
        if asyncio.get_running_loop().time() > deadline:
            raise MongodError(f"waited {_PRIMARY_SECONDS:.0f} s in vain until {what}")
        await asyncio.sleep(_POLL_SECONDS)
