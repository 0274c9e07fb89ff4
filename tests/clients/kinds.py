"""Both kinds of clients, driven step by step from a test's event loop: the blocking one in a thread."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from godoty import AsyncGodoty, Godoty, GodotyError
from godoty.actions.tools import ToolRegistry

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS: dict[str, type[Any]] = {"blocking": Godoty, "asynchronous": AsyncGodoty}


@dataclass
class Driver:
    """A client of one of the kinds.

    Attributes:
        client: The client.
    """

    client: Any

    @property
    def blocking(self) -> bool:
        """Whether its calls block."""
        return isinstance(self.client, Godoty)

    @property
    def registry(self) -> ToolRegistry:
        """The client, as that which has tools."""
        registry: ToolRegistry = self.client
        return registry

    async def do(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a method, and return its result."""
        if self.blocking:
            return await asyncio.to_thread(method, *args, **options)
        return await method(*args, **options)

    async def all(self, results: Any) -> list[Any]:
        """Return what an iterator yields."""
        if self.blocking:
            return await asyncio.to_thread(list, results)
        return [each async for each in results]

    async def next(self, turn: Any) -> Any:
        """Return the turn's next event; None at its end."""
        return await (asyncio.to_thread(next, turn, None) if self.blocking else anext(turn, None))

    async def until_text(self, turn: Any, text: str) -> None:
        """Read a turn until its answer has a text."""
        while text not in turn.text:
            assert await self.next(turn) is not None

    async def turn(self, text: str, **options: Any) -> Any:
        """Run a turn to its end."""
        return await self.do(self.client.converse(text, **options).wait)

    async def failure(self, text: str, **options: Any) -> GodotyError:
        """Run a turn that must fail."""
        try:
            turn = await self.turn(text, **options)
        except GodotyError as error:
            return error
        raise AssertionError(f"it did not fail: {turn.text}")
