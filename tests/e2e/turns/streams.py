"""Helpers for a turn's stream: resume, join and compare."""

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2 as turn_pb

from tests.support.caller import Caller, Turn, read
from tests.support.service import Document, Service, soon

DELTAS = ("text_delta", "reasoning_delta")
# Reasoning, text and tools, one event a token.
RICH = "@sandbox tool-loop calls=3 parallel=2 tool=calculator reasoning=3 delay_ms=3"
# One token every 50 ms, then a hold that nothing ends and no generation record: the call remains open.
SLOW = "@sandbox slow tokens=200 first_delay_ms=0 delay_ms=50 hold_after=60 record_ms=-1"
CONTINUE = turn_pb.ON_DISCONNECT_CONTINUE


async def resume(caller: Caller, turn_id: str, after: int = 0) -> Turn:
    """Read the rest of a turn to its end."""
    return await read(caller.resume(turn_id, after))


async def cancel(caller: Caller, turn_id: str) -> None:
    """Cancel a turn."""
    await caller.call("CancelTurn", pb.CancelTurnRequest(turn_id=turn_id))


async def until_sequence(call: Any, sequence: int) -> list[turn_pb.TurnEvent]:
    """Read a stream up to a sequence, or to its end."""
    responses: list[turn_pb.TurnEvent] = []
    async for response in call:
        responses.append(response)
        if response.sequence >= sequence:
            break
    return responses


async def until_text(call: Any, text: str) -> list[turn_pb.TurnEvent]:
    """Read a stream until its text ends with the given text."""
    responses: list[turn_pb.TurnEvent] = []
    while text not in "".join(each.text_delta.text for each in responses):
        responses.append(await anext(aiter(call)))
    return responses


def joined(responses: Iterable[turn_pb.TurnEvent]) -> list[bytes]:
    """Return the stream's bytes with adjacent deltas joined, with sequence and time of the last, without heartbeats."""
    found: list[turn_pb.TurnEvent] = []
    for response in responses:
        if response.HasField("heartbeat"):
            continue
        kind = str(response.WhichOneof("event"))
        if kind in DELTAS and found and found[-1].WhichOneof("event") == kind:
            getattr(found[-1], kind).text += getattr(response, kind).text
            found[-1].sequence = response.sequence
            found[-1].time.CopyFrom(response.time)
        else:
            found.append(turn_pb.TurnEvent.FromString(response.SerializeToString()))
    return [each.SerializeToString(deterministic=True) for each in found]


def assert_increasing(responses: Iterable[turn_pb.TurnEvent]) -> None:
    """Check that all events are of one turn, with strictly increasing sequences except for heartbeats."""
    kept = [each for each in responses if not each.HasField("heartbeat")]
    sequences = [each.sequence for each in kept]
    assert all(first < second for first, second in pairwise(sequences)), sequences
    assert len({each.turn_id for each in kept}) <= 1


async def free(service: Service, session_id: str = "talk") -> Document:
    """Wait until a session has no lease."""
    await soon(lambda: (service.session(session_id) or {"lease": ""})["lease"] is None)
    session = service.session(session_id)
    assert session is not None
    return session


def chunks(service: Service, turn_id: str) -> list[Document]:
    """Return the stored chunks of a turn's log."""
    return list(service.database["turn_logs"].find({"turn_id": turn_id}).sort("_id", 1))


def last_stored_sequence(service: Service, turn_id: str) -> int:
    """Return the last stored sequence of a turn's log, without the end that recovery writes."""
    own = [each for each in chunks(service, turn_id) if each["events"] and not _interrupted(each)]
    return max((each["first"] + len(each["events"]) - 1 for each in own), default=0)


def _interrupted(chunk: Document) -> bool:
    last = chunk["events"][-1]
    return isinstance(last, dict) and last.get("finished", {}).get("stop") == "interrupted"


def insert_messages(service: Service, session_id: str, count: int, words: str = "message") -> None:
    """Insert messages after those of a session, as turns would have; users wrote these words."""
    session = service.session(session_id)
    assert session is not None
    first = session["message_count"] + 1
    template = {"tenant_id": service.tenant_id, "session_uid": session["_id"], "create_time": session["create_time"]}
    service.database["messages"].insert_many(
        {
            **template,
            "number": number,
            "turn_id": f"turn_{number // 2:028x}",
            "role": ("assistant", "user")[number % 2],
            "content": json.dumps([{"text": f"{words if number % 2 else 'message'} {number}"}], ensure_ascii=False),
        }
        for number in range(first, first + count)
    )
    service.database["sessions"].update_one({"_id": session["_id"]}, {"$inc": {"message_count": count}})


async def until(call: Any, kind: str) -> list[turn_pb.TurnEvent]:
    """Read a stream until an event of a kind, or to its end."""
    responses: list[turn_pb.TurnEvent] = []
    async for response in call:
        responses.append(response)
        if response.HasField(kind):
            break
    return responses
