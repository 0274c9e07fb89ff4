import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ActionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_KIND_UNSPECIFIED: _ClassVar[ActionKind]
    ACTION_KIND_APPROVAL: _ClassVar[ActionKind]
    ACTION_KIND_CLIENT_TOOL: _ClassVar[ActionKind]

class ActionDecider(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_DECIDER_UNSPECIFIED: _ClassVar[ActionDecider]
    ACTION_DECIDER_CALLER: _ClassVar[ActionDecider]
    ACTION_DECIDER_REVIEWER: _ClassVar[ActionDecider]

class ActionExpiry(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_EXPIRY_UNSPECIFIED: _ClassVar[ActionExpiry]
    ACTION_EXPIRY_DENY: _ClassVar[ActionExpiry]
    ACTION_EXPIRY_CLOSE: _ClassVar[ActionExpiry]

class ActionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_STATE_UNSPECIFIED: _ClassVar[ActionState]
    ACTION_STATE_OPEN: _ClassVar[ActionState]
    ACTION_STATE_DECIDED: _ClassVar[ActionState]
    ACTION_STATE_EXPIRED: _ClassVar[ActionState]
    ACTION_STATE_CLOSED: _ClassVar[ActionState]
ACTION_KIND_UNSPECIFIED: ActionKind
ACTION_KIND_APPROVAL: ActionKind
ACTION_KIND_CLIENT_TOOL: ActionKind
ACTION_DECIDER_UNSPECIFIED: ActionDecider
ACTION_DECIDER_CALLER: ActionDecider
ACTION_DECIDER_REVIEWER: ActionDecider
ACTION_EXPIRY_UNSPECIFIED: ActionExpiry
ACTION_EXPIRY_DENY: ActionExpiry
ACTION_EXPIRY_CLOSE: ActionExpiry
ACTION_STATE_UNSPECIFIED: ActionState
ACTION_STATE_OPEN: ActionState
ACTION_STATE_DECIDED: ActionState
ACTION_STATE_EXPIRED: ActionState
ACTION_STATE_CLOSED: ActionState

class Action(_message.Message):
    __slots__ = ("action_id", "kind", "session_id", "turn_id", "agent_path", "tool_call_id", "name", "input_json", "reason", "decider", "state", "create_time", "expire_time", "decision", "next_turn_id", "on_expiry")
    ACTION_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_PATH_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    INPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DECIDER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    NEXT_TURN_ID_FIELD_NUMBER: _ClassVar[int]
    ON_EXPIRY_FIELD_NUMBER: _ClassVar[int]
    action_id: str
    kind: ActionKind
    session_id: str
    turn_id: str
    agent_path: str
    tool_call_id: str
    name: str
    input_json: str
    reason: str
    decider: ActionDecider
    state: ActionState
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    decision: ActionDecision
    next_turn_id: str
    on_expiry: ActionExpiry
    def __init__(self, action_id: _Optional[str] = ..., kind: _Optional[_Union[ActionKind, str]] = ..., session_id: _Optional[str] = ..., turn_id: _Optional[str] = ..., agent_path: _Optional[str] = ..., tool_call_id: _Optional[str] = ..., name: _Optional[str] = ..., input_json: _Optional[str] = ..., reason: _Optional[str] = ..., decider: _Optional[_Union[ActionDecider, str]] = ..., state: _Optional[_Union[ActionState, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., decision: _Optional[_Union[ActionDecision, _Mapping]] = ..., next_turn_id: _Optional[str] = ..., on_expiry: _Optional[_Union[ActionExpiry, str]] = ...) -> None: ...

class ActionDecision(_message.Message):
    __slots__ = ("result", "api_key_id", "user", "time")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    API_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    result: ActionResult
    api_key_id: str
    user: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, result: _Optional[_Union[ActionResult, _Mapping]] = ..., api_key_id: _Optional[str] = ..., user: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ActionResult(_message.Message):
    __slots__ = ("action_id", "approve", "deny", "output")
    ACTION_ID_FIELD_NUMBER: _ClassVar[int]
    APPROVE_FIELD_NUMBER: _ClassVar[int]
    DENY_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    action_id: str
    approve: ActionApproval
    deny: ActionDenial
    output: ClientToolOutput
    def __init__(self, action_id: _Optional[str] = ..., approve: _Optional[_Union[ActionApproval, _Mapping]] = ..., deny: _Optional[_Union[ActionDenial, _Mapping]] = ..., output: _Optional[_Union[ClientToolOutput, _Mapping]] = ...) -> None: ...

class ActionApproval(_message.Message):
    __slots__ = ("input_json",)
    INPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    input_json: str
    def __init__(self, input_json: _Optional[str] = ...) -> None: ...

class ActionDenial(_message.Message):
    __slots__ = ("why",)
    WHY_FIELD_NUMBER: _ClassVar[int]
    why: str
    def __init__(self, why: _Optional[str] = ...) -> None: ...

class ClientToolOutput(_message.Message):
    __slots__ = ("output_text", "output_json", "attachment_id", "error")
    OUTPUT_TEXT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    output_text: str
    output_json: str
    attachment_id: str
    error: str
    def __init__(self, output_text: _Optional[str] = ..., output_json: _Optional[str] = ..., attachment_id: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class ClientTool(_message.Message):
    __slots__ = ("tool_name", "description", "input_schema", "on_expiry")
    TOOL_NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    INPUT_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    ON_EXPIRY_FIELD_NUMBER: _ClassVar[int]
    tool_name: str
    description: str
    input_schema: str
    on_expiry: ActionExpiry
    def __init__(self, tool_name: _Optional[str] = ..., description: _Optional[str] = ..., input_schema: _Optional[str] = ..., on_expiry: _Optional[_Union[ActionExpiry, str]] = ...) -> None: ...

class ToolApproval(_message.Message):
    __slots__ = ("condition", "decider", "why", "on_expiry")
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    DECIDER_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    ON_EXPIRY_FIELD_NUMBER: _ClassVar[int]
    condition: str
    decider: ActionDecider
    why: str
    on_expiry: ActionExpiry
    def __init__(self, condition: _Optional[str] = ..., decider: _Optional[_Union[ActionDecider, str]] = ..., why: _Optional[str] = ..., on_expiry: _Optional[_Union[ActionExpiry, str]] = ...) -> None: ...
