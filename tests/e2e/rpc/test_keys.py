"""Missing, wrong, expired and insufficient API keys are refused with the same error."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc
import pytest
from godoty.v1 import agent_service_pb2 as pb
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from godoty_service.clock import utc_now
from godoty_service.tenancy.auth import Scope
from tests.support.caller import Caller, Failure, failure_of
from tests.support.service import Service, eventually

Connect = Callable[[Service], Caller]
METHODS: list[tuple[str, Any]] = [
    ("GetSession", pb.GetSessionRequest(session_id="talk")),
    ("GetSessionMetrics", pb.GetSessionMetricsRequest(session_id="talk")),
    ("ListSessions", pb.ListSessionsRequest()),
    ("ListMessages", pb.ListMessagesRequest(session_id="talk")),
    ("DeleteSession", pb.DeleteSessionRequest(session_id="talk")),
    ("CancelTurn", pb.CancelTurnRequest(turn_id="turn_" + "0" * 28)),
    ("GetTurn", pb.GetTurnRequest(turn_id="turn_" + "0" * 28)),
    ("ListTurns", pb.ListTurnsRequest()),
]


async def _with(caller: Caller, *values: str, key: str = "authorization") -> Failure:
    metadata = tuple((key, value) for value in values)
    return await failure_of(caller.stub.ListSessions(pb.ListSessionsRequest(), metadata=metadata, timeout=180))


def _refused(failure: Failure) -> bool:
    return (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY")


async def test_every_method_needs_a_key(caller: Caller) -> None:
    """Without a key nothing is served, streaming or unary."""
    for method, request in METHODS:
        assert _refused(await failure_of(getattr(caller.stub, method)(request, timeout=20)))
    assert _refused(await failure_of(anext(aiter(caller.stub.Converse(pb.ConverseRequest(text="hi"), timeout=180)))))
    assert caller.service.document_counts() == {"sessions": 0, "messages": 0, "ledger": 0}


async def test_malformed_unknown_and_wrong_keys_get_the_same_error(caller: Caller, other_tenant: Caller) -> None:
    """A caller cannot distinguish an unknown key from a wrong secret, and no error repeats the key."""
    good = caller.service.api_key
    head, secret = good.rsplit("_", 1)[0], good[len("gdt_0123456789abcdef_") :]
    unknown = f"gdt_{'0' * 16}_{secret}"
    wrong = f"gdt_{good.split('_')[1]}_{'A' * 43}"
    mixed = f"gdt_{other_tenant.service.key_id}_{secret}"
    texts = set()
    for text in (unknown, wrong, mixed, head, f"{good}x", good[:-1], good.upper(), "gdt_", "", "x" * 5000):
        failure = await _with(caller, f"Bearer {text}")
        assert _refused(failure)
        assert not text or text not in failure.text
        texts.add(failure.text)
    assert len(texts) == 1


async def test_key_must_be_one_bearer_token(caller: Caller) -> None:
    """Another scheme, a bare key, two headers or another header are refused."""
    good = caller.service.api_key
    for values in ([good], [f"Basic {good}"], [f"bearer{good}"], [f"Bearer {good}", f"Bearer {good}"], ["Bearer"]):
        assert _refused(await _with(caller, *values))
    assert _refused(await _with(caller, f"Bearer {good}", key="x-api-key"))


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_scheme_is_case_insensitive(caller: Caller, scheme: str) -> None:
    """As RFC 9110 requires."""
    metadata = (("authorization", f"{scheme} {caller.service.api_key}"),)

    assert await caller.stub.ListSessions(pb.ListSessionsRequest(), metadata=metadata, timeout=180) is not None


@pytest.mark.parametrize(("scopes", "works"), [(["converse", "telepathy"], True), (["telepathy"], False)])
async def test_scope_of_a_later_build_permits_nothing(caller: Caller, scopes: list[str], *, works: bool) -> None:
    """A scope in the database that this build does not know is ignored; the others are valid."""
    keys = caller.service.database["api_keys"]
    keys.update_one({"_id": caller.service.key_id}, {"$set": {"scopes": scopes}})
    call = caller.call("ListSessions", pb.ListSessionsRequest())
    if works:
        assert await call is not None
    else:
        failure = await failure_of(call)
        assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")


async def test_expired_key_is_refused(service: Service, connect: Connect, issue: Callable[..., str]) -> None:
    """A key is accepted until its expiry time, and refused after it."""
    scopes = frozenset({Scope.CONVERSE})
    old = issue(service, scopes=scopes, expire_time=utc_now() - timedelta(seconds=1))
    young = issue(service, scopes=scopes, expire_time=utc_now() + timedelta(hours=1))
    caller = connect(service)

    assert _refused(await _with(caller, f"Bearer {old}"))
    await caller.stub.ListSessions(pb.ListSessionsRequest(), metadata=(("authorization", f"Bearer {young}"),))


async def test_revoked_key_is_refused(caller: Caller) -> None:
    """A key that was just in use is refused by every server once it has read it again, after three seconds."""
    await caller.call("ListSessions", pb.ListSessionsRequest())
    keys = caller.service.database["api_keys"]
    revoked = keys.update_one({"_id": caller.service.key_id}, {"$set": {"revoke_time": utc_now()}})
    assert revoked.modified_count == 1

    async def refused() -> bool:
        try:
            await caller.call("ListSessions", pb.ListSessionsRequest())
        except grpc.aio.AioRpcError as error:
            return _refused(Failure.of(error))
        return False

    await eventually(refused)


@pytest.mark.parametrize("scope", [Scope.BILLING, Scope.ADMIN])
async def test_key_without_the_scope_is_denied(
    service: Service, connect: Connect, issue: Callable[..., str], scope: Scope
) -> None:
    """A valid key of another scope is PERMISSION_DENIED; the error names the missing scope."""
    caller, key = connect(service), issue(service, scopes=frozenset({scope}))
    metadata = (("authorization", f"Bearer {key}"),)
    calls = [getattr(caller.stub, method)(request, metadata=metadata, timeout=20) for method, request in METHODS]
    calls.append(anext(aiter(caller.stub.Converse(pb.ConverseRequest(text="hi"), metadata=metadata, timeout=180))))

    for call in calls:
        failure = await failure_of(call)
        assert (failure.code, failure.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
        assert failure.metadata == {"scope": "converse"}
    assert service.document_counts() == {"sessions": 0, "messages": 0, "ledger": 0}


async def test_health_needs_no_key(service: Service) -> None:
    """The health of the server and of its services can be read without a key."""
    async with grpc.aio.insecure_channel(service.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "godoty.v1.AgentService"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=180)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        failure = await failure_of(stub.Check(health_pb2.HealthCheckRequest(service="else"), timeout=180))
    assert failure.code is grpc.StatusCode.NOT_FOUND


async def _reflected(target: str, version: str, **question: str) -> reflection_pb2.ServerReflectionResponse:
    async with grpc.aio.insecure_channel(target) as channel:
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=20)
        return await anext(aiter(call))


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_needs_no_key(service: Service, version: str) -> None:
    """Reflection lists the services without a key."""
    listed = await _reflected(service.target, version, list_services="")

    names = {each.name for each in listed.list_services_response.service}
    assert {"godoty.v1.AgentService", "grpc.health.v1.Health"} <= names


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize("symbol", ["AgentService", "AgentService.Converse", "ConverseRequest", "Totals"])
async def test_reflection_describes_services_methods_and_messages(service: Service, version: str, symbol: str) -> None:
    """A service, a method or a message is found by its full name, as `grpcurl describe` requests it."""
    answer = await _reflected(service.target, version, file_containing_symbol=f"godoty.v1.{symbol}")

    files = list(map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto))
    assert answer.error_response.error_message == ""
    assert files[0].package == "godoty.v1"
