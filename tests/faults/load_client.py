"""The client of the fault load: runs planned turns, answers what they ask, and forks their sessions."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from godoty.v1 import action_pb2, agent_service_pb2_grpc, turn_pb2
from godoty.v1 import agent_service_pb2 as pb

from tests.faults.cluster import ServerProcess
from tests.faults.planned_turns import Answer, Client, PlannedTurn
from tests.support.service import PATIENCE

_ROUNDS = 3  # of answers, as an agent may ask again
_ATTEMPTS = 60  # to reach a server
_AGAIN = 0.1  # seconds between two of them
_LONGEST = 20.0  # seconds that a call may take
_UNREACHABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_DENIAL = {"deny": {"why": "no"}}
_OUTPUT = {"output": {"output_text": "done"}}
_APPROVAL: dict[str, Any] = {"approve": {}}
_CHANGE = {"approve": {"input_json": '{"expression": "2 + 2"}'}}


@dataclass
class TurnCounts:
    """What has become of the turns.

    Attributes:
        outcomes: The planned turns by final status.
        asked: How many ended with open actions.
        follow_ups: What followed, by kind and status.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    follow_ups: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Ended:
    """How a turn ended: its status, its stop reason, and the actions that it asks for."""

    status: str
    stop_reason: int = turn_pb2.STOP_REASON_UNSPECIFIED
    actions: tuple[action_pb2.Action, ...] = ()


class LoadClient:
    """A client of one tenant, at any of some servers."""

    def __init__(self, servers: Sequence[ServerProcess], key: str, counts: TurnCounts, rng: random.Random) -> None:
        """Create it.

        Args:
            servers: The servers.
            key: The tenant's key.
            counts: Counts what becomes of the turns.
            rng: Chooses servers.
        """
        self._servers = servers
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._counts = counts
        self._rng = rng

    async def run(self, turn: PlannedTurn) -> str:
        """Run a turn and what follows from it; return its status."""
        begin = self._start if turn.client is Client.START else self._converse
        ended = await begin(turn)
        self._counts.outcomes[ended.status] += 1
        status = ended.status
        for _ in range(_ROUNDS):
            if not ended.actions:
                break
            self._counts.asked += 1
            ended = await self._answer(turn, ended.actions)
            self._counts.follow_ups[f"{turn.answer} {ended.status}"] += 1
        if turn.fork_at is not None:
            self._counts.follow_ups[f"fork {await self._fork(turn, turn.fork_at)}"] += 1
        return status

    async def say(self, session_id: str, text: str, *, wait: bool = False) -> Ended:
        """Send a message of a session, and read the turn to its end."""
        busy = turn_pb2.ON_BUSY_WAIT if wait else turn_pb2.ON_BUSY_UNSPECIFIED
        return await self._send(pb.ConverseRequest(session_id=session_id, text=text, on_busy=busy))

    async def messages(self, session_id: str) -> list[Any]:
        """Return the messages of a session."""
        request = pb.ListMessagesRequest(session_id=session_id, page_size=500)
        return list((await self._reach("ListMessages", request)).messages)

    def _request(self, turn: PlannedTurn, **fields: Any) -> pb.ConverseRequest:
        return pb.ConverseRequest(session_id=turn.session, text=turn.text, model=turn.model, agent=turn.agent, **fields)

    async def _converse(self, turn: PlannedTurn) -> Ended:
        """Run a turn by Converse, whose client may leave before its end."""
        timeout = turn.after if turn.client is Client.DEADLINE else _LONGEST
        async with self._stub() as (stub, channel):
            call = stub.Converse(self._request(turn), metadata=self._metadata, timeout=timeout)
            reading = asyncio.create_task(_read(call))
            if turn.client in (Client.CANCEL, Client.DISCONNECT):
                await asyncio.wait([reading], timeout=turn.after)
                if not reading.done():
                    if turn.client is Client.DISCONNECT:
                        await channel.close(None)
                    else:
                        call.cancel()
            return await reading

    async def _start(self, turn: PlannedTurn) -> Ended:
        """Begin a turn by StartTurn, and wait for it at any server."""
        try:
            async with self._stub() as (stub, _):
                request = pb.StartTurnRequest(request=self._request(turn))
                started = await stub.StartTurn(request, metadata=self._metadata, timeout=_LONGEST)
            waited = pb.WaitTurnRequest(turn_id=started.turn_id)
            waited.timeout.FromSeconds(2)
            async with asyncio.timeout(PATIENCE):
                found = (await self._reach("WaitTurn", waited)).turn
                while found.state != turn_pb2.TURN_STATE_ENDED:
                    found = (await self._reach("WaitTurn", waited)).turn
            if found.stop_reason != turn_pb2.STOP_REASON_ACTION_REQUIRED:
                return Ended(found.error_reason or "OK", found.stop_reason)
            query = pb.ListActionsRequest(session_id=turn.session, state=action_pb2.ACTION_STATE_OPEN)
            listed = (await self._reach("ListActions", query)).actions
            own = tuple(each for each in listed if each.turn_id == started.turn_id)
            return Ended("OK", found.stop_reason, own)
        except grpc.aio.AioRpcError as error:
            return Ended(error.code().name)

    async def _answer(self, turn: PlannedTurn, actions: Sequence[action_pb2.Action]) -> Ended:
        """Answer actions as the turn says."""
        match turn.answer:
            case Answer.NEVER:
                return Ended("OK")
            case Answer.MESSAGE:
                return await self.say(turn.session, "never mind @sandbox plain tokens=3")
            case Answer.DECIDE | Answer.DECIDE_TWICE:
                results = _results(actions, turn.answer)
                return await self._all(lambda: self._decide(results), twice=turn.answer is Answer.DECIDE_TWICE)
            case _:
                request = pb.ConverseRequest(session_id=turn.session, action_results=_results(actions, turn.answer))
                return await self._all(lambda: self._send(request), twice=turn.answer is Answer.TWICE)

    async def _all(self, send: Callable[[], Awaitable[Ended]], *, twice: bool) -> Ended:
        """Send an answer, or the same one twice at once; return how it ended where it was taken."""
        ended = await asyncio.gather(*(send() for _ in range(1 + twice)))
        return max(ended, key=lambda each: (bool(each.actions), each.status == "OK"))

    async def _decide(self, results: Sequence[dict[str, Any]]) -> Ended:
        try:
            for each in results:
                await self._reach("DecideAction", pb.DecideActionRequest(action_result=each))
        except grpc.aio.AioRpcError as error:
            return Ended(error.code().name)
        return Ended("OK")

    async def _fork(self, turn: PlannedTurn, number: int) -> str:
        """Fork the session of a turn, and run a turn of the fork; return its status."""
        fork_id = f"{turn.session}-fork-{turn.follow_up % 4}"
        request = pb.ForkSessionRequest(session_id=turn.session, number=number, fork_session_id=fork_id)
        try:
            await self._reach("ForkSession", request)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return (await self.say(fork_id, "go @sandbox tool-loop calls=2")).status

    async def _send(self, request: pb.ConverseRequest) -> Ended:
        async with self._stub() as (stub, _):
            return await _read(stub.Converse(request, metadata=self._metadata, timeout=_LONGEST * 3))

    async def _reach(self, method: str, request: Any) -> Any:
        """Call a method that may be repeated, at one server after the other until one answers.

        Raises:
            grpc.aio.AioRpcError: It was refused.
        """
        for attempt in range(_ATTEMPTS):
            async with self._stub() as (stub, _):
                try:
                    return await getattr(stub, method)(request, metadata=self._metadata, timeout=_LONGEST)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in _UNREACHABLE or attempt == _ATTEMPTS - 1:
                        raise
            await asyncio.sleep(_AGAIN)
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _stub(self) -> AsyncIterator[tuple[Any, grpc.aio.Channel]]:
        async with grpc.aio.insecure_channel(self._rng.choice(self._servers).address) as channel:
            yield agent_service_pb2_grpc.AgentServiceStub(channel), channel  # type: ignore[no-untyped-call] # generated


def _results(actions: Sequence[action_pb2.Action], answer: Answer) -> list[dict[str, Any]]:
    approval = _CHANGE if answer is Answer.CHANGE else _APPROVAL
    answers = {action_pb2.ACTION_KIND_APPROVAL: approval, action_pb2.ACTION_KIND_CLIENT_TOOL: _OUTPUT}
    return [
        {"action_id": each.action_id, **(_DENIAL if answer is Answer.DENY else answers[each.kind])} for each in actions
    ]


async def _read(call: "grpc.aio.UnaryStreamCall[pb.ConverseRequest, pb.ConverseResponse]") -> Ended:
    finished = turn_pb2.TurnFinished()
    try:
        async for response in call:
            if response.event.HasField("turn_finished"):
                finished = response.event.turn_finished
    except grpc.aio.AioRpcError as error:
        return Ended(error.code().name)
    except (asyncio.CancelledError, grpc.aio.UsageError):
        return Ended("CANCELLED")
    return Ended("OK", finished.stop_reason, tuple(finished.actions))
