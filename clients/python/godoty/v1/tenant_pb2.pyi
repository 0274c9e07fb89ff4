import datetime

from godoty.v1 import budget_pb2 as _budget_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TenantState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TENANT_STATE_UNSPECIFIED: _ClassVar[TenantState]
    TENANT_STATE_ACTIVE: _ClassVar[TenantState]
    TENANT_STATE_SUSPENDED: _ClassVar[TenantState]
    TENANT_STATE_DELETED: _ClassVar[TenantState]

class ApiScope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    API_SCOPE_UNSPECIFIED: _ClassVar[ApiScope]
    API_SCOPE_CONVERSE: _ClassVar[ApiScope]
    API_SCOPE_BILLING: _ClassVar[ApiScope]
    API_SCOPE_ADMIN: _ClassVar[ApiScope]
    API_SCOPE_AGENTS: _ClassVar[ApiScope]
    API_SCOPE_APPROVE: _ClassVar[ApiScope]

class AdminActorKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ADMIN_ACTOR_KIND_UNSPECIFIED: _ClassVar[AdminActorKind]
    ADMIN_ACTOR_KIND_KEY: _ClassVar[AdminActorKind]
    ADMIN_ACTOR_KIND_CLI: _ClassVar[AdminActorKind]
    ADMIN_ACTOR_KIND_SYSTEM: _ClassVar[AdminActorKind]
TENANT_STATE_UNSPECIFIED: TenantState
TENANT_STATE_ACTIVE: TenantState
TENANT_STATE_SUSPENDED: TenantState
TENANT_STATE_DELETED: TenantState
API_SCOPE_UNSPECIFIED: ApiScope
API_SCOPE_CONVERSE: ApiScope
API_SCOPE_BILLING: ApiScope
API_SCOPE_ADMIN: ApiScope
API_SCOPE_AGENTS: ApiScope
API_SCOPE_APPROVE: ApiScope
ADMIN_ACTOR_KIND_UNSPECIFIED: AdminActorKind
ADMIN_ACTOR_KIND_KEY: AdminActorKind
ADMIN_ACTOR_KIND_CLI: AdminActorKind
ADMIN_ACTOR_KIND_SYSTEM: AdminActorKind

class Tenant(_message.Message):
    __slots__ = ("tenant_id", "display_name", "time_zone", "time_zone_start_time", "state", "create_time", "update_time", "suspend_time", "delete_time", "erase_time", "etag")
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_START_TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    SUSPEND_TIME_FIELD_NUMBER: _ClassVar[int]
    DELETE_TIME_FIELD_NUMBER: _ClassVar[int]
    ERASE_TIME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    tenant_id: str
    display_name: str
    time_zone: str
    time_zone_start_time: _timestamp_pb2.Timestamp
    state: TenantState
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    suspend_time: _timestamp_pb2.Timestamp
    delete_time: _timestamp_pb2.Timestamp
    erase_time: _timestamp_pb2.Timestamp
    etag: str
    def __init__(self, tenant_id: _Optional[str] = ..., display_name: _Optional[str] = ..., time_zone: _Optional[str] = ..., time_zone_start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state: _Optional[_Union[TenantState, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., suspend_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., delete_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., erase_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., etag: _Optional[str] = ...) -> None: ...

class ApiKey(_message.Message):
    __slots__ = ("api_key_id", "tenant_id", "display_name", "scopes", "operator", "models", "turns_per_minute", "create_time", "expire_time", "revoke_time", "last_use_time")
    API_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    TURNS_PER_MINUTE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    REVOKE_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_USE_TIME_FIELD_NUMBER: _ClassVar[int]
    api_key_id: str
    tenant_id: str
    display_name: str
    scopes: _containers.RepeatedScalarFieldContainer[ApiScope]
    operator: bool
    models: _containers.RepeatedScalarFieldContainer[str]
    turns_per_minute: int
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    revoke_time: _timestamp_pb2.Timestamp
    last_use_time: _timestamp_pb2.Timestamp
    def __init__(self, api_key_id: _Optional[str] = ..., tenant_id: _Optional[str] = ..., display_name: _Optional[str] = ..., scopes: _Optional[_Iterable[_Union[ApiScope, str]]] = ..., operator: _Optional[bool] = ..., models: _Optional[_Iterable[str]] = ..., turns_per_minute: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revoke_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_use_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("etag", "allowed_models", "default_model", "default_fallback_models", "max_output_tokens", "turns_per_minute", "concurrent_turns", "provider_json", "zero_data_retention", "budgets", "allowed_agents", "allowed_tools")
    ETAG_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_MODELS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_MODEL_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FALLBACK_MODELS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TURNS_PER_MINUTE_FIELD_NUMBER: _ClassVar[int]
    CONCURRENT_TURNS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_JSON_FIELD_NUMBER: _ClassVar[int]
    ZERO_DATA_RETENTION_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_AGENTS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_TOOLS_FIELD_NUMBER: _ClassVar[int]
    etag: str
    allowed_models: _containers.RepeatedScalarFieldContainer[str]
    default_model: str
    default_fallback_models: _containers.RepeatedScalarFieldContainer[str]
    max_output_tokens: int
    turns_per_minute: int
    concurrent_turns: int
    provider_json: str
    zero_data_retention: bool
    budgets: _containers.RepeatedCompositeFieldContainer[_budget_pb2.Budget]
    allowed_agents: _containers.RepeatedScalarFieldContainer[str]
    allowed_tools: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, etag: _Optional[str] = ..., allowed_models: _Optional[_Iterable[str]] = ..., default_model: _Optional[str] = ..., default_fallback_models: _Optional[_Iterable[str]] = ..., max_output_tokens: _Optional[int] = ..., turns_per_minute: _Optional[int] = ..., concurrent_turns: _Optional[int] = ..., provider_json: _Optional[str] = ..., zero_data_retention: _Optional[bool] = ..., budgets: _Optional[_Iterable[_Union[_budget_pb2.Budget, _Mapping]]] = ..., allowed_agents: _Optional[_Iterable[str]] = ..., allowed_tools: _Optional[_Iterable[str]] = ...) -> None: ...

class AdminChange(_message.Message):
    __slots__ = ("change_id", "time", "actor", "method", "tenant_id", "old_value_json", "new_value_json")
    CHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TENANT_ID_FIELD_NUMBER: _ClassVar[int]
    OLD_VALUE_JSON_FIELD_NUMBER: _ClassVar[int]
    NEW_VALUE_JSON_FIELD_NUMBER: _ClassVar[int]
    change_id: str
    time: _timestamp_pb2.Timestamp
    actor: AdminActor
    method: str
    tenant_id: str
    old_value_json: str
    new_value_json: str
    def __init__(self, change_id: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[_Union[AdminActor, _Mapping]] = ..., method: _Optional[str] = ..., tenant_id: _Optional[str] = ..., old_value_json: _Optional[str] = ..., new_value_json: _Optional[str] = ...) -> None: ...

class AdminActor(_message.Message):
    __slots__ = ("kind", "id", "peer")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    kind: AdminActorKind
    id: str
    peer: str
    def __init__(self, kind: _Optional[_Union[AdminActorKind, str]] = ..., id: _Optional[str] = ..., peer: _Optional[str] = ...) -> None: ...
