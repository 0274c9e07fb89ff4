"""The connection of a command to a running server, with a tenant's API key."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
from godoty.channel import authorization, open_channel
from godoty.chat.settings import DEV_ENV, read_env_file
from godoty.environment import DEFAULT_LISTEN, dial_address
from godoty.rpc_errors import decode
from godoty.v1 import agent_definition_service_pb2_grpc as stubs
from google.protobuf.message import Message

_TIMEOUT = 45.0  # seconds: longer than the server takes to check an MCP server that does not answer
Response = TypeVar("Response", bound=Message)
Call = Callable[..., Awaitable[Response]]


class Connection:
    """A connection that sends the key with each call."""

    def __init__(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self.agents: Any = stubs.AgentDefinitionServiceStub(channel)  # type: ignore[no-untyped-call] # generated
        self._metadata = metadata

    async def call(self, method: Call[Response], request: Message) -> Response:
        """Call a method.

        Raises:
            ValueError: The call failed; the text has the server's.
        """
        try:
            return await method(request, metadata=self._metadata, timeout=_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            raise ValueError(str(decode(error))) from None


def with_connection(work: Callable[[Connection], Awaitable[None]]) -> None:
    """Run `work` with a connection to the server of the environment, else of `godoty dev` in this directory.

    Raises:
        ValueError: There is no API key, or a call failed.
    """
    known = {**read_env_file(Path(DEV_ENV)), **os.environ}
    key = known.get("GODOTY_API_KEY", "")
    if not key:
        raise ValueError("GODOTY_API_KEY is not set: set an API key of the scope agents, or start `godoty dev`.")
    metadata = authorization(key)

    async def run() -> None:
        address = dial_address(known.get("GODOTY_LISTEN") or DEFAULT_LISTEN)
        async with open_channel(address, tls=None) as channel:
            await work(Connection(channel, metadata))

    asyncio.run(run())
