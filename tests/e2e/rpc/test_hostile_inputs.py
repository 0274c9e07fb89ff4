"""Requests that are designed to be expensive: each is refused in order, none is an internal error."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from bench.hostile_inputs import METHODS, HostileInput, hostile_inputs
from godoty_service.tenancy.auth import Scope
from tests.support.caller import Caller

LARGE = 256 * 1024  # bytes that no request has but one with a text
REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
OURS = [method for method in METHODS if method.full_name.startswith("godoty.v1.")]
KEYLESS = [method for method in METHODS if not method.full_name.startswith("godoty.v1.")]


async def status(caller: Caller, key: str, wanted: HostileInput) -> grpc.StatusCode:
    """Send a raw request; return the status of the response."""
    metadata = (("authorization", f"Bearer {key}"),)
    channel: Any = caller.channel
    try:
        if wanted.method.endswith("ServerReflectionInfo"):
            await anext(aiter(channel.stream_stream(wanted.method)(iter([wanted.body]), timeout=30)))
        elif wanted.streams:
            call = channel.unary_stream(wanted.method)(wanted.body, metadata=metadata, timeout=30)
            await anext(aiter(call), None)
            call.cancel()
        else:
            await channel.unary_unary(wanted.method)(wanted.body, metadata=metadata, timeout=30)
    except grpc.aio.AioRpcError as error:
        return error.code()
    except StopAsyncIteration:
        pass
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", OURS, ids=[method.name for method in OURS])
async def test_hostile_request_is_refused(caller: Caller, issue: Callable[..., str], method: MethodDescriptor) -> None:
    """A request above its method's maximum is INVALID_ARGUMENT; none is INTERNAL, and the server keeps serving."""
    key = issue(caller.service, scopes=frozenset(Scope))
    for wanted in hostile_inputs(method):
        if "text:" in wanted.name and "within" in wanted.name:
            continue  # a turn of its own
        code = await status(caller, key, wanted)
        assert code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), wanted.name
        if len(wanted.body) > LARGE and "within" not in wanted.name:
            assert code in REFUSALS, wanted.name
    assert (await caller.converse("hello")).finished


@pytest.mark.parametrize("method", KEYLESS, ids=[method.full_name for method in KEYLESS])
async def test_hostile_request_without_a_key_is_answered(caller: Caller, method: MethodDescriptor) -> None:
    """Health and reflection answer any request, and the server keeps serving."""
    for wanted in hostile_inputs(method):
        await status(caller, "", wanted)
    assert (await caller.converse("hello")).finished
