import datetime

from godoty.v1 import action_pb2 as _action_pb2
from godoty.v1 import budget_pb2 as _budget_pb2
from godoty.v1 import metering_pb2 as _metering_pb2
from godoty.v1 import session_pb2 as _session_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OnBusy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_BUSY_UNSPECIFIED: _ClassVar[OnBusy]
    ON_BUSY_REJECT: _ClassVar[OnBusy]
    ON_BUSY_WAIT: _ClassVar[OnBusy]

class OnDisconnect(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_DISCONNECT_UNSPECIFIED: _ClassVar[OnDisconnect]
    ON_DISCONNECT_CANCEL: _ClassVar[OnDisconnect]
    ON_DISCONNECT_CONTINUE: _ClassVar[OnDisconnect]

class StopReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STOP_REASON_UNSPECIFIED: _ClassVar[StopReason]
    STOP_REASON_END_TURN: _ClassVar[StopReason]
    STOP_REASON_MAX_OUTPUT_TOKENS: _ClassVar[StopReason]
    STOP_REASON_MAX_MODEL_CALLS: _ClassVar[StopReason]
    STOP_REASON_CONTENT_FILTERED: _ClassVar[StopReason]
    STOP_REASON_INTERRUPTED: _ClassVar[StopReason]
    STOP_REASON_BUDGET: _ClassVar[StopReason]
    STOP_REASON_OUTPUT_INVALID: _ClassVar[StopReason]
    STOP_REASON_ACTION_REQUIRED: _ClassVar[StopReason]

class TurnState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TURN_STATE_UNSPECIFIED: _ClassVar[TurnState]
    TURN_STATE_WAITING: _ClassVar[TurnState]
    TURN_STATE_RUNNING: _ClassVar[TurnState]
    TURN_STATE_ENDED: _ClassVar[TurnState]
ON_BUSY_UNSPECIFIED: OnBusy
ON_BUSY_REJECT: OnBusy
ON_BUSY_WAIT: OnBusy
ON_DISCONNECT_UNSPECIFIED: OnDisconnect
ON_DISCONNECT_CANCEL: OnDisconnect
ON_DISCONNECT_CONTINUE: OnDisconnect
STOP_REASON_UNSPECIFIED: StopReason
STOP_REASON_END_TURN: StopReason
STOP_REASON_MAX_OUTPUT_TOKENS: StopReason
STOP_REASON_MAX_MODEL_CALLS: StopReason
STOP_REASON_CONTENT_FILTERED: StopReason
STOP_REASON_INTERRUPTED: StopReason
STOP_REASON_BUDGET: StopReason
STOP_REASON_OUTPUT_INVALID: StopReason
STOP_REASON_ACTION_REQUIRED: StopReason
TURN_STATE_UNSPECIFIED: TurnState
TURN_STATE_WAITING: TurnState
TURN_STATE_RUNNING: TurnState
TURN_STATE_ENDED: TurnState

class TurnLimits(_message.Message):
    __slots__ = ("max_model_calls", "max_output_tokens", "max_cost_usd")
    MAX_MODEL_CALLS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_COST_USD_FIELD_NUMBER: _ClassVar[int]
    max_model_calls: int
    max_output_tokens: int
    max_cost_usd: str
    def __init__(self, max_model_calls: _Optional[int] = ..., max_output_tokens: _Optional[int] = ..., max_cost_usd: _Optional[str] = ...) -> None: ...

class TurnEvent(_message.Message):
    __slots__ = ("sequence", "turn_id", "time", "agent_path", "turn_started", "text_delta", "reasoning_delta", "tool_call_started", "tool_call_finished", "model_call_finished", "budget_alert", "turn_finished", "heartbeat", "tool_progress", "annotations", "action_required")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    AGENT_PATH_FIELD_NUMBER: _ClassVar[int]
    TURN_STARTED_FIELD_NUMBER: _ClassVar[int]
    TEXT_DELTA_FIELD_NUMBER: _ClassVar[int]
    REASONING_DELTA_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_STARTED_FIELD_NUMBER: _ClassVar[int]
    TOOL_CALL_FINISHED_FIELD_NUMBER: _ClassVar[int]
    MODEL_CALL_FINISHED_FIELD_NUMBER: _ClassVar[int]
    BUDGET_ALERT_FIELD_NUMBER: _ClassVar[int]
    TURN_FINISHED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    TOOL_PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    ACTION_REQUIRED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    turn_id: str
    time: _timestamp_pb2.Timestamp
    agent_path: str
    turn_started: TurnStarted
    text_delta: TextDelta
    reasoning_delta: ReasoningDelta
    tool_call_started: ToolCallStarted
    tool_call_finished: ToolCallFinished
    model_call_finished: ModelCallFinished
    budget_alert: _budget_pb2.BudgetAlert
    turn_finished: TurnFinished
    heartbeat: Heartbeat
    tool_progress: ToolProgress
    annotations: Annotations
    action_required: _action_pb2.Action
    def __init__(self, sequence: _Optional[int] = ..., turn_id: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., agent_path: _Optional[str] = ..., turn_started: _Optional[_Union[TurnStarted, _Mapping]] = ..., text_delta: _Optional[_Union[TextDelta, _Mapping]] = ..., reasoning_delta: _Optional[_Union[ReasoningDelta, _Mapping]] = ..., tool_call_started: _Optional[_Union[ToolCallStarted, _Mapping]] = ..., tool_call_finished: _Optional[_Union[ToolCallFinished, _Mapping]] = ..., model_call_finished: _Optional[_Union[ModelCallFinished, _Mapping]] = ..., budget_alert: _Optional[_Union[_budget_pb2.BudgetAlert, _Mapping]] = ..., turn_finished: _Optional[_Union[TurnFinished, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., tool_progress: _Optional[_Union[ToolProgress, _Mapping]] = ..., annotations: _Optional[_Union[Annotations, _Mapping]] = ..., action_required: _Optional[_Union[_action_pb2.Action, _Mapping]] = ...) -> None: ...

class TurnStarted(_message.Message):
    __slots__ = ("session_id", "session_created", "totals", "agent", "agent_version")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_CREATED_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    session_created: bool
    totals: _metering_pb2.Totals
    agent: str
    agent_version: int
    def __init__(self, session_id: _Optional[str] = ..., session_created: _Optional[bool] = ..., totals: _Optional[_Union[_metering_pb2.Totals, _Mapping]] = ..., agent: _Optional[str] = ..., agent_version: _Optional[int] = ...) -> None: ...

class TextDelta(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class ReasoningDelta(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class Annotations(_message.Message):
    __slots__ = ("citations",)
    CITATIONS_FIELD_NUMBER: _ClassVar[int]
    citations: _containers.RepeatedCompositeFieldContainer[_session_pb2.Citation]
    def __init__(self, citations: _Optional[_Iterable[_Union[_session_pb2.Citation, _Mapping]]] = ...) -> None: ...

class ToolCallStarted(_message.Message):
    __slots__ = ("tool_call_id", "name", "input_json", "sub_agent_path")
    TOOL_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    INPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    SUB_AGENT_PATH_FIELD_NUMBER: _ClassVar[int]
    tool_call_id: str
    name: str
    input_json: str
    sub_agent_path: str
    def __init__(self, tool_call_id: _Optional[str] = ..., name: _Optional[str] = ..., input_json: _Optional[str] = ..., sub_agent_path: _Optional[str] = ...) -> None: ...

class ToolProgress(_message.Message):
    __slots__ = ("tool_call_id", "progress", "total", "message")
    TOOL_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    tool_call_id: str
    progress: float
    total: float
    message: str
    def __init__(self, tool_call_id: _Optional[str] = ..., progress: _Optional[float] = ..., total: _Optional[float] = ..., message: _Optional[str] = ...) -> None: ...

class ToolCallFinished(_message.Message):
    __slots__ = ("tool_call_id", "status", "output", "duration")
    TOOL_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    tool_call_id: str
    status: _session_pb2.ToolCallStatus
    output: str
    duration: _duration_pb2.Duration
    def __init__(self, tool_call_id: _Optional[str] = ..., status: _Optional[_Union[_session_pb2.ToolCallStatus, str]] = ..., output: _Optional[str] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ModelCallFinished(_message.Message):
    __slots__ = ("call",)
    CALL_FIELD_NUMBER: _ClassVar[int]
    call: _metering_pb2.ModelCall
    def __init__(self, call: _Optional[_Union[_metering_pb2.ModelCall, _Mapping]] = ...) -> None: ...

class TurnFinished(_message.Message):
    __slots__ = ("stop_reason", "turn_totals", "session_totals", "cycle_durations", "tools", "output_json", "actions")
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    TURN_TOTALS_FIELD_NUMBER: _ClassVar[int]
    SESSION_TOTALS_FIELD_NUMBER: _ClassVar[int]
    CYCLE_DURATIONS_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    stop_reason: StopReason
    turn_totals: _metering_pb2.Totals
    session_totals: _metering_pb2.Totals
    cycle_durations: _containers.RepeatedCompositeFieldContainer[_duration_pb2.Duration]
    tools: _containers.RepeatedCompositeFieldContainer[ToolSummary]
    output_json: str
    actions: _containers.RepeatedCompositeFieldContainer[_action_pb2.Action]
    def __init__(self, stop_reason: _Optional[_Union[StopReason, str]] = ..., turn_totals: _Optional[_Union[_metering_pb2.Totals, _Mapping]] = ..., session_totals: _Optional[_Union[_metering_pb2.Totals, _Mapping]] = ..., cycle_durations: _Optional[_Iterable[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]]] = ..., tools: _Optional[_Iterable[_Union[ToolSummary, _Mapping]]] = ..., output_json: _Optional[str] = ..., actions: _Optional[_Iterable[_Union[_action_pb2.Action, _Mapping]]] = ...) -> None: ...

class ToolSummary(_message.Message):
    __slots__ = ("name", "calls", "errors", "duration")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    calls: int
    errors: int
    duration: _duration_pb2.Duration
    def __init__(self, name: _Optional[str] = ..., calls: _Optional[int] = ..., errors: _Optional[int] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Turn(_message.Message):
    __slots__ = ("turn_id", "session_id", "state", "stop_reason", "error_reason", "model", "user", "request_id", "totals", "create_time", "end_time", "agent", "agent_version", "output_json")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_REASON_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_JSON_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    session_id: str
    state: TurnState
    stop_reason: StopReason
    error_reason: str
    model: str
    user: str
    request_id: str
    totals: _metering_pb2.Totals
    create_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    agent: str
    agent_version: int
    output_json: str
    def __init__(self, turn_id: _Optional[str] = ..., session_id: _Optional[str] = ..., state: _Optional[_Union[TurnState, str]] = ..., stop_reason: _Optional[_Union[StopReason, str]] = ..., error_reason: _Optional[str] = ..., model: _Optional[str] = ..., user: _Optional[str] = ..., request_id: _Optional[str] = ..., totals: _Optional[_Union[_metering_pb2.Totals, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., agent: _Optional[str] = ..., agent_version: _Optional[int] = ..., output_json: _Optional[str] = ...) -> None: ...
