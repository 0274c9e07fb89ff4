import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CostSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COST_SOURCE_UNSPECIFIED: _ClassVar[CostSource]
    COST_SOURCE_BILLED: _ClassVar[CostSource]
    COST_SOURCE_RECONCILED: _ClassVar[CostSource]
    COST_SOURCE_CATALOGUE: _ClassVar[CostSource]

class CallState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CALL_STATE_UNSPECIFIED: _ClassVar[CallState]
    CALL_STATE_PENDING: _ClassVar[CallState]
    CALL_STATE_SETTLED: _ClassVar[CallState]
    CALL_STATE_UNRESOLVED: _ClassVar[CallState]
    CALL_STATE_VOID: _ClassVar[CallState]

class CallPurpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CALL_PURPOSE_UNSPECIFIED: _ClassVar[CallPurpose]
    CALL_PURPOSE_AGENT: _ClassVar[CallPurpose]
    CALL_PURPOSE_SUMMARY: _ClassVar[CallPurpose]
    CALL_PURPOSE_SUB_AGENT: _ClassVar[CallPurpose]
    CALL_PURPOSE_STRUCTURED_OUTPUT: _ClassVar[CallPurpose]
COST_SOURCE_UNSPECIFIED: CostSource
COST_SOURCE_BILLED: CostSource
COST_SOURCE_RECONCILED: CostSource
COST_SOURCE_CATALOGUE: CostSource
CALL_STATE_UNSPECIFIED: CallState
CALL_STATE_PENDING: CallState
CALL_STATE_SETTLED: CallState
CALL_STATE_UNRESOLVED: CallState
CALL_STATE_VOID: CallState
CALL_PURPOSE_UNSPECIFIED: CallPurpose
CALL_PURPOSE_AGENT: CallPurpose
CALL_PURPOSE_SUMMARY: CallPurpose
CALL_PURPOSE_SUB_AGENT: CallPurpose
CALL_PURPOSE_STRUCTURED_OUTPUT: CallPurpose

class TokenUsage(_message.Message):
    __slots__ = ("input_tokens", "output_tokens", "total_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "audio_input_tokens", "audio_cache_read_tokens", "audio_output_tokens", "image_output_tokens", "video_input_tokens", "web_search_requests", "server_tool_calls")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_READ_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHE_WRITE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASONING_TOKENS_FIELD_NUMBER: _ClassVar[int]
    AUDIO_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    AUDIO_CACHE_READ_TOKENS_FIELD_NUMBER: _ClassVar[int]
    AUDIO_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    VIDEO_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    WEB_SEARCH_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    SERVER_TOOL_CALLS_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    audio_input_tokens: int
    audio_cache_read_tokens: int
    audio_output_tokens: int
    image_output_tokens: int
    video_input_tokens: int
    web_search_requests: int
    server_tool_calls: int
    def __init__(self, input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., total_tokens: _Optional[int] = ..., cache_read_tokens: _Optional[int] = ..., cache_write_tokens: _Optional[int] = ..., reasoning_tokens: _Optional[int] = ..., audio_input_tokens: _Optional[int] = ..., audio_cache_read_tokens: _Optional[int] = ..., audio_output_tokens: _Optional[int] = ..., image_output_tokens: _Optional[int] = ..., video_input_tokens: _Optional[int] = ..., web_search_requests: _Optional[int] = ..., server_tool_calls: _Optional[int] = ...) -> None: ...

class UnitPrices(_message.Message):
    __slots__ = ("input_usd", "output_usd", "cache_read_usd", "cache_write_usd", "audio_input_usd", "audio_cache_read_usd", "audio_output_usd", "image_output_usd", "request_usd", "web_search_usd", "catalogue_hash", "catalogue_time", "provider_prices_hash", "provider_prices_time")
    INPUT_USD_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_USD_FIELD_NUMBER: _ClassVar[int]
    CACHE_READ_USD_FIELD_NUMBER: _ClassVar[int]
    CACHE_WRITE_USD_FIELD_NUMBER: _ClassVar[int]
    AUDIO_INPUT_USD_FIELD_NUMBER: _ClassVar[int]
    AUDIO_CACHE_READ_USD_FIELD_NUMBER: _ClassVar[int]
    AUDIO_OUTPUT_USD_FIELD_NUMBER: _ClassVar[int]
    IMAGE_OUTPUT_USD_FIELD_NUMBER: _ClassVar[int]
    REQUEST_USD_FIELD_NUMBER: _ClassVar[int]
    WEB_SEARCH_USD_FIELD_NUMBER: _ClassVar[int]
    CATALOGUE_HASH_FIELD_NUMBER: _ClassVar[int]
    CATALOGUE_TIME_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_PRICES_HASH_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_PRICES_TIME_FIELD_NUMBER: _ClassVar[int]
    input_usd: str
    output_usd: str
    cache_read_usd: str
    cache_write_usd: str
    audio_input_usd: str
    audio_cache_read_usd: str
    audio_output_usd: str
    image_output_usd: str
    request_usd: str
    web_search_usd: str
    catalogue_hash: str
    catalogue_time: _timestamp_pb2.Timestamp
    provider_prices_hash: str
    provider_prices_time: _timestamp_pb2.Timestamp
    def __init__(self, input_usd: _Optional[str] = ..., output_usd: _Optional[str] = ..., cache_read_usd: _Optional[str] = ..., cache_write_usd: _Optional[str] = ..., audio_input_usd: _Optional[str] = ..., audio_cache_read_usd: _Optional[str] = ..., audio_output_usd: _Optional[str] = ..., image_output_usd: _Optional[str] = ..., request_usd: _Optional[str] = ..., web_search_usd: _Optional[str] = ..., catalogue_hash: _Optional[str] = ..., catalogue_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., provider_prices_hash: _Optional[str] = ..., provider_prices_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ModelCall(_message.Message):
    __slots__ = ("call_id", "session_id", "turn_id", "number", "state", "purpose", "agent", "api_key_id", "requested_model", "served_model", "served_slug", "provider", "generation_id", "usage", "cost_usd", "cost_source", "catalogue_cost_usd", "upper_bound_usd", "upstream_cost_usd", "byok", "provider_key_id", "unit_prices", "start_time", "settle_time", "time_to_first_token", "duration", "attempt", "finish_reason", "error", "error_message", "agent_version", "agent_path", "tool_fees_usd", "cache_savings_usd")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    API_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_MODEL_FIELD_NUMBER: _ClassVar[int]
    SERVED_MODEL_FIELD_NUMBER: _ClassVar[int]
    SERVED_SLUG_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    GENERATION_ID_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    COST_USD_FIELD_NUMBER: _ClassVar[int]
    COST_SOURCE_FIELD_NUMBER: _ClassVar[int]
    CATALOGUE_COST_USD_FIELD_NUMBER: _ClassVar[int]
    UPPER_BOUND_USD_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_COST_USD_FIELD_NUMBER: _ClassVar[int]
    BYOK_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    UNIT_PRICES_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    SETTLE_TIME_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    AGENT_PATH_FIELD_NUMBER: _ClassVar[int]
    TOOL_FEES_USD_FIELD_NUMBER: _ClassVar[int]
    CACHE_SAVINGS_USD_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    session_id: str
    turn_id: str
    number: int
    state: CallState
    purpose: CallPurpose
    agent: str
    api_key_id: str
    requested_model: str
    served_model: str
    served_slug: str
    provider: str
    generation_id: str
    usage: TokenUsage
    cost_usd: str
    cost_source: CostSource
    catalogue_cost_usd: str
    upper_bound_usd: str
    upstream_cost_usd: str
    byok: bool
    provider_key_id: str
    unit_prices: UnitPrices
    start_time: _timestamp_pb2.Timestamp
    settle_time: _timestamp_pb2.Timestamp
    time_to_first_token: _duration_pb2.Duration
    duration: _duration_pb2.Duration
    attempt: int
    finish_reason: str
    error: str
    error_message: str
    agent_version: int
    agent_path: str
    tool_fees_usd: str
    cache_savings_usd: str
    def __init__(self, call_id: _Optional[str] = ..., session_id: _Optional[str] = ..., turn_id: _Optional[str] = ..., number: _Optional[int] = ..., state: _Optional[_Union[CallState, str]] = ..., purpose: _Optional[_Union[CallPurpose, str]] = ..., agent: _Optional[str] = ..., api_key_id: _Optional[str] = ..., requested_model: _Optional[str] = ..., served_model: _Optional[str] = ..., served_slug: _Optional[str] = ..., provider: _Optional[str] = ..., generation_id: _Optional[str] = ..., usage: _Optional[_Union[TokenUsage, _Mapping]] = ..., cost_usd: _Optional[str] = ..., cost_source: _Optional[_Union[CostSource, str]] = ..., catalogue_cost_usd: _Optional[str] = ..., upper_bound_usd: _Optional[str] = ..., upstream_cost_usd: _Optional[str] = ..., byok: _Optional[bool] = ..., provider_key_id: _Optional[str] = ..., unit_prices: _Optional[_Union[UnitPrices, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., settle_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., time_to_first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., attempt: _Optional[int] = ..., finish_reason: _Optional[str] = ..., error: _Optional[str] = ..., error_message: _Optional[str] = ..., agent_version: _Optional[int] = ..., agent_path: _Optional[str] = ..., tool_fees_usd: _Optional[str] = ..., cache_savings_usd: _Optional[str] = ...) -> None: ...

class Totals(_message.Message):
    __slots__ = ("cost_usd", "usage", "model_calls", "turns", "pending_calls", "unresolved_calls", "unresolved_bound_usd")
    COST_USD_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    MODEL_CALLS_FIELD_NUMBER: _ClassVar[int]
    TURNS_FIELD_NUMBER: _ClassVar[int]
    PENDING_CALLS_FIELD_NUMBER: _ClassVar[int]
    UNRESOLVED_CALLS_FIELD_NUMBER: _ClassVar[int]
    UNRESOLVED_BOUND_USD_FIELD_NUMBER: _ClassVar[int]
    cost_usd: str
    usage: TokenUsage
    model_calls: int
    turns: int
    pending_calls: int
    unresolved_calls: int
    unresolved_bound_usd: str
    def __init__(self, cost_usd: _Optional[str] = ..., usage: _Optional[_Union[TokenUsage, _Mapping]] = ..., model_calls: _Optional[int] = ..., turns: _Optional[int] = ..., pending_calls: _Optional[int] = ..., unresolved_calls: _Optional[int] = ..., unresolved_bound_usd: _Optional[str] = ...) -> None: ...

class CacheSavings(_message.Message):
    __slots__ = ("saved_usd", "model_calls", "unknown_model_calls")
    SAVED_USD_FIELD_NUMBER: _ClassVar[int]
    MODEL_CALLS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_MODEL_CALLS_FIELD_NUMBER: _ClassVar[int]
    saved_usd: str
    model_calls: int
    unknown_model_calls: int
    def __init__(self, saved_usd: _Optional[str] = ..., model_calls: _Optional[int] = ..., unknown_model_calls: _Optional[int] = ...) -> None: ...

class ModelTotals(_message.Message):
    __slots__ = ("model", "totals")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    model: str
    totals: Totals
    def __init__(self, model: _Optional[str] = ..., totals: _Optional[_Union[Totals, _Mapping]] = ...) -> None: ...

class AgentTotals(_message.Message):
    __slots__ = ("agent", "totals")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    agent: str
    totals: Totals
    def __init__(self, agent: _Optional[str] = ..., totals: _Optional[_Union[Totals, _Mapping]] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("time", "model", "cost_usd", "turn_id")
    TIME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    COST_USD_FIELD_NUMBER: _ClassVar[int]
    TURN_ID_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    model: str
    cost_usd: str
    turn_id: str
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., model: _Optional[str] = ..., cost_usd: _Optional[str] = ..., turn_id: _Optional[str] = ...) -> None: ...

class LatencySummary(_message.Message):
    __slots__ = ("median", "p95", "last")
    MEDIAN_FIELD_NUMBER: _ClassVar[int]
    P95_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    median: _duration_pb2.Duration
    p95: _duration_pb2.Duration
    last: _duration_pb2.Duration
    def __init__(self, median: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., p95: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., last: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ProviderLatency(_message.Message):
    __slots__ = ("provider", "model_calls", "time_to_first_token", "duration")
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_CALLS_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    provider: str
    model_calls: int
    time_to_first_token: LatencySummary
    duration: LatencySummary
    def __init__(self, provider: _Optional[str] = ..., model_calls: _Optional[int] = ..., time_to_first_token: _Optional[_Union[LatencySummary, _Mapping]] = ..., duration: _Optional[_Union[LatencySummary, _Mapping]] = ...) -> None: ...
