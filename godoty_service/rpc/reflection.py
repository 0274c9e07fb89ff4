"""Server reflection, v1 and v1alpha, so that grpcurl and buf curl need no proto files.

grpcio-reflection ships v1alpha only, and clients try v1 first. The two differ only in the name of their package, so
one servicer serves both, and the descriptor of v1 is derived from v1alpha's.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any, TypeVar

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer  # as aio, the stubs hide it

Found = TypeVar("Found")

V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"


class _Reflection(ReflectionServicer):  # type: ignore[misc] # has no types
    """Serves until the server stops; a client that keeps its stream open would delay the shutdown."""

    def __init__(self, service_names: Iterable[str], *, pool: Any, stopped: asyncio.Event) -> None:
        super().__init__(service_names, pool=pool)
        self._stopped = stopped

    async def ServerReflectionInfo(  # noqa: N802 - the protocol's name
        self, request_iterator: AsyncIterable[Any], context: Any
    ) -> AsyncIterator[Any]:
        """Answer each request of the stream."""
        async for answer in super().ServerReflectionInfo(_until(self._stopped, request_iterator), context):
            yield answer


async def _until(event: asyncio.Event, items: AsyncIterable[Found]) -> AsyncIterator[Found]:
    """Yield items as they arrive, until an event is set."""
    end: asyncio.Future[Any] = asyncio.ensure_future(event.wait())
    item: asyncio.Future[Any] = end
    iterator = aiter(items)
    try:
        while True:
            item = asyncio.ensure_future(anext(iterator, None))
            await asyncio.wait({item, end}, return_when=asyncio.FIRST_COMPLETED)
            if not item.done() or item.result() is None:
                return
            yield item.result()
    finally:
        item.cancel()
        end.cancel()


def add_reflection(server: grpc.aio.Server, service_names: Iterable[str], *, stopped: asyncio.Event) -> None:
    """Register both versions with a server; its list of services includes both.

    Args:
        server: A server that has not started.
        service_names: Full names of its other services, such as "godoty.v1.AgentService".
        stopped: Set when open calls must end.
    """
    servicer = _Reflection({*service_names, V1, V1ALPHA}, pool=_PoolWithV1(), stopped=stopped)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(V1, {"ServerReflectionInfo": handler})])


class _PoolWithV1:
    """The process's descriptors, and v1's in a separate pool, so that a later grpcio-reflection cannot clash."""

    def __init__(self) -> None:
        self._default = descriptor_pool.Default()
        self._v1 = descriptor_pool.DescriptorPool()
        self._v1.AddSerializedFile(_v1_file())

    def FindFileByName(self, name: str) -> FileDescriptor:  # noqa: N802 - the pool's own names
        return _first(self._default.FindFileByName, self._v1.FindFileByName, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - the pool's own names
        try:
            return _first(self._default.FindFileContainingSymbol, self._v1.FindFileContainingSymbol, symbol)
        except KeyError:  # the pools do not index methods, which are in the file of their service
            service, _, _ = symbol.rpartition(".")
            return _first(self._default.FindFileContainingSymbol, self._v1.FindFileContainingSymbol, service)

    def FindMessageTypeByName(self, name: str) -> Descriptor:  # noqa: N802 - the pool's own names
        return _first(self._default.FindMessageTypeByName, self._v1.FindMessageTypeByName, name)

    def FindExtensionByNumber(self, message: Descriptor, number: int) -> FieldDescriptor:  # noqa: N802 - the same
        return self._default.FindExtensionByNumber(message, number)

    def FindAllExtensions(self, message: Descriptor) -> list[FieldDescriptor]:  # noqa: N802 - the same
        return self._default.FindAllExtensions(message)


def _first(find: Callable[[str], Found], otherwise: Callable[[str], Found], name: str) -> Found:
    try:
        return find(name)
    except KeyError:
        return otherwise(name)


def _v1_file() -> bytes:
    proto = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(proto)
    proto.name = "grpc/reflection/v1/reflection.proto"
    proto.package = "grpc.reflection.v1"
    proto.ClearField("options")
    for message in proto.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = _to_v1(field.type_name)
    for service in proto.service:
        for method in service.method:
            method.input_type = _to_v1(method.input_type)
            method.output_type = _to_v1(method.output_type)
    return proto.SerializeToString()


def _to_v1(type_name: str) -> str:
    return type_name.replace(".grpc.reflection.v1alpha.", ".grpc.reflection.v1.")
