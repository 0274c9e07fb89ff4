"""A server whose provider is a gateway that answers with given bytes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import Start
from tests.e2e.answers.gateway import Gateway, gateway
from tests.support.caller import Caller, Turn
from tests.support.service import Service


@dataclass(frozen=True)
class Outcome:
    """A turn, its caller and the gateway that answered it."""

    turn: Turn
    caller: Caller
    gateway: Gateway

    @property
    def entries(self) -> Any:
        """The ledger's entries of the session."""
        return self.caller.service.entries("talk")

    @property
    def results(self) -> dict[str, str]:
        """The tool results in the model's last request, by tool call id."""
        messages = self.gateway.requests[-1]["messages"]
        return {each["tool_call_id"]: str(each["content"]) for each in messages if each["role"] == "tool"}

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        """The tool calls in the model's last request: id, name, arguments."""
        calls = [call for each in self.gateway.requests[-1]["messages"] for call in each.get("tool_calls") or ()]
        return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]


RunTurn = Callable[..., Awaitable[Outcome]]


@pytest.fixture
async def start_server(serve: Start, connect: Callable[[Service], Caller]) -> AsyncIterator[Any]:
    """Starts a server on a gateway with some replies."""
    async with AsyncExitStack() as stack:

        async def start(*replies: bytes, **settings: Any) -> tuple[Caller, Gateway]:
            one = await stack.enter_async_context(gateway(*replies))
            return connect(await serve(openrouter_base_url=one.url, **settings)), one

        yield start


@pytest.fixture
def run_turn(start_server: Any) -> RunTurn:
    """Takes a turn on a server whose gateway has some replies."""

    async def outcome(*replies: bytes, **settings: Any) -> Outcome:
        caller, one = await start_server(*replies, **settings)
        return Outcome(await caller.converse("hi"), caller, one)

    return outcome
