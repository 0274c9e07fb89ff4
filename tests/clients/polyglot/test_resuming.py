"""When the clients in other languages ask again, what they ask, and when they give up: against scripted streams."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb

from tests.clients.polyglot.programs import READERS, Language
from tests.clients.polyglot.scripted_turns import (
    TURN,
    Failure,
    Stream,
    Wait,
    finished,
    serving,
    started,
    text,
)

_LOST = Failure(grpc.StatusCode.UNAVAILABLE)
_UNREACHABLE: list[Stream] = [[_LOST]] * 99
_CANCEL = pb.CancelTurnRequest(turn_id=TURN)


@pytest.fixture(params=READERS)
def language(request: pytest.FixtureRequest) -> Language:
    """Each language, and Java's reactive stream."""
    return READERS[request.param]


def _resumed(after: int) -> pb.ResumeTurnRequest:
    return pb.ResumeTurnRequest(turn_id=TURN, after_sequence=after)


async def test_lost_stream_is_resumed_after_its_last_event(language: Language) -> None:
    """Also if the network sends no error, or a stopping server one; what comes again is skipped."""
    streams: list[Stream] = [
        [started(), text(2, "a"), _LOST],
        [text(2, "a"), text(4, "bc")],  # ends without its turn
        [Failure(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", 0.01)],
        [Failure(grpc.StatusCode.INTERNAL)],
        [text(5, "d"), Failure(grpc.StatusCode.CANCELLED)],
        [finished(6), _LOST],  # after its turn
    ]
    async with serving(language, *streams) as (turns, program):
        result = await program.ask("converse", session_id="talk", text="hi")

    first, *others = turns.asked
    assert isinstance(first, pb.ConverseRequest)
    assert first.request_id == result.done["request_id"] != ""
    assert first.disconnect_grace.seconds == 30
    assert others == [_resumed(2), *[_resumed(4)] * 3, _resumed(5)]
    assert [each["sequence"] for each in result.events] == [1, 2, 4, 5, 6]
    assert (result.done["text"], result.done["cost_usd"], result.done["reconnects"]) == ("abcd", "0.25", 5)


async def test_turn_that_has_not_begun_is_requested_again_with_its_id(language: Language) -> None:
    """The same request: it attaches to the turn, if the server has begun it."""
    streams: list[Stream] = [[_LOST], [Failure(grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE", 0.01)]]
    async with serving(language, *streams, [started(), text(2, "a"), finished(3)]) as (turns, program):
        result = await program.ask("converse", session_id="talk", text="hi")

    assert (result.error, result.done["text"]) == ({}, "a")
    assert len(turns.asked) == 3
    assert turns.asked[0] == turns.asked[1] == turns.asked[2]


async def test_server_that_cannot_be_reached_fails_soon(language: Language) -> None:
    """A turn of which nothing was heard is requested six times."""
    async with serving(language, *_UNREACHABLE) as (turns, program):
        result = await program.ask("converse", session_id="talk", text="hi")

    assert (result.error["code"], result.error["reason"], result.done) == (14, "", {})
    assert len(turns.asked) == 6


async def test_error_of_the_turn_is_not_retried(language: Language) -> None:
    """Neither before its first event nor after it; a turn that has ended so is not cancelled."""
    busy = Failure(grpc.StatusCode.ABORTED, "SESSION_BUSY", 0.5)
    gone = Failure(grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE", 1.0)
    async with serving(language, [busy], [started(), text(2, "a"), gone]) as (turns, program):
        refused = await program.ask("converse", session_id="talk", text="hi")
        failed = await program.ask("converse", session_id="talk", text="hi")

    assert (refused.error["reason"], refused.error["retry_delay"]) == ("SESSION_BUSY", 0.5)
    assert (failed.error["reason"], failed.text) == ("PROVIDER_UNAVAILABLE", "a")
    assert [type(each) for each in turns.asked] == [pb.ConverseRequest] * 2


async def test_lost_turn_is_given_up_after_its_grace(language: Language) -> None:
    """The turn is then cancelled, if the server can be reached for that."""
    async with serving(language, [started(), text(2, "a"), _LOST], *_UNREACHABLE) as (turns, program):
        result = await program.ask("converse", session_id="talk", text="hi", grace_ms=400)

    assert (result.error["code"], result.error["reason"]) == (14, "")
    assert turns.asked[1:-1] == [_resumed(2)] * (len(turns.asked) - 2)
    assert len(turns.asked) > 3
    assert turns.asked[-1] == _CANCEL


async def test_left_turn_is_cancelled_unless_it_is_to_continue(language: Language) -> None:
    """By CancelTurn, once."""
    stream: Stream = [started(), text(2, "a"), text(3, "b"), Wait(asyncio.Event().wait)]
    async with serving(language, stream, [*stream]) as (turns, program):
        left = await program.ask("converse", session_id="talk", text="hi", leave_at="a")
        continued = await program.ask("converse", session_id="talk", text="hi", leave_at="a", **{"continue": True})
        await program.ask("metrics", session_id="talk")

    assert (left.text, continued.text) == ("a", "a")
    first, cancelled, second = turns.asked
    assert cancelled == _CANCEL
    assert isinstance(first, pb.ConverseRequest)
    assert isinstance(second, pb.ConverseRequest)


async def test_turn_left_before_its_first_event_is_cancelled_with_it(language: Language) -> None:
    """The deadline passes before the turn's id is known: the client waits for it."""
    late = asyncio.Event()
    async with serving(language, [Wait(late.wait), started(), Wait(asyncio.Event().wait)]) as (turns, program):
        asking = asyncio.create_task(program.ask("converse", session_id="talk", text="hi", timeout_ms=100))
        while not turns.asked:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # longer than the deadline
        late.set()
        result = await asking

    assert result.error["code"] == 4
    assert turns.asked[1:] == [_CANCEL]


async def test_methods_without_side_effects_are_retried(language: Language) -> None:
    """By gRPC, as the service config says: three times at most."""
    async with serving(language) as (turns, program):
        turns.failures = 2
        served = await program.ask("metrics", session_id="talk")
        turns.failures = 9
        failed = await program.ask("metrics", session_id="talk")

    assert served.done["cost_usd"] == "0.5"
    assert (failed.error["code"], failed.error["reason"]) == (14, "STORAGE_UNAVAILABLE")
    assert turns.failures == 5
