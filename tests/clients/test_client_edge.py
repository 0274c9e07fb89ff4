"""What both kinds of clients make of errors, lost streams, environments and keys; the server is a stand-in."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import pytest
from godoty import ConnectionFailed, GodotyError, SessionBusy
from godoty.channel import authorization, is_loopback
from godoty.environment import dial_address, endpoint
from godoty.v1 import agent_service_pb2 as pb
from godoty.v1 import turn_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from tests.support.service import soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.clients.conftest import Context, FakeAgentService
    from tests.clients.kinds import Driver

END = turn_pb2.TurnFinished(stop_reason=turn_pb2.STOP_REASON_END_TURN)


@pytest.fixture
def fake(fake_service: FakeAgentService, connect_to: Callable[..., Driver]) -> Driver:
    """A client of the stand-in."""
    return connect_to(fake_service.target, fake_service.api_key)


async def _refuse(context: Context, reason: str, domain: str = "godoty.app", seconds: int = 2) -> None:
    details = [AnyMessage(), AnyMessage()]
    details[0].Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain))
    details[1].Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=seconds)))
    status = status_pb2.Status(code=grpc.StatusCode.ABORTED.value[0], message="another turn runs", details=details)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(grpc.StatusCode.ABORTED, "another turn runs")


def _event(sequence: int, **fields: object) -> turn_pb2.TurnEvent:
    return turn_pb2.TurnEvent(sequence=sequence, turn_id="turn_1", **fields)  # type: ignore[arg-type] # of any event


def _delta(sequence: int, text: str) -> turn_pb2.TurnEvent:
    return _event(sequence, text_delta=turn_pb2.TextDelta(text=text))


def _started() -> turn_pb2.TurnEvent:
    return _event(1, turn_started=turn_pb2.TurnStarted(session_id="demo"))


@pytest.mark.parametrize(("domain", "expected"), [("godoty.app", SessionBusy), ("elsewhere.example", GodotyError)])
async def test_error_is_translated_with_its_details(
    fake_service: FakeAgentService, fake: Driver, domain: str, expected: type[GodotyError]
) -> None:
    """Class, code, message and retry delay arrive; a reason of another domain is not ours."""

    async def script(request: pb.ConverseRequest, context: Context) -> AsyncIterator[turn_pb2.TurnEvent]:
        await _refuse(context, "SESSION_BUSY", domain)
        yield turn_pb2.TurnEvent()

    fake_service.script = script
    failure = await fake.failure("hi")

    assert type(failure) is expected
    assert (failure.code, failure.message) == (grpc.StatusCode.ABORTED, "another turn runs")
    assert failure.retry_delay == timedelta(seconds=2)


async def test_reason_of_a_later_version_is_a_godoty_error(fake_service: FakeAgentService, fake: Driver) -> None:
    """With its reason."""

    async def script(request: pb.ConverseRequest, context: Context) -> AsyncIterator[turn_pb2.TurnEvent]:
        await _refuse(context, "LATER_REASON")
        yield turn_pb2.TurnEvent()

    fake_service.script = script
    failure = await fake.failure("hi")

    assert (type(failure), failure.reason) == (GodotyError, "LATER_REASON")


async def test_details_that_cannot_be_read_leave_the_status(fake_service: FakeAgentService, fake: Driver) -> None:
    """What a proxy made unreadable does not hide the status."""

    async def script(request: pb.ConverseRequest, context: Context) -> AsyncIterator[turn_pb2.TurnEvent]:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not here")
        yield turn_pb2.TurnEvent()

    fake_service.script = script
    failure = await fake.failure("hi")

    assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "")


async def test_turn_that_was_refused_for_a_moment_is_sent_again(fake_service: FakeAgentService, fake: Driver) -> None:
    """With the same request id, after the server's delay."""
    requests: list[pb.ConverseRequest] = []

    async def script(request: pb.ConverseRequest, context: Context) -> AsyncIterator[turn_pb2.TurnEvent]:
        requests.append(request)
        if len(requests) < 3:
            await _refuse(context, ("STORAGE_UNAVAILABLE", "TOO_MANY_TURNS")[len(requests) - 1], seconds=0)
        yield _started()
        yield _event(2, turn_finished=END)

    fake_service.script = script
    turn = await fake.turn("hi")

    assert turn.stop_reason == "END_TURN"
    assert len({each.request_id for each in requests}) == 1
    assert requests[0] == requests[2]
    assert requests[0].disconnect_grace.seconds == 30


@pytest.mark.parametrize("how", ["error", "end"])
async def test_lost_stream_is_resumed_after_its_last_event(
    fake_service: FakeAgentService, fake: Driver, how: str
) -> None:
    """Whether it ends with an error or without one; events that come again are skipped."""
    resumed: list[pb.ResumeTurnRequest] = []

    async def script(request: pb.ConverseRequest, context: Context) -> AsyncIterator[turn_pb2.TurnEvent]:
        yield _event(0, heartbeat=turn_pb2.Heartbeat())
        yield _started()
        yield _delta(2, "one ")
        yield _event(2, heartbeat=turn_pb2.Heartbeat())
        if how == "error":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Stream removed")

    async def rest(request: pb.ResumeTurnRequest, context: Context) -> AsyncIterator[turn_pb2.TurnEvent]:
        resumed.append(request)
        if len(resumed) == 1:
            await context.abort(grpc.StatusCode.UNKNOWN, "Stream removed")
        yield _delta(2, "one ")
        yield _delta(5, "two")
        yield _event(6, turn_finished=END)

    fake_service.script, fake_service.resumed = script, rest
    turn = fake.client.converse("hi")
    events = await fake.all(turn)

    assert turn.text == "one two"
    assert [each.sequence for each in events] == [1, 2, 5, 6]
    assert [(each.turn_id, each.after_sequence) for each in resumed] == [("turn_1", 2)] * 2
    assert fake_service.cancelled == []


async def test_failed_turn_is_not_cancelled(fake_service: FakeAgentService, fake: Driver) -> None:
    """It has ended on the server; its error is raised once."""

    async def script(request: pb.ConverseRequest, context: Context) -> AsyncIterator[turn_pb2.TurnEvent]:
        yield _started()
        await _refuse(context, "STORAGE_UNAVAILABLE")

    fake_service.script = script
    turn = fake.client.converse("hi")
    with pytest.raises(GodotyError, match="STORAGE_UNAVAILABLE"):
        await fake.all(turn)

    assert await fake.all(turn) == []
    assert fake_service.cancelled == []
    assert len(fake_service.metadata) == 1


async def test_left_turn_is_cancelled_by_its_id(fake_service: FakeAgentService, fake: Driver) -> None:
    """Once."""

    async def script(request: pb.ConverseRequest, context: Context) -> AsyncIterator[turn_pb2.TurnEvent]:
        yield _started()
        yield _delta(2, "endless")
        while not fake_service.cancelled:
            yield _event(2, heartbeat=turn_pb2.Heartbeat())
            await asyncio.sleep(0.01)

    fake_service.script = script
    turn = fake.client.converse("hi")
    await fake.until_text(turn, "endless")
    await fake.do(turn.close)
    await fake.do(turn.close)

    assert fake_service.cancelled == ["turn_1"]


async def test_reading_is_retried_by_grpc(fake_service: FakeAgentService, fake: Driver) -> None:
    """By the service config, while no server answers; another status is an error at once."""
    fake_service.refusals = [grpc.StatusCode.UNAVAILABLE] * 2
    session = await fake.do(fake.client.sessions.get, "demo")
    fake_service.refusals = [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE]
    with pytest.raises(GodotyError, match="RESOURCE_EXHAUSTED"):
        await fake.do(fake.client.sessions.get, "demo")

    assert session.session_id == "demo"
    assert len(fake_service.refusals) == 1


async def test_enum_value_of_a_later_version_is_unspecified(fake_service: FakeAgentService, fake: Driver) -> None:
    """As the contract has it."""

    async def script(request: pb.ConverseRequest, context: Context) -> AsyncIterator[turn_pb2.TurnEvent]:
        ended = turn_pb2.ToolCallFinished(tool_call_id="t1")
        ended.status = 99  # type: ignore[assignment] # a number that is no value yet
        yield _started()
        yield _event(2, tool_call_finished=ended)
        yield _event(3, turn_finished=END)

    fake_service.script = script
    events = await fake.all(fake.client.converse("hi"))

    assert events[1].status == "UNSPECIFIED"


async def test_tls_never_falls_back_to_plain_text(
    fake_service: FakeAgentService, connect_to: Callable[..., Driver]
) -> None:
    """A server without TLS does not receive the key."""
    driver = connect_to(fake_service.target, fake_service.api_key, tls=True, connect_timeout=0.5)

    assert isinstance(await driver.failure("hi"), ConnectionFailed)
    assert fake_service.metadata == []


async def test_environment_has_server_and_key(
    fake_service: FakeAgentService, kind: type[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without arguments the client reads it; arguments take precedence."""
    monkeypatch.setenv("GODOTY_LISTEN", "0.0.0.0:4")
    monkeypatch.setenv("GODOTY_API_KEY", "gdt_environment_secret")

    assert repr(kind()) == f"{kind.__name__}('127.0.0.1:4')"
    assert endpoint(None, None, None).api_key == "gdt_environment_secret"
    assert endpoint("a:1", "gdt_other", None).target == "a:1"
    assert endpoint("a:1", "gdt_other", None).api_key == "gdt_other"
    monkeypatch.delenv("GODOTY_API_KEY")
    with pytest.raises(ValueError, match="set GODOTY_API_KEY"):
        kind()


def test_environment_decides_on_tls(tmp_path: Path) -> None:
    """A switch, or PEM files."""
    pem = tmp_path / "roots.pem"
    pem.write_text("")

    assert endpoint("a:1", "k", None, {"GODOTY_TLS": "off"}).tls is False
    assert endpoint("a:1", "k", None, {"GODOTY_TLS": "on"}).tls is True
    assert endpoint("a:1", "k", None, {}).tls is None
    assert endpoint("a:1", "k", True, {"GODOTY_TLS": "off"}).tls is True
    assert isinstance(endpoint("a:1", "k", None, {"GODOTY_TLS_CA": str(pem)}).tls, grpc.ChannelCredentials)
    assert endpoint("a:1", "k", None, {"GODOTY_TLS_CA": str(pem), "GODOTY_TLS": "off"}).tls is False
    with pytest.raises(ValueError, match="GODOTY_TLS"):
        endpoint("a:1", "k", None, {"GODOTY_TLS": "perhaps"})
    with pytest.raises(FileNotFoundError):
        endpoint("a:1", "k", None, {"GODOTY_TLS_CA": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("0.0.0.0:50051", "127.0.0.1:50051"),
        (":50051", "127.0.0.1:50051"),
        ("[::]:50051", "[::1]:50051"),
        ("10.0.0.1:1", "10.0.0.1:1"),
    ],
)
def test_listen_address_is_dialled(listen: str, expected: str) -> None:
    """GODOTY_LISTEN is the server's setting; clients read it as a place to go."""
    assert dial_address(listen) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("127.0.0.1:50051", True),
        ("127.8.8.8:1", True),
        ("[::1]:50051", True),
        ("localhost:50051", True),
        ("unix:/run/godoty", True),
        ("localhost.example:50051", False),
        ("10.0.0.1:50051", False),
        ("0.0.0.0:50051", False),
        ("ipv4:127.0.0.1:1,8.8.8.8:2", False),
        ("dns:///127.0.0.1.example:1", False),
    ],
)
def test_plain_text_is_for_this_machine_only(target: str, expected: bool) -> None:  # noqa: FBT001 - a case
    """Only an address that cannot leave the machine counts as this machine."""
    assert is_loopback(target) is expected


@pytest.mark.parametrize("key", ["", "gdt_a b", "gdt_a\n", "gdt_é"])
def test_unsendable_key_is_refused_without_showing_it(key: str) -> None:
    """The error of gRPC itself would show the metadata, and the key with it."""
    with pytest.raises(ValueError, match="API key") as caught:
        authorization(key)

    assert not key or key not in str(caught.value)


async def test_closed_stream_ends_on_the_server(fake_service: FakeAgentService, fake: Driver) -> None:
    """The call of a left turn is cancelled."""
    ended: list[bool] = []

    async def script(request: pb.ConverseRequest, context: Context) -> AsyncIterator[turn_pb2.TurnEvent]:
        try:
            yield _started()
            yield _delta(2, "endless")
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    fake_service.script = script
    turn = fake.client.converse("hi")
    await fake.until_text(turn, "endless")
    await fake.do(turn.close)

    await soon(lambda: bool(ended))
