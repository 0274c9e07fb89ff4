"""A client of the service, with its turns and failures as values."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import grpc
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import agent_service_pb2_grpc
from godoty.v1 import session_pb2 as session_pb
from godoty.v1 import turn_pb2 as turn_pb
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from godoty.v1 import metering_pb2
    from google.protobuf.message import Message

    from tests.support.service import Service

DOMAIN = "godoty.app"
_DETAILS = "grpc-status-details-bin"


@dataclass(frozen=True)
class Failure:
    """The error of a call.

    Attributes:
        code: The status.
        text: Its message.
        reason: ErrorInfo's reason, or empty.
        metadata: ErrorInfo's metadata.
        fields: BadRequest's descriptions by field.
        retry_after: RetryInfo's seconds, or None.
        quotas: QuotaFailure's subjects.
        request_id: RequestInfo's id; failures are compared without it.
        details: The types of google.rpc that the error has.
    """

    code: grpc.StatusCode
    text: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    quotas: tuple[str, ...] = ()
    request_id: str = field(default="", compare=False)
    details: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: Any) -> Self:
        """Read the error of grpc or grpc.aio."""
        known: dict[str, Any] = {}
        for key, value in error.trailing_metadata() or ():
            if key == _DETAILS:
                status = status_pb2.Status.FromString(value)
                assert (status.code, status.message) == (error.code().value[0], error.details())
                known = _details(status)
        return cls(code=error.code(), text=error.details() or "", **known)


def _details(status: Any) -> dict[str, Any]:
    info, fields, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    quota, request = error_details_pb2.QuotaFailure(), error_details_pb2.RequestInfo()
    found: dict[str, Any] = {"details": tuple(each.TypeName().rpartition(".")[2] for each in status.details)}
    for detail in status.details:
        if detail.Unpack(info):
            assert info.domain == DOMAIN
            found |= {"reason": info.reason, "metadata": dict(info.metadata)}
        elif detail.Unpack(request):
            found["request_id"] = request.request_id
        elif detail.Unpack(fields):
            found["fields"] = {each.field: each.description for each in fields.field_violations}
        elif detail.Unpack(retry):
            found["retry_after"] = retry.retry_delay.ToTimedelta().total_seconds()
        elif detail.Unpack(quota):
            assert all(each.description for each in quota.violations)
            found["quotas"] = tuple(each.subject for each in quota.violations)
    return found


@dataclass(frozen=True)
class Turn:
    """The responses of a turn, and its failure."""

    responses: tuple[turn_pb.TurnEvent, ...]
    failure: Failure | None = None

    @property
    def kinds(self) -> list[str]:
        """The kinds of the events, in order."""
        return [str(each.WhichOneof("event")) for each in self.responses]

    @property
    def text(self) -> str:
        """The text of the answer."""
        return "".join(each.text_delta.text for each in self.responses)

    @property
    def reasoning(self) -> str:
        """The text of the reasoning."""
        return "".join(each.reasoning_delta.text for each in self.responses)

    @property
    def started(self) -> turn_pb.TurnStarted:
        """The event of its start."""
        (one,) = [each.turn_started for each in self.responses if each.HasField("turn_started")]
        return one

    @property
    def finished(self) -> turn_pb.TurnFinished:
        """The event of its end."""
        assert self.failure is None, self.failure
        (one,) = [each.turn_finished for each in self.responses if each.HasField("turn_finished")]
        return one

    @property
    def calls(self) -> list[metering_pb2.ModelCall]:
        """Its finished model calls."""
        return [each.model_call_finished.call for each in self.responses if each.HasField("model_call_finished")]


class EventStream:
    """The events of a call of Converse or ResumeTurn."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> turn_pb.TurnEvent:
        event: turn_pb.TurnEvent = (await anext(aiter(self._call))).event
        return event

    def cancel(self) -> None:
        """Cancel the call."""
        self._call.cancel()

    def done(self) -> bool:
        """Return whether the call has ended."""
        return bool(self._call.done())


class Caller:
    """Calls a server as one tenant, over one channel."""

    def __init__(self, service: Service, channel: grpc.aio.Channel) -> None:
        self.service = service
        self.channel = channel
        self.stub = stub_of(channel)

    def start(self, text: str, *, session_id: str = "talk", timeout: float | None = 90.0, **fields: Any) -> EventStream:
        """Start a turn; return its stream."""
        request = pb.ConverseRequest(session_id=session_id, text=text, **fields)
        return EventStream(self.stub.Converse(request, metadata=self.service.metadata, timeout=timeout))

    def resume(self, turn_id: str, after: int = 0, *, timeout: float = 90.0) -> EventStream:
        """Start to read the rest of a turn; return its stream."""
        request = pb.ResumeTurnRequest(turn_id=turn_id, after_sequence=after)
        return EventStream(self.stub.ResumeTurn(request, metadata=self.service.metadata, timeout=timeout))

    async def converse(self, text: str, **fields: Any) -> Turn:
        """Run a turn and read its stream to the end."""
        return await read(self.start(text, **fields))

    async def call(self, method: str, request: Message) -> Any:
        """Call a unary method."""
        return await getattr(self.stub, method)(request, metadata=self.service.metadata, timeout=90.0)

    async def metrics(self, session_id: str = "talk") -> pb.GetSessionMetricsResponse:
        """Return the metrics of a session."""
        found: pb.GetSessionMetricsResponse = await self.call(
            "GetSessionMetrics", pb.GetSessionMetricsRequest(session_id=session_id)
        )
        return found

    async def messages(self, session_id: str = "talk") -> list[session_pb.Message]:
        """Return a session's messages, at most 500."""
        found = await self.call("ListMessages", pb.ListMessagesRequest(session_id=session_id, page_size=500))
        return list(found.messages)


def stub_of(channel: grpc.aio.Channel) -> Any:
    """Return a stub on a channel."""
    return agent_service_pb2_grpc.AgentServiceStub(channel)  # type: ignore[no-untyped-call] # generated


async def read(call: Any) -> Turn:
    """Read a turn's stream to its end."""
    responses: list[turn_pb.TurnEvent] = []
    try:
        async for response in call:
            responses.append(response)  # noqa: PERF401 - what came before an error counts
    except grpc.aio.AioRpcError as error:
        return Turn(tuple(responses), Failure.of(error))
    return Turn(tuple(responses))


async def failure_of(call: Awaitable[Any]) -> Failure:
    """Return the error of a call that must fail."""
    try:
        answer = await call
    except grpc.RpcError as error:
        return Failure.of(error)
    raise AssertionError(f"it did not fail: {answer}")
