import datetime

from godoty.v1 import metering_pb2 as _metering_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LedgerEntry(_message.Message):
    __slots__ = ("call", "adjustment", "user", "user_reference")
    CALL_FIELD_NUMBER: _ClassVar[int]
    ADJUSTMENT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    USER_REFERENCE_FIELD_NUMBER: _ClassVar[int]
    call: _metering_pb2.ModelCall
    adjustment: Adjustment
    user: str
    user_reference: str
    def __init__(self, call: _Optional[_Union[_metering_pb2.ModelCall, _Mapping]] = ..., adjustment: _Optional[_Union[Adjustment, _Mapping]] = ..., user: _Optional[str] = ..., user_reference: _Optional[str] = ...) -> None: ...

class Adjustment(_message.Message):
    __slots__ = ("adjustment_id", "call_id", "session_id", "turn_id", "number", "agent", "purpose", "api_key_id", "cost_usd", "usage", "resolves", "create_time", "why", "by", "request_id", "agent_version")
    ADJUSTMENT_ID_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    API_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    COST_USD_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    RESOLVES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    adjustment_id: str
    call_id: str
    session_id: str
    turn_id: str
    number: int
    agent: str
    purpose: _metering_pb2.CallPurpose
    api_key_id: str
    cost_usd: str
    usage: _metering_pb2.TokenUsage
    resolves: bool
    create_time: _timestamp_pb2.Timestamp
    why: str
    by: str
    request_id: str
    agent_version: int
    def __init__(self, adjustment_id: _Optional[str] = ..., call_id: _Optional[str] = ..., session_id: _Optional[str] = ..., turn_id: _Optional[str] = ..., number: _Optional[int] = ..., agent: _Optional[str] = ..., purpose: _Optional[_Union[_metering_pb2.CallPurpose, str]] = ..., api_key_id: _Optional[str] = ..., cost_usd: _Optional[str] = ..., usage: _Optional[_Union[_metering_pb2.TokenUsage, _Mapping]] = ..., resolves: _Optional[bool] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., why: _Optional[str] = ..., by: _Optional[str] = ..., request_id: _Optional[str] = ..., agent_version: _Optional[int] = ...) -> None: ...
