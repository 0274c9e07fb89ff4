import datetime

from godoty.v1 import action_pb2 as _action_pb2
from godoty.v1 import agent_pb2 as _agent_pb2
from godoty.v1 import attachment_pb2 as _attachment_pb2
from godoty.v1 import metering_pb2 as _metering_pb2
from godoty.v1 import model_pb2 as _model_pb2
from godoty.v1 import session_pb2 as _session_pb2
from godoty.v1 import turn_pb2 as _turn_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConverseRequest(_message.Message):
    __slots__ = ("session_id", "text", "model", "fallback_models", "limits", "user", "request_id", "on_busy", "on_disconnect", "disconnect_grace", "agent", "variables", "parameters", "attachments", "output_schema", "action_results", "client_tools")
    class VariablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_MODELS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ON_BUSY_FIELD_NUMBER: _ClassVar[int]
    ON_DISCONNECT_FIELD_NUMBER: _ClassVar[int]
    DISCONNECT_GRACE_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    ACTION_RESULTS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_TOOLS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    text: str
    model: str
    fallback_models: _containers.RepeatedScalarFieldContainer[str]
    limits: _turn_pb2.TurnLimits
    user: str
    request_id: str
    on_busy: _turn_pb2.OnBusy
    on_disconnect: _turn_pb2.OnDisconnect
    disconnect_grace: _duration_pb2.Duration
    agent: str
    variables: _containers.ScalarMap[str, str]
    parameters: _agent_pb2.ModelParameters
    attachments: _containers.RepeatedCompositeFieldContainer[_attachment_pb2.AttachmentSource]
    output_schema: str
    action_results: _containers.RepeatedCompositeFieldContainer[_action_pb2.ActionResult]
    client_tools: _containers.RepeatedCompositeFieldContainer[_action_pb2.ClientTool]
    def __init__(self, session_id: _Optional[str] = ..., text: _Optional[str] = ..., model: _Optional[str] = ..., fallback_models: _Optional[_Iterable[str]] = ..., limits: _Optional[_Union[_turn_pb2.TurnLimits, _Mapping]] = ..., user: _Optional[str] = ..., request_id: _Optional[str] = ..., on_busy: _Optional[_Union[_turn_pb2.OnBusy, str]] = ..., on_disconnect: _Optional[_Union[_turn_pb2.OnDisconnect, str]] = ..., disconnect_grace: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., agent: _Optional[str] = ..., variables: _Optional[_Mapping[str, str]] = ..., parameters: _Optional[_Union[_agent_pb2.ModelParameters, _Mapping]] = ..., attachments: _Optional[_Iterable[_Union[_attachment_pb2.AttachmentSource, _Mapping]]] = ..., output_schema: _Optional[str] = ..., action_results: _Optional[_Iterable[_Union[_action_pb2.ActionResult, _Mapping]]] = ..., client_tools: _Optional[_Iterable[_Union[_action_pb2.ClientTool, _Mapping]]] = ...) -> None: ...

class ConverseResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: _turn_pb2.TurnEvent
    def __init__(self, event: _Optional[_Union[_turn_pb2.TurnEvent, _Mapping]] = ...) -> None: ...

class ResumeTurnRequest(_message.Message):
    __slots__ = ("turn_id", "after_sequence")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    after_sequence: int
    def __init__(self, turn_id: _Optional[str] = ..., after_sequence: _Optional[int] = ...) -> None: ...

class ResumeTurnResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: _turn_pb2.TurnEvent
    def __init__(self, event: _Optional[_Union[_turn_pb2.TurnEvent, _Mapping]] = ...) -> None: ...

class StartTurnRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: ConverseRequest
    def __init__(self, request: _Optional[_Union[ConverseRequest, _Mapping]] = ...) -> None: ...

class StartTurnResponse(_message.Message):
    __slots__ = ("turn_id", "session_id")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    session_id: str
    def __init__(self, turn_id: _Optional[str] = ..., session_id: _Optional[str] = ...) -> None: ...

class WaitTurnRequest(_message.Message):
    __slots__ = ("turn_id", "timeout")
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    timeout: _duration_pb2.Duration
    def __init__(self, turn_id: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WaitTurnResponse(_message.Message):
    __slots__ = ("turn",)
    TURN_FIELD_NUMBER: _ClassVar[int]
    turn: _turn_pb2.Turn
    def __init__(self, turn: _Optional[_Union[_turn_pb2.Turn, _Mapping]] = ...) -> None: ...

class CancelTurnRequest(_message.Message):
    __slots__ = ("turn_id",)
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    def __init__(self, turn_id: _Optional[str] = ...) -> None: ...

class CancelTurnResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetTurnRequest(_message.Message):
    __slots__ = ("turn_id",)
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    turn_id: str
    def __init__(self, turn_id: _Optional[str] = ...) -> None: ...

class GetTurnResponse(_message.Message):
    __slots__ = ("turn",)
    TURN_FIELD_NUMBER: _ClassVar[int]
    turn: _turn_pb2.Turn
    def __init__(self, turn: _Optional[_Union[_turn_pb2.Turn, _Mapping]] = ...) -> None: ...

class ListTurnsRequest(_message.Message):
    __slots__ = ("session_id", "state", "page_size", "page_token")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    state: _turn_pb2.TurnState
    page_size: int
    page_token: str
    def __init__(self, session_id: _Optional[str] = ..., state: _Optional[_Union[_turn_pb2.TurnState, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListTurnsResponse(_message.Message):
    __slots__ = ("turns", "next_page_token")
    TURNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    turns: _containers.RepeatedCompositeFieldContainer[_turn_pb2.Turn]
    next_page_token: str
    def __init__(self, turns: _Optional[_Iterable[_Union[_turn_pb2.Turn, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetSessionMetricsRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class GetSessionMetricsResponse(_message.Message):
    __slots__ = ("totals", "by_model", "recent_runs", "latency", "create_time", "update_time", "by_agent", "cache_savings")
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    BY_MODEL_FIELD_NUMBER: _ClassVar[int]
    RECENT_RUNS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    BY_AGENT_FIELD_NUMBER: _ClassVar[int]
    CACHE_SAVINGS_FIELD_NUMBER: _ClassVar[int]
    totals: _metering_pb2.Totals
    by_model: _containers.RepeatedCompositeFieldContainer[_metering_pb2.ModelTotals]
    recent_runs: _containers.RepeatedCompositeFieldContainer[_metering_pb2.Run]
    latency: _containers.RepeatedCompositeFieldContainer[_metering_pb2.ProviderLatency]
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    by_agent: _containers.RepeatedCompositeFieldContainer[_metering_pb2.AgentTotals]
    cache_savings: _metering_pb2.CacheSavings
    def __init__(self, totals: _Optional[_Union[_metering_pb2.Totals, _Mapping]] = ..., by_model: _Optional[_Iterable[_Union[_metering_pb2.ModelTotals, _Mapping]]] = ..., recent_runs: _Optional[_Iterable[_Union[_metering_pb2.Run, _Mapping]]] = ..., latency: _Optional[_Iterable[_Union[_metering_pb2.ProviderLatency, _Mapping]]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., by_agent: _Optional[_Iterable[_Union[_metering_pb2.AgentTotals, _Mapping]]] = ..., cache_savings: _Optional[_Union[_metering_pb2.CacheSavings, _Mapping]] = ...) -> None: ...

class GetSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class GetSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.Session
    def __init__(self, session: _Optional[_Union[_session_pb2.Session, _Mapping]] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "user")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    user: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., user: _Optional[str] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions", "next_page_token")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[_session_pb2.Session]
    next_page_token: str
    def __init__(self, sessions: _Optional[_Iterable[_Union[_session_pb2.Session, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListMessagesRequest(_message.Message):
    __slots__ = ("session_id", "page_size", "page_token")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    page_size: int
    page_token: str
    def __init__(self, session_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListMessagesResponse(_message.Message):
    __slots__ = ("messages", "next_page_token")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[_session_pb2.Message]
    next_page_token: str
    def __init__(self, messages: _Optional[_Iterable[_Union[_session_pb2.Message, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ReadMessageRequest(_message.Message):
    __slots__ = ("session_id", "number")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    number: int
    def __init__(self, session_id: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class ReadMessageResponse(_message.Message):
    __slots__ = ("message", "block_index", "content")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_INDEX_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    message: _session_pb2.Message
    block_index: int
    content: _session_pb2.ContentBlock
    def __init__(self, message: _Optional[_Union[_session_pb2.Message, _Mapping]] = ..., block_index: _Optional[int] = ..., content: _Optional[_Union[_session_pb2.ContentBlock, _Mapping]] = ...) -> None: ...

class DeleteSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class DeleteSessionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ForkSessionRequest(_message.Message):
    __slots__ = ("session_id", "fork_session_id", "number")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    FORK_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    fork_session_id: str
    number: int
    def __init__(self, session_id: _Optional[str] = ..., fork_session_id: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class ForkSessionResponse(_message.Message):
    __slots__ = ("session", "next_message")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NEXT_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.Session
    next_message: _session_pb2.UserMessage
    def __init__(self, session: _Optional[_Union[_session_pb2.Session, _Mapping]] = ..., next_message: _Optional[_Union[_session_pb2.UserMessage, _Mapping]] = ...) -> None: ...

class ExportSessionRequest(_message.Message):
    __slots__ = ("session_id", "include_attachments")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    include_attachments: bool
    def __init__(self, session_id: _Optional[str] = ..., include_attachments: _Optional[bool] = ...) -> None: ...

class ExportSessionResponse(_message.Message):
    __slots__ = ("line",)
    LINE_FIELD_NUMBER: _ClassVar[int]
    line: str
    def __init__(self, line: _Optional[str] = ...) -> None: ...

class ImportSessionRequest(_message.Message):
    __slots__ = ("lines", "session_id", "user", "agent")
    LINES_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    lines: str
    session_id: str
    user: str
    agent: str
    def __init__(self, lines: _Optional[str] = ..., session_id: _Optional[str] = ..., user: _Optional[str] = ..., agent: _Optional[str] = ...) -> None: ...

class ImportSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: _session_pb2.Session
    def __init__(self, session: _Optional[_Union[_session_pb2.Session, _Mapping]] = ...) -> None: ...

class UploadAttachmentRequest(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class UploadAttachmentResponse(_message.Message):
    __slots__ = ("attachment", "expire_time")
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    attachment: _attachment_pb2.Attachment
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, attachment: _Optional[_Union[_attachment_pb2.Attachment, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetAttachmentRequest(_message.Message):
    __slots__ = ("attachment_id",)
    ATTACHMENT_ID_FIELD_NUMBER: _ClassVar[int]
    attachment_id: str
    def __init__(self, attachment_id: _Optional[str] = ...) -> None: ...

class GetAttachmentResponse(_message.Message):
    __slots__ = ("attachment", "data")
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    attachment: _attachment_pb2.Attachment
    data: bytes
    def __init__(self, attachment: _Optional[_Union[_attachment_pb2.Attachment, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ListAgentsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAgentsResponse(_message.Message):
    __slots__ = ("agents", "next_page_token")
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    agents: _containers.RepeatedCompositeFieldContainer[_agent_pb2.AgentSummary]
    next_page_token: str
    def __init__(self, agents: _Optional[_Iterable[_Union[_agent_pb2.AgentSummary, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "catalogue_state", "catalogue_time", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CATALOGUE_STATE_FIELD_NUMBER: _ClassVar[int]
    CATALOGUE_TIME_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.Model]
    catalogue_state: _model_pb2.CatalogueState
    catalogue_time: _timestamp_pb2.Timestamp
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[_model_pb2.Model, _Mapping]]] = ..., catalogue_state: _Optional[_Union[_model_pb2.CatalogueState, str]] = ..., catalogue_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListActionsRequest(_message.Message):
    __slots__ = ("session_id", "state", "page_size", "page_token")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    state: _action_pb2.ActionState
    page_size: int
    page_token: str
    def __init__(self, session_id: _Optional[str] = ..., state: _Optional[_Union[_action_pb2.ActionState, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListActionsResponse(_message.Message):
    __slots__ = ("actions", "next_page_token")
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    actions: _containers.RepeatedCompositeFieldContainer[_action_pb2.Action]
    next_page_token: str
    def __init__(self, actions: _Optional[_Iterable[_Union[_action_pb2.Action, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DecideActionRequest(_message.Message):
    __slots__ = ("action_result", "user")
    ACTION_RESULT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    action_result: _action_pb2.ActionResult
    user: str
    def __init__(self, action_result: _Optional[_Union[_action_pb2.ActionResult, _Mapping]] = ..., user: _Optional[str] = ...) -> None: ...

class DecideActionResponse(_message.Message):
    __slots__ = ("action",)
    ACTION_FIELD_NUMBER: _ClassVar[int]
    action: _action_pb2.Action
    def __init__(self, action: _Optional[_Union[_action_pb2.Action, _Mapping]] = ...) -> None: ...
