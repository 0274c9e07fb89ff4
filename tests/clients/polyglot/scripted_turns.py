"""A server whose streams end as a test's script says, as networks, proxies and stopping servers end them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from godoty.v1 import action_pb2, metering_pb2
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import billing_service_pb2 as billing_pb
from godoty.v1 import turn_pb2 as turn_pb
from godoty.v1.agent_service_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server
from godoty.v1.billing_service_pb2_grpc import BillingServiceServicer, add_BillingServiceServicer_to_server
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from tests.clients.polyglot.conformance import Conformance
from tests.clients.polyglot.programs import Language

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

TURN = "turn_1"
Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class Failure:
    """An error with which a stream ends; with a reason, it has Godoty's details."""

    code: grpc.StatusCode
    reason: str = ""
    delay: float | None = None

    async def abort(self, context: Context) -> None:
        """End the call."""
        details: list[any_pb2.Any] = []
        messages: list[Any] = []
        if self.reason:
            messages.append(error_details_pb2.ErrorInfo(reason=self.reason, domain="godoty.app"))
        if self.delay is not None:
            delay = duration_pb2.Duration(nanos=int(self.delay * 1e9))
            messages.append(error_details_pb2.RetryInfo(retry_delay=delay))
        for message in messages:
            details.append(any_pb2.Any())
            details[-1].Pack(message)
        status = status_pb2.Status(code=self.code.value[0], message="scripted", details=details)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        await context.abort(self.code, "scripted")


@dataclass(frozen=True)
class Wait:
    """A pause in a stream, until the function has returned."""

    until: Callable[[], Any]


Stream = list[turn_pb.TurnEvent | Failure | Wait]


@dataclass
class ScriptedTurns(AgentServiceServicer):
    """Plays one stream after the other, whether Converse or ResumeTurn asks.

    Attributes:
        streams: The streams: events, and a failure at the end or none.
        asked: The requests, in order.
        failures: How often GetSessionMetrics fails before it answers.
    """

    streams: list[Stream]
    asked: list[pb.ConverseRequest | pb.ResumeTurnRequest | pb.CancelTurnRequest] = field(default_factory=list)
    failures: int = 0

    async def Converse(self, request: pb.ConverseRequest, context: Context) -> AsyncIterator[pb.ConverseResponse]:  # noqa: N802 - gRPC's name
        """Play the next stream."""
        self.asked.append(request)
        async for event in self._play(context):
            yield pb.ConverseResponse(event=event)

    async def ResumeTurn(self, request: pb.ResumeTurnRequest, context: Context) -> AsyncIterator[pb.ResumeTurnResponse]:  # noqa: N802 - gRPC's name
        """Play the next stream."""
        self.asked.append(request)
        async for event in self._play(context):
            yield pb.ResumeTurnResponse(event=event)

    async def CancelTurn(self, request: pb.CancelTurnRequest, context: Context) -> pb.CancelTurnResponse:  # noqa: N802 - gRPC's name
        """Record the request."""
        self.asked.append(request)
        return pb.CancelTurnResponse()

    async def GetSessionMetrics(  # noqa: N802 - gRPC's name
        self, request: pb.GetSessionMetricsRequest, context: Context
    ) -> pb.GetSessionMetricsResponse:
        """Fail as often as the test says."""
        if self.failures:
            self.failures -= 1
            await Failure(grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE").abort(context)
        return pb.GetSessionMetricsResponse(totals=metering_pb2.Totals(cost_usd="0.5"))

    async def _play(self, context: Context) -> AsyncIterator[turn_pb.TurnEvent]:
        for step in self.streams.pop(0):
            if isinstance(step, Failure):
                await step.abort(context)
            elif isinstance(step, Wait):
                await step.until()
            else:
                yield step


@dataclass
class ScriptedExports(BillingServiceServicer):
    """Plays one stream of an export after the other.

    Attributes:
        streams: The streams: responses, and a failure at the end or none.
        asked: The requests, in order.
    """

    streams: list[list[billing_pb.ExportLedgerResponse | Failure]]
    asked: list[billing_pb.ExportLedgerRequest] = field(default_factory=list)

    async def ExportLedger(  # noqa: N802 - gRPC's name
        self, request: billing_pb.ExportLedgerRequest, context: Context
    ) -> AsyncIterator[billing_pb.ExportLedgerResponse]:
        """Play the next stream."""
        self.asked.append(request)
        for step in self.streams.pop(0):
            if isinstance(step, Failure):
                await step.abort(context)
            else:
                yield step


@asynccontextmanager
async def serving(
    language: Language, *streams: Stream, exports: ScriptedExports | None = None
) -> AsyncIterator[tuple[ScriptedTurns, Conformance]]:
    """Serve streams to the program `conformance` of a language."""
    server = grpc.aio.server()
    turns = ScriptedTurns(list(streams))
    add_AgentServiceServicer_to_server(turns, server)  # type: ignore[no-untyped-call]  # generated
    add_BillingServiceServicer_to_server(exports or ScriptedExports([]), server)  # type: ignore[no-untyped-call]  # generated
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with Conformance(language, target, "gdt_id_secret") as program:
            yield turns, program
    finally:
        await server.stop(grace=None)


def event(sequence: int, turn_id: str = TURN, **fields: Any) -> turn_pb.TurnEvent:
    """Return an event of a turn."""
    return turn_pb.TurnEvent(sequence=sequence, turn_id=turn_id, **fields)


def started(turn_id: str = TURN) -> turn_pb.TurnEvent:
    """Return the first event."""
    return event(1, turn_id, turn_started=turn_pb.TurnStarted(session_id="talk"))


def text(sequence: int, words: str, turn_id: str = TURN) -> turn_pb.TurnEvent:
    """Return an event with a part of the answer."""
    return event(sequence, turn_id, text_delta=turn_pb.TextDelta(text=words))


def action(action_id: str, name: str = "look_up", **fields: Any) -> action_pb2.Action:
    """Return an open action, of a tool of the caller's."""
    given: dict[str, Any] = {"kind": action_pb2.ACTION_KIND_CLIENT_TOOL, "input_json": "{}", **fields}
    return action_pb2.Action(action_id=action_id, name=name, **given)


def asks(*actions: action_pb2.Action, turn_id: str = TURN, first: int = 2, **totals: Any) -> list[turn_pb.TurnEvent]:
    """Return the events of actions, and the last event of a turn that waits for them."""
    events = [event(first + index, turn_id, action_required=each) for index, each in enumerate(actions)]
    without_inputs = [action_pb2.Action(action_id=each.action_id) for each in actions]
    sequence = first + len(actions)
    stop = turn_pb.STOP_REASON_ACTION_REQUIRED
    return [*events, finished(sequence, turn_id, stop_reason=stop, actions=without_inputs, **totals)]


def finished(
    sequence: int,
    turn_id: str = TURN,
    *,
    stop_reason: turn_pb.StopReason = turn_pb.STOP_REASON_END_TURN,
    actions: Sequence[action_pb2.Action] = (),
    **totals: Any,
) -> turn_pb.TurnEvent:
    """Return the last event."""
    sums = metering_pb2.Totals(**{"cost_usd": "0.25", "turns": 1, **totals})
    end = turn_pb.TurnFinished(stop_reason=stop_reason, turn_totals=sums, session_totals=sums, actions=actions)
    return event(sequence, turn_id, turn_finished=end)
