"""A repeated request reads the turn of the first one, and is in no other turn's way."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from godoty_service.turns.records import TurnRecord, TurnRecords
from tests.conftest import Start
from tests.service.caller import Caller
from tests.service.service import Service
from tests.turns.streams import until

CHEAP, DEAR = "openai/gpt-4o-mini", "openai/gpt-4o"


async def test_repeated_request_changes_nothing_of_the_session(caller: Caller, twin: Caller) -> None:
    """Replayed, or refused as another request under a used id: the session is not claimed, and all of it stays."""
    await caller.converse("hi", request_id="one", model=CHEAP)
    before = caller.service.session("talk")
    for who in (caller, twin):
        again = await who.converse("hi", request_id="one", model=CHEAP)
        assert again.failure is None
        for other in ({"model": DEAR}, {"user": "eve"}, {"model": DEAR, "user": "eve"}):
            refused = await who.converse("other", request_id="one", **other)
            assert refused.failure is not None
            assert refused.failure.reason == "REQUEST_ID_REUSED"

    assert caller.service.session("talk") == before
    turn = await caller.converse("go on", user="ada")
    assert [call.requested_model for call in turn.calls] == [CHEAP]


@pytest.mark.parametrize("on_busy", [1, 2])
async def test_replay_is_not_in_the_way_of_a_turn(
    serve: Start, connect: Callable[[Service], Caller], monkeypatch: pytest.MonkeyPatch, on_busy: Any
) -> None:
    """A turn that does not wait begins while replays, of callers that wait or do not, are still being looked up."""
    first = await serve()
    await connect(first).converse("hi", request_id="one", on_busy=on_busy)
    caller = connect(first.at((await serve(database=first.database.name)).target))
    asked, answered = asyncio.Event(), asyncio.Event()

    def slowed(original: Callable[..., Any]) -> Callable[..., Any]:
        async def call(records: TurnRecords, *given: Any) -> TurnRecord | None:
            if "one" in given or any(getattr(each, "request_id", None) == "one" for each in given):
                asked.set()
                await answered.wait()
            found: TurnRecord | None = await original(records, *given)
            return found

        return call

    for name in ("begin", "of_request"):
        monkeypatch.setattr(TurnRecords, name, slowed(getattr(TurnRecords, name)))
    replay = asyncio.create_task(caller.converse("hi", request_id="one", on_busy=on_busy))
    await until(asked.is_set)
    try:
        turn = await caller.converse("a turn of its own")
    finally:
        answered.set()

    assert turn.failure is None
    assert (await replay).failure is None
    assert len(first.entries("talk")) == 2
