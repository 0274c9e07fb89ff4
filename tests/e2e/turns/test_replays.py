"""A repeated request reads the turn of the first one, and delays no other turn."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from godoty_service.turns.turn_store import TurnRecord, TurnStore
from tests.conftest import Start
from tests.support.caller import Caller
from tests.support.service import Service, soon

CHEAP, DEAR = "openai/gpt-4o-mini", "openai/gpt-4o"


async def test_repeated_request_does_not_change_session(caller: Caller, second_caller: Caller) -> None:
    """Replayed, or refused as another request with a used id: the session is not acquired and does not change."""
    await caller.converse("hi", request_id="one", model=CHEAP)
    before = caller.service.session("talk")
    for client in (caller, second_caller):
        again = await client.converse("hi", request_id="one", model=CHEAP)
        assert again.failure is None
        for other in ({"model": DEAR}, {"user": "eve"}, {"model": DEAR, "user": "eve"}):
            refused = await client.converse("other", request_id="one", **other)
            assert refused.failure is not None
            assert refused.failure.reason == "REQUEST_ID_REUSED"

    assert caller.service.session("talk") == before
    turn = await caller.converse("go on", user="ada")
    assert [call.requested_model for call in turn.calls] == [CHEAP]


@pytest.mark.parametrize("on_busy", [1, 2])
async def test_replay_does_not_delay_turn(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch, on_busy: Any
) -> None:
    """A turn with REJECT begins while replays, of callers with REJECT or WAIT, are still looked up."""
    first = await serve()
    await connect(first).converse("hi", request_id="one", on_busy=on_busy)
    caller = connect(first.at((await serve(database=first.database.name)).target))
    requested, answered = asyncio.Event(), asyncio.Event()

    def slowed(original: Callable[..., Any]) -> Callable[..., Any]:
        async def call(records: TurnStore, *given: Any) -> TurnRecord | None:
            if "one" in given or any(getattr(each, "request_id", None) == "one" for each in given):
                requested.set()
                await answered.wait()
            found: TurnRecord | None = await original(records, *given)
            return found

        return call

    for name in ("begin", "of_request"):
        monkeypatch.setattr(TurnStore, name, slowed(getattr(TurnStore, name)))
    replay = asyncio.create_task(caller.converse("hi", request_id="one", on_busy=on_busy))
    await soon(requested.is_set)
    try:
        turn = await caller.converse("a turn of its own")
    finally:
        answered.set()

    assert turn.failure is None
    assert (await replay).failure is None
    assert len(first.entries("talk")) == 2
