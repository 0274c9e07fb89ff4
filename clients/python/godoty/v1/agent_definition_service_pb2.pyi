from godoty.v1 import agent_pb2 as _agent_pb2
from godoty.v1 import mcp_server_pb2 as _mcp_server_pb2
from godoty.v1 import webhook_pb2 as _webhook_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ApplyAgentRequest(_message.Message):
    __slots__ = ("definition", "etag")
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    definition: _agent_pb2.AgentDefinition
    etag: str
    def __init__(self, definition: _Optional[_Union[_agent_pb2.AgentDefinition, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...

class ApplyAgentResponse(_message.Message):
    __slots__ = ("agent_version", "changed", "etag")
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    agent_version: _agent_pb2.AgentVersion
    changed: bool
    etag: str
    def __init__(self, agent_version: _Optional[_Union[_agent_pb2.AgentVersion, _Mapping]] = ..., changed: _Optional[bool] = ..., etag: _Optional[str] = ...) -> None: ...

class GetAgentRequest(_message.Message):
    __slots__ = ("agent",)
    AGENT_FIELD_NUMBER: _ClassVar[int]
    agent: str
    def __init__(self, agent: _Optional[str] = ...) -> None: ...

class GetAgentResponse(_message.Message):
    __slots__ = ("agent_version", "etag")
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    agent_version: _agent_pb2.AgentVersion
    etag: str
    def __init__(self, agent_version: _Optional[_Union[_agent_pb2.AgentVersion, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...

class ListAgentDefinitionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAgentDefinitionsResponse(_message.Message):
    __slots__ = ("agent_versions", "next_page_token")
    AGENT_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    agent_versions: _containers.RepeatedCompositeFieldContainer[_agent_pb2.AgentVersion]
    next_page_token: str
    def __init__(self, agent_versions: _Optional[_Iterable[_Union[_agent_pb2.AgentVersion, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListAgentVersionsRequest(_message.Message):
    __slots__ = ("agent", "page_size", "page_token")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    agent: str
    page_size: int
    page_token: str
    def __init__(self, agent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAgentVersionsResponse(_message.Message):
    __slots__ = ("agent_versions", "next_page_token")
    AGENT_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    agent_versions: _containers.RepeatedCompositeFieldContainer[_agent_pb2.AgentVersion]
    next_page_token: str
    def __init__(self, agent_versions: _Optional[_Iterable[_Union[_agent_pb2.AgentVersion, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteAgentRequest(_message.Message):
    __slots__ = ("agent", "etag")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    agent: str
    etag: str
    def __init__(self, agent: _Optional[str] = ..., etag: _Optional[str] = ...) -> None: ...

class DeleteAgentResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
