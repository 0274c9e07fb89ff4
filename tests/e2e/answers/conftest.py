"""Servers whose provider is a gateway that answers with given bytes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import WITHOUT_WEBHOOKS, Start, serving
from tests.e2e.answers.gateway import Gateway, Relay, gateway, listening
from tests.support.backends import Backends
from tests.support.caller import Caller, Turn
from tests.support.lasting import Lasting, lasting
from tests.support.service import Service

Relaying = tuple[Relay, tuple[str, str]]
_FOLDER = Path(__file__).parent


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
AtRelay = Callable[..., tuple[Caller, Gateway]]


@pytest.fixture
async def start_server(serve: Start, connect: Callable[[Service], Caller]) -> AsyncIterator[Any]:
    """Starts a server on a gateway with some replies."""
    async with AsyncExitStack() as stack:

        async def start(*replies: bytes, **settings: Any) -> tuple[Caller, Gateway]:
            one = await stack.enter_async_context(gateway(*replies))
            return connect(await serve(openrouter_base_url=one.url, **settings)), one

        yield start


@contextmanager
def _relaying(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relaying]:
    one, stack = Relay(), AsyncExitStack()
    url = backends.run(stack.enter_async_context(listening(one.serve)))
    # What follows a bound has a minute on a busy machine, since its cost is known at its end.
    environment = WITHOUT_WEBHOOKS | {"GODOTY_OPENROUTER_BASE_URL": url, "GODOTY_ANSWER_DRAIN": "60"}
    try:
        with serving(backends, tmp_path_factory, **environment) as served:
            yield one, served
    finally:
        backends.run(stack.aclose())


@pytest.fixture(scope="session")
def lasting_relay(
    request: pytest.FixtureRequest, backends: Backends, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lasting[Relaying]]:
    """The server of `relay`, for all files of this folder."""
    with lasting(request, _FOLDER, lambda: _relaying(backends, tmp_path_factory)) as one:
        yield one


@pytest.fixture(scope="module")
def relay(lasting_relay: Lasting[Relaying]) -> Relaying:
    """A server of default settings, by its address and its database, and the provider that it has."""
    return lasting_relay.value


@pytest.fixture
def at_relay(backends: Backends, relay: Relaying, connect: Callable[[Service], Caller]) -> AtRelay:
    """Returns a new tenant of the shared server and the gateway, which has some replies from then on."""

    def start(*replies: bytes) -> tuple[Caller, Gateway]:
        shared, served = relay
        shared.current = one = Gateway()
        one.replies = list(replies)
        return connect(backends.service(*served)), one

    return start


@pytest.fixture
def run_turn(
    at_relay: AtRelay,
    run_turn_here: RunTurn,
) -> RunTurn:
    """Takes a turn of a new tenant while the gateway has some replies; settings need a server of their own."""

    async def outcome(*replies: bytes, **settings: Any) -> Outcome:
        if settings:
            return await run_turn_here(*replies, **settings)
        caller, one = at_relay(*replies)
        return Outcome(await caller.converse("hi"), caller, one)

    return outcome


@pytest.fixture
def run_turn_here(start_server: Any) -> RunTurn:
    """Takes a turn on a server of this process whose gateway has some replies."""

    async def outcome(*replies: bytes, **settings: Any) -> Outcome:
        caller, one = await start_server(*replies, **settings)
        return Outcome(await caller.converse("hi"), caller, one)

    return outcome
