"""A turn as a server of a later version may stream it: with events and enum values that no client knows yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from godoty.v1 import metering_pb2
from godoty.v1 import turn_pb2 as turn_pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from godoty.v1 import agent_service_pb2 as pb

    from tests.clients.conftest import Context

LATER = 99  # a value that no enum has
TOTALS = metering_pb2.Totals(cost_usd="0.25", turns=2)
_FIELD, _BYTES = 200, 2  # of the oneof `event` in a later version, and its wire type


def _varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _unknown(sequence: int) -> turn_pb.TurnEvent:
    """Return an event that this version does not know, from its bytes."""
    inner = b"\x0a\x07unknown"  # a field of its message
    later = _varint(_FIELD << 3 | _BYTES) + _varint(len(inner)) + inner
    event = turn_pb.TurnEvent.FromString(b"\x08" + _varint(sequence) + later)
    assert event.WhichOneof("event") is None
    assert later in event.SerializeToString()
    return event


async def later_turn(request: pb.ConverseRequest, _: Context) -> AsyncIterator[turn_pb.TurnEvent]:
    """Stream a turn with an unknown event after each known one, and unknown values in those."""
    session_id = request.session_id or "generated"
    started = turn_pb.ToolCallStarted(tool_call_id="t1", name="calculator", input_json="{}")
    ended = turn_pb.ToolCallFinished(tool_call_id="t1", output="done")
    ended.status = LATER  # type: ignore[assignment] # a number that is no value yet
    finished = turn_pb.TurnFinished(session_totals=TOTALS)
    finished.stop_reason = LATER  # type: ignore[assignment] # likewise
    known = (
        turn_pb.TurnEvent(turn_started=turn_pb.TurnStarted(session_id=session_id)),
        turn_pb.TurnEvent(tool_call_started=started),
        turn_pb.TurnEvent(tool_call_finished=ended),
        turn_pb.TurnEvent(text_delta=turn_pb.TextDelta(text="known ")),
        turn_pb.TurnEvent(text_delta=turn_pb.TextDelta(text="words")),
        turn_pb.TurnEvent(turn_finished=finished),
    )
    sequence = 0
    for event in known:
        yield _unknown(sequence + 1)
        event.sequence = sequence = sequence + 2
        yield event
