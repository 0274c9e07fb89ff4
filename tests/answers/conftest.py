"""A server whose provider is a gateway that answers with given bytes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.answers.gateway import Gateway, gateway
from tests.conftest import Start
from tests.service.caller import Caller, Turn
from tests.service.service import Service


@dataclass(frozen=True)
class Asked:
    """A turn, and both sides of it."""

    turn: Turn
    caller: Caller
    gateway: Gateway

    @property
    def entries(self) -> Any:
        """The ledger's entries of the session."""
        return self.caller.service.entries("talk")

    @property
    def results(self) -> dict[str, str]:
        """What the model saw of the tools, by the id of the call, in its last request."""
        messages = self.gateway.requests[-1]["messages"]
        return {each["tool_call_id"]: str(each["content"]) for each in messages if each["role"] == "tool"}

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        """The tool calls that the model was sent again in its last request: id, name, arguments."""
        calls = [call for each in self.gateway.requests[-1]["messages"] for call in each.get("tool_calls") or ()]
        return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]


Ask = Callable[..., Awaitable[Asked]]


@pytest.fixture
async def begin(serve: Start, connect: Callable[[Service], Caller]) -> AsyncIterator[Any]:
    """Starts a server on a gateway with some replies."""
    async with AsyncExitStack() as stack:

        async def start(*replies: bytes, **settings: Any) -> tuple[Caller, Gateway]:
            one = await stack.enter_async_context(gateway(*replies))
            return connect(await serve(openrouter_base_url=one.url, **settings)), one

        yield start


@pytest.fixture
def ask(begin: Any) -> Ask:
    """Takes a turn on a server whose gateway has some replies."""

    async def asked(*replies: bytes, **settings: Any) -> Asked:
        caller, one = await begin(*replies, **settings)
        return Asked(await caller.converse("hi"), caller, one)

    return asked
