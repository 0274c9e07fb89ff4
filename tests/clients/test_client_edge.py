from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import pytest
from godoty import GodotyClient, GodotyError
from godoty.channel import authorization, is_loopback
from godoty.v1 import agent_service_pb2 as pb
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped,unused-ignore]  # has no stubs
from grpc_status import rpc_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.clients.conftest import Context, FakeAgentService


def _packed(*details: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> list[AnyMessage]:
    packed = [AnyMessage() for _ in details]
    for into, detail in zip(packed, details, strict=True):
        into.Pack(detail)
    return packed


async def _refuse(context: Context, domain: str) -> None:
    info = error_details_pb2.ErrorInfo(reason="SESSION_BUSY", domain=domain)
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2))
    status = status_pb2.Status(
        code=grpc.StatusCode.ABORTED.value[0], message="another turn runs", details=_packed(info, retry)
    )
    await context.abort_with_status(rpc_status.to_status(status))  # type: ignore[attr-defined]  # grpc-stubs lacks it


@pytest.mark.parametrize(("domain", "reason"), [("godoty.app", "SESSION_BUSY"), ("elsewhere.example", "")])
async def test_error_is_translated_with_its_details(fake_service: FakeAgentService, domain: str, reason: str) -> None:
    """Code, message, reason and retry delay arrive; a reason of another domain is not ours."""

    async def script(request: pb.ConverseRequest, context: Context) -> AsyncIterator[pb.ConverseResponse]:
        await _refuse(context, domain)
        yield pb.ConverseResponse()

    fake_service.script = script
    async with GodotyClient(fake_service.target, fake_service.api_key) as client:
        with pytest.raises(GodotyError) as caught:
            await anext(client.converse("hi"))

    assert caught.value.code is grpc.StatusCode.ABORTED
    assert caught.value.message == "another turn runs"
    assert caught.value.reason == reason
    assert caught.value.retry_delay == timedelta(seconds=2)


async def test_details_that_cannot_be_read_leave_the_status(fake_service: FakeAgentService) -> None:
    """What a proxy made unreadable does not hide the status."""

    async def script(request: pb.ConverseRequest, context: Context) -> AsyncIterator[pb.ConverseResponse]:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "try later")
        yield pb.ConverseResponse()

    fake_service.script = script
    async with GodotyClient(fake_service.target, fake_service.api_key) as client:
        with pytest.raises(GodotyError) as caught:
            await anext(client.converse("hi"))

    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert caught.value.reason == ""


async def test_leaving_a_turn_cancels_it_on_the_server(fake_service: FakeAgentService) -> None:
    """A reader that closes the stream ends the turn at once."""
    ended = asyncio.Event()

    async def script(request: pb.ConverseRequest, context: Context) -> AsyncIterator[pb.ConverseResponse]:
        try:
            yield pb.ConverseResponse(sequence=1)
            await asyncio.Event().wait()
        finally:
            ended.set()

    fake_service.script = script
    async with GodotyClient(fake_service.target, fake_service.api_key) as client:
        async with aclosing(client.converse("hi")) as turn:
            await anext(turn)
        await asyncio.wait_for(ended.wait(), timeout=30)


async def test_tls_never_falls_back_to_plain_text(fake_service: FakeAgentService) -> None:
    """A server without TLS does not receive the key."""
    async with GodotyClient(fake_service.target, fake_service.api_key, tls=True) as client:
        with pytest.raises(GodotyError) as caught:
            await anext(client.converse("hi"))

    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert fake_service.metadata == []


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
