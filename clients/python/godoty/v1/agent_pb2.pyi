import datetime

from godoty.v1 import action_pb2 as _action_pb2
from godoty.v1 import turn_pb2 as _turn_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WebSearchEngine(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WEB_SEARCH_ENGINE_UNSPECIFIED: _ClassVar[WebSearchEngine]
    WEB_SEARCH_ENGINE_AUTO: _ClassVar[WebSearchEngine]
    WEB_SEARCH_ENGINE_NATIVE: _ClassVar[WebSearchEngine]
    WEB_SEARCH_ENGINE_EXA: _ClassVar[WebSearchEngine]
    WEB_SEARCH_ENGINE_PARALLEL: _ClassVar[WebSearchEngine]
    WEB_SEARCH_ENGINE_PERPLEXITY: _ClassVar[WebSearchEngine]

class WebFetchEngine(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WEB_FETCH_ENGINE_UNSPECIFIED: _ClassVar[WebFetchEngine]
    WEB_FETCH_ENGINE_AUTO: _ClassVar[WebFetchEngine]
    WEB_FETCH_ENGINE_NATIVE: _ClassVar[WebFetchEngine]
    WEB_FETCH_ENGINE_OPENROUTER: _ClassVar[WebFetchEngine]
    WEB_FETCH_ENGINE_EXA: _ClassVar[WebFetchEngine]
    WEB_FETCH_ENGINE_PARALLEL: _ClassVar[WebFetchEngine]

class ReasoningEffort(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASONING_EFFORT_UNSPECIFIED: _ClassVar[ReasoningEffort]
    REASONING_EFFORT_NONE: _ClassVar[ReasoningEffort]
    REASONING_EFFORT_MINIMAL: _ClassVar[ReasoningEffort]
    REASONING_EFFORT_LOW: _ClassVar[ReasoningEffort]
    REASONING_EFFORT_MEDIUM: _ClassVar[ReasoningEffort]
    REASONING_EFFORT_HIGH: _ClassVar[ReasoningEffort]
    REASONING_EFFORT_XHIGH: _ClassVar[ReasoningEffort]
    REASONING_EFFORT_MAX: _ClassVar[ReasoningEffort]

class HistoryMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HISTORY_MODE_UNSPECIFIED: _ClassVar[HistoryMode]
    HISTORY_MODE_SLIDING: _ClassVar[HistoryMode]
    HISTORY_MODE_SUMMARY: _ClassVar[HistoryMode]

class AgentOverride(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AGENT_OVERRIDE_UNSPECIFIED: _ClassVar[AgentOverride]
    AGENT_OVERRIDE_MODEL: _ClassVar[AgentOverride]
    AGENT_OVERRIDE_FALLBACK_MODELS: _ClassVar[AgentOverride]
    AGENT_OVERRIDE_PARAMETERS: _ClassVar[AgentOverride]
    AGENT_OVERRIDE_OUTPUT_SCHEMA: _ClassVar[AgentOverride]
WEB_SEARCH_ENGINE_UNSPECIFIED: WebSearchEngine
WEB_SEARCH_ENGINE_AUTO: WebSearchEngine
WEB_SEARCH_ENGINE_NATIVE: WebSearchEngine
WEB_SEARCH_ENGINE_EXA: WebSearchEngine
WEB_SEARCH_ENGINE_PARALLEL: WebSearchEngine
WEB_SEARCH_ENGINE_PERPLEXITY: WebSearchEngine
WEB_FETCH_ENGINE_UNSPECIFIED: WebFetchEngine
WEB_FETCH_ENGINE_AUTO: WebFetchEngine
WEB_FETCH_ENGINE_NATIVE: WebFetchEngine
WEB_FETCH_ENGINE_OPENROUTER: WebFetchEngine
WEB_FETCH_ENGINE_EXA: WebFetchEngine
WEB_FETCH_ENGINE_PARALLEL: WebFetchEngine
REASONING_EFFORT_UNSPECIFIED: ReasoningEffort
REASONING_EFFORT_NONE: ReasoningEffort
REASONING_EFFORT_MINIMAL: ReasoningEffort
REASONING_EFFORT_LOW: ReasoningEffort
REASONING_EFFORT_MEDIUM: ReasoningEffort
REASONING_EFFORT_HIGH: ReasoningEffort
REASONING_EFFORT_XHIGH: ReasoningEffort
REASONING_EFFORT_MAX: ReasoningEffort
HISTORY_MODE_UNSPECIFIED: HistoryMode
HISTORY_MODE_SLIDING: HistoryMode
HISTORY_MODE_SUMMARY: HistoryMode
AGENT_OVERRIDE_UNSPECIFIED: AgentOverride
AGENT_OVERRIDE_MODEL: AgentOverride
AGENT_OVERRIDE_FALLBACK_MODELS: AgentOverride
AGENT_OVERRIDE_PARAMETERS: AgentOverride
AGENT_OVERRIDE_OUTPUT_SCHEMA: AgentOverride

class AgentDefinition(_message.Message):
    __slots__ = ("name", "description", "system_prompt", "model", "fallback_models", "parameters", "tools", "limits", "history", "overridable", "prompt_caching", "web_search", "output_schema", "web_fetch")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_PROMPT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_MODELS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    OVERRIDABLE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_CACHING_FIELD_NUMBER: _ClassVar[int]
    WEB_SEARCH_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    WEB_FETCH_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    system_prompt: str
    model: str
    fallback_models: _containers.RepeatedScalarFieldContainer[str]
    parameters: ModelParameters
    tools: _containers.RepeatedCompositeFieldContainer[AgentTool]
    limits: _turn_pb2.TurnLimits
    history: AgentHistory
    overridable: AgentOverrides
    prompt_caching: bool
    web_search: WebSearch
    output_schema: str
    web_fetch: WebFetch
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., system_prompt: _Optional[str] = ..., model: _Optional[str] = ..., fallback_models: _Optional[_Iterable[str]] = ..., parameters: _Optional[_Union[ModelParameters, _Mapping]] = ..., tools: _Optional[_Iterable[_Union[AgentTool, _Mapping]]] = ..., limits: _Optional[_Union[_turn_pb2.TurnLimits, _Mapping]] = ..., history: _Optional[_Union[AgentHistory, _Mapping]] = ..., overridable: _Optional[_Union[AgentOverrides, _Mapping]] = ..., prompt_caching: _Optional[bool] = ..., web_search: _Optional[_Union[WebSearch, _Mapping]] = ..., output_schema: _Optional[str] = ..., web_fetch: _Optional[_Union[WebFetch, _Mapping]] = ...) -> None: ...

class WebSearch(_message.Message):
    __slots__ = ("engine", "max_uses", "max_results", "max_characters", "allowed_domains", "excluded_domains")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    MAX_USES_FIELD_NUMBER: _ClassVar[int]
    MAX_RESULTS_FIELD_NUMBER: _ClassVar[int]
    MAX_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_DOMAINS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_DOMAINS_FIELD_NUMBER: _ClassVar[int]
    engine: WebSearchEngine
    max_uses: int
    max_results: int
    max_characters: int
    allowed_domains: _containers.RepeatedScalarFieldContainer[str]
    excluded_domains: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, engine: _Optional[_Union[WebSearchEngine, str]] = ..., max_uses: _Optional[int] = ..., max_results: _Optional[int] = ..., max_characters: _Optional[int] = ..., allowed_domains: _Optional[_Iterable[str]] = ..., excluded_domains: _Optional[_Iterable[str]] = ...) -> None: ...

class WebFetch(_message.Message):
    __slots__ = ("engine", "max_uses", "max_content_tokens", "allowed_domains", "excluded_domains")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    MAX_USES_FIELD_NUMBER: _ClassVar[int]
    MAX_CONTENT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_DOMAINS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_DOMAINS_FIELD_NUMBER: _ClassVar[int]
    engine: WebFetchEngine
    max_uses: int
    max_content_tokens: int
    allowed_domains: _containers.RepeatedScalarFieldContainer[str]
    excluded_domains: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, engine: _Optional[_Union[WebFetchEngine, str]] = ..., max_uses: _Optional[int] = ..., max_content_tokens: _Optional[int] = ..., allowed_domains: _Optional[_Iterable[str]] = ..., excluded_domains: _Optional[_Iterable[str]] = ...) -> None: ...

class ModelParameters(_message.Message):
    __slots__ = ("temperature", "top_p", "max_output_tokens", "reasoning", "seed", "stop", "provider_json")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_JSON_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_p: float
    max_output_tokens: int
    reasoning: ModelReasoning
    seed: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    provider_json: str
    def __init__(self, temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., max_output_tokens: _Optional[int] = ..., reasoning: _Optional[_Union[ModelReasoning, _Mapping]] = ..., seed: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., provider_json: _Optional[str] = ...) -> None: ...

class ModelReasoning(_message.Message):
    __slots__ = ("effort", "max_tokens")
    EFFORT_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    effort: ReasoningEffort
    max_tokens: int
    def __init__(self, effort: _Optional[_Union[ReasoningEffort, str]] = ..., max_tokens: _Optional[int] = ...) -> None: ...

class AgentTool(_message.Message):
    __slots__ = ("builtin", "mcp", "agent", "client", "approval", "idempotent")
    BUILTIN_FIELD_NUMBER: _ClassVar[int]
    MCP_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    APPROVAL_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENT_FIELD_NUMBER: _ClassVar[int]
    builtin: str
    mcp: McpToolset
    agent: SubAgent
    client: _action_pb2.ClientTool
    approval: _action_pb2.ToolApproval
    idempotent: bool
    def __init__(self, builtin: _Optional[str] = ..., mcp: _Optional[_Union[McpToolset, _Mapping]] = ..., agent: _Optional[_Union[SubAgent, _Mapping]] = ..., client: _Optional[_Union[_action_pb2.ClientTool, _Mapping]] = ..., approval: _Optional[_Union[_action_pb2.ToolApproval, _Mapping]] = ..., idempotent: _Optional[bool] = ...) -> None: ...

class SubAgent(_message.Message):
    __slots__ = ("agent", "description")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    agent: str
    description: str
    def __init__(self, agent: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class McpToolset(_message.Message):
    __slots__ = ("mcp_server", "allow")
    MCP_SERVER_FIELD_NUMBER: _ClassVar[int]
    ALLOW_FIELD_NUMBER: _ClassVar[int]
    mcp_server: str
    allow: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, mcp_server: _Optional[str] = ..., allow: _Optional[_Iterable[str]] = ...) -> None: ...

class AgentHistory(_message.Message):
    __slots__ = ("messages", "mode")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    messages: int
    mode: HistoryMode
    def __init__(self, messages: _Optional[int] = ..., mode: _Optional[_Union[HistoryMode, str]] = ...) -> None: ...

class AgentOverrides(_message.Message):
    __slots__ = ("fields",)
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.RepeatedScalarFieldContainer[AgentOverride]
    def __init__(self, fields: _Optional[_Iterable[_Union[AgentOverride, str]]] = ...) -> None: ...

class AgentVersion(_message.Message):
    __slots__ = ("definition", "version", "create_time", "api_key_id")
    DEFINITION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    API_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    definition: AgentDefinition
    version: int
    create_time: _timestamp_pb2.Timestamp
    api_key_id: str
    def __init__(self, definition: _Optional[_Union[AgentDefinition, _Mapping]] = ..., version: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., api_key_id: _Optional[str] = ...) -> None: ...

class AgentSummary(_message.Message):
    __slots__ = ("name", "description", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    version: int
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...
