"""A server whose streams end as a test's script says, as networks, proxies and stopping servers end them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import metering_pb2
from godoty.v1 import turn_pb2 as turn_pb
from godoty.v1.agent_service_pb2_grpc import AgentServiceServicer
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

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


def event(sequence: int, **fields: Any) -> turn_pb.TurnEvent:
    """Return an event of the turn."""
    return turn_pb.TurnEvent(sequence=sequence, turn_id=TURN, **fields)


def started() -> turn_pb.TurnEvent:
    """Return the first event."""
    return event(1, turn_started=turn_pb.TurnStarted(session_id="talk"))


def text(sequence: int, words: str) -> turn_pb.TurnEvent:
    """Return an event with a part of the answer."""
    return event(sequence, text_delta=turn_pb.TextDelta(text=words))


def finished(sequence: int) -> turn_pb.TurnEvent:
    """Return the last event."""
    totals = metering_pb2.Totals(cost_usd="0.25", turns=1)
    end = turn_pb.TurnFinished(stop_reason=turn_pb.STOP_REASON_END_TURN, turn_totals=totals, session_totals=totals)
    return event(sequence, turn_finished=end)
