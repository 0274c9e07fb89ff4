import asyncio
from collections.abc import AsyncIterator
from types import ModuleType

import grpc
import pytest
from godoty.v1 import admin_service_pb2, agent_definition_service_pb2, agent_service_pb2, billing_service_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection_pb2 as pb

from godoty_service.rpc.reflection import V1, V1ALPHA, add_reflection

HEALTH = "grpc.health.v1.Health"


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(), server)
    add_reflection(server, [HEALTH], stopped=asyncio.Event())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


async def ask(
    channel: grpc.aio.Channel, service: str, **request: str | pb.ExtensionRequest
) -> pb.ServerReflectionResponse:
    call = channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=pb.ServerReflectionRequest.SerializeToString,
        response_deserializer=pb.ServerReflectionResponse.FromString,
    )(iter([pb.ServerReflectionRequest(**request)]))
    return await anext(aiter(call))


def files(answer: pb.ServerReflectionResponse) -> list[FileDescriptorProto]:
    return [FileDescriptorProto.FromString(text) for text in answer.file_descriptor_response.file_descriptor_proto]


@pytest.mark.parametrize("version", [V1, V1ALPHA])
async def test_both_versions_list_every_service(channel: grpc.aio.Channel, version: str) -> None:
    """Asked in v1 or v1alpha, the server lists its services and both versions of reflection."""
    answer = await ask(channel, version, list_services="")

    assert [service.name for service in answer.list_services_response.service] == [HEALTH, V1, V1ALPHA]


@pytest.mark.parametrize("version", [V1, V1ALPHA])
async def test_both_versions_describe_a_service(channel: grpc.aio.Channel, version: str) -> None:
    """A service's file is found by its name."""
    (file,) = files(await ask(channel, version, file_containing_symbol=HEALTH))

    assert "Health" in {service.name for service in file.service}


async def test_v1_describes_itself(channel: grpc.aio.Channel) -> None:
    """Clients may describe any listed service, reflection v1 included: its file names v1 throughout."""
    (file,) = files(await ask(channel, V1, file_containing_symbol=V1))

    (method,) = file.service[0].method
    assert file.package == "grpc.reflection.v1"
    assert method.input_type == ".grpc.reflection.v1.ServerReflectionRequest"
    assert "v1alpha" not in str(file)
    assert files(await ask(channel, V1, file_by_filename=file.name)) == [file]


@pytest.mark.parametrize("symbol", ["nothing.Like.This", ""])
async def test_unknown_symbol_is_not_found(channel: grpc.aio.Channel, symbol: str) -> None:
    """What the server does not have is answered with NOT_FOUND inside the stream, which goes on."""
    answer = await ask(channel, V1, file_containing_symbol=symbol)

    assert grpc.StatusCode.NOT_FOUND.value[0] == answer.error_response.error_code


async def test_extensions_of_a_v1_message_are_none(channel: grpc.aio.Channel) -> None:
    """Questions about extensions of v1's own messages are answered, too."""
    name = "grpc.reflection.v1.ServerReflectionRequest"
    numbers = await ask(channel, V1, all_extension_numbers_of_type=name)
    extension = pb.ExtensionRequest(containing_type=name, extension_number=7)
    missing = await ask(channel, V1, file_containing_extension=extension)

    assert list(numbers.all_extension_numbers_response.extension_number) == []
    assert grpc.StatusCode.NOT_FOUND.value[0] == missing.error_response.error_code


@pytest.mark.parametrize(
    "file",
    [admin_service_pb2, agent_definition_service_pb2, agent_service_pb2, billing_service_pb2],
    ids=lambda file: file.__name__,
)
@pytest.mark.parametrize("version", [V1, V1ALPHA])
async def test_contract_is_described_with_all_that_it_imports(
    channel: grpc.aio.Channel, version: str, file: ModuleType
) -> None:
    """A client that has no file of its own can build the service's descriptors, Google's annotations included."""
    (service,) = file.DESCRIPTOR.services_by_name.values()
    known: dict[str, FileDescriptorProto] = {}
    wanted = [each.name for each in files(await ask(channel, version, file_containing_symbol=service.full_name))]
    while wanted:
        name = wanted.pop()
        if name not in known:
            found = files(await ask(channel, version, file_by_filename=name))
            known |= {each.name: each for each in found}
            wanted += [needed for each in found for needed in each.dependency]
    pool = DescriptorPool()

    def add(name: str) -> None:
        for needed in known[name].dependency:
            add(needed)
        pool.Add(known[name])

    add(file.DESCRIPTOR.name)
    assert "google/api/field_behavior.proto" in known
    assert pool.FindServiceByName(service.full_name).methods_by_name.keys() == service.methods_by_name.keys()
