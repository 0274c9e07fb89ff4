"""Helpers for a turn's stream: resume, join and compare."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import pairwise
from typing import Any

from godoty.v1 import agent_service_pb2 as pb

from tests.support.caller import Caller, Turn, read
from tests.support.service import Document, Service

DELTAS = ("text_delta", "reasoning_delta")
# Reasoning, text and tools, one event a token.
RICH = "@sandbox tool-loop calls=3 parallel=2 tool=calculator reasoning=3 delay_ms=3"
# One token every 50 ms, then a hold that nothing ends and no generation record: the call remains open.
SLOW = "@sandbox slow tokens=200 first_delay_ms=0 delay_ms=50 hold_after=60 record_ms=-1"
CONTINUE = pb.ON_DISCONNECT_CONTINUE


def resuming(caller: Caller, turn_id: str, after: int = 0, *, timeout: float = 90.0) -> Any:
    """Start to read the rest of a turn."""
    request = pb.ResumeTurnRequest(turn_id=turn_id, after_sequence=after)
    return caller.stub.ResumeTurn(request, metadata=caller.service.metadata, timeout=timeout)


class Unwrapped:
    """A resumed stream in the form of Converse."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __aiter__(self) -> "Unwrapped":
        return self

    async def __anext__(self) -> pb.ConverseResponse:
        event: pb.ConverseResponse = (await anext(aiter(self._call))).event
        return event


async def resume(caller: Caller, turn_id: str, after: int = 0) -> Turn:
    """Read the rest of a turn to its end."""
    rest = await read(resuming(caller, turn_id, after))
    return Turn(tuple(each.event for each in rest.responses), rest.failure)  # type: ignore[attr-defined]


async def cancel(caller: Caller, turn_id: str) -> None:
    """Cancel a turn."""
    await caller.call("CancelTurn", pb.CancelTurnRequest(turn_id=turn_id))


async def until_sequence(call: Any, sequence: int) -> list[pb.ConverseResponse]:
    """Read a stream up to a sequence, or to its end."""
    responses: list[pb.ConverseResponse] = []
    async for response in call:
        responses.append(response)
        if response.sequence >= sequence:
            break
    return responses


async def until_text(call: Any, text: str) -> list[pb.ConverseResponse]:
    """Read a stream until its text ends with the given text."""
    responses: list[pb.ConverseResponse] = []
    while text not in "".join(each.text_delta.text for each in responses):
        responses.append(await anext(aiter(call)))
    return responses


def joined(responses: Iterable[pb.ConverseResponse]) -> list[bytes]:
    """Return the stream's bytes with adjacent deltas joined, with the sequence of the last; heartbeats are omitted."""
    found: list[pb.ConverseResponse] = []
    for response in responses:
        if response.HasField("heartbeat"):
            continue
        kind = str(response.WhichOneof("event"))
        if kind in DELTAS and found and found[-1].WhichOneof("event") == kind:
            getattr(found[-1], kind).text += getattr(response, kind).text
            found[-1].sequence = response.sequence
        else:
            found.append(pb.ConverseResponse.FromString(response.SerializeToString()))
    return [each.SerializeToString(deterministic=True) for each in found]


def assert_increasing(responses: Iterable[pb.ConverseResponse]) -> None:
    """Check that all events are of one turn, with strictly increasing sequences except for heartbeats."""
    kept = [each for each in responses if not each.HasField("heartbeat")]
    sequences = [each.sequence for each in kept]
    assert all(first < second for first, second in pairwise(sequences)), sequences
    assert len({each.turn_id for each in kept}) <= 1


async def until(condition: Callable[[], Awaitable[bool] | bool], *, within: float = 60.0) -> float:
    """Wait until a condition is true; return the seconds that it took."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    while True:
        holds = condition()
        if await holds if isinstance(holds, Awaitable) else holds:
            return loop.time() - begun
        assert loop.time() - begun < within, "it did not come true in time"
        await asyncio.sleep(0.01)


async def free(service: Service, session_id: str = "talk") -> Document:
    """Wait until a session has no lease."""
    await until(lambda: (service.session(session_id) or {"lease": ""})["lease"] is None)
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


def insert_messages(service: Service, session_id: str, count: int) -> None:
    """Insert messages after those of a session, as that many turns would have."""
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
            "content": f'[{{"text": "message {number}"}}]',
        }
        for number in range(first, first + count)
    )
    service.database["sessions"].update_one({"_id": session["_id"]}, {"$inc": {"message_count": count}})
