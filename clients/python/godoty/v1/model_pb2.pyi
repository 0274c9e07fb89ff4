from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CatalogueState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CATALOGUE_STATE_UNSPECIFIED: _ClassVar[CatalogueState]
    CATALOGUE_STATE_CURRENT: _ClassVar[CatalogueState]
    CATALOGUE_STATE_STALE: _ClassVar[CatalogueState]
    CATALOGUE_STATE_MISSING: _ClassVar[CatalogueState]
CATALOGUE_STATE_UNSPECIFIED: CatalogueState
CATALOGUE_STATE_CURRENT: CatalogueState
CATALOGUE_STATE_STALE: CatalogueState
CATALOGUE_STATE_MISSING: CatalogueState

class Model(_message.Message):
    __slots__ = ("model_id", "display_name", "alias_of", "prices", "prices_vary", "context_length", "max_output_tokens", "input_modalities", "output_modalities", "tools", "reasoning", "structured_output")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    ALIAS_OF_FIELD_NUMBER: _ClassVar[int]
    PRICES_FIELD_NUMBER: _ClassVar[int]
    PRICES_VARY_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    INPUT_MODALITIES_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_MODALITIES_FIELD_NUMBER: _ClassVar[int]
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    STRUCTURED_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    display_name: str
    alias_of: str
    prices: ModelPrices
    prices_vary: bool
    context_length: int
    max_output_tokens: int
    input_modalities: _containers.RepeatedScalarFieldContainer[str]
    output_modalities: _containers.RepeatedScalarFieldContainer[str]
    tools: bool
    reasoning: bool
    structured_output: bool
    def __init__(self, model_id: _Optional[str] = ..., display_name: _Optional[str] = ..., alias_of: _Optional[str] = ..., prices: _Optional[_Union[ModelPrices, _Mapping]] = ..., prices_vary: _Optional[bool] = ..., context_length: _Optional[int] = ..., max_output_tokens: _Optional[int] = ..., input_modalities: _Optional[_Iterable[str]] = ..., output_modalities: _Optional[_Iterable[str]] = ..., tools: _Optional[bool] = ..., reasoning: _Optional[bool] = ..., structured_output: _Optional[bool] = ...) -> None: ...

class ModelPrices(_message.Message):
    __slots__ = ("input_usd", "output_usd", "cache_read_usd", "cache_write_usd", "audio_input_usd", "audio_cache_read_usd", "audio_output_usd", "image_output_usd", "request_usd", "web_search_usd", "uncounted_fees")
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
    UNCOUNTED_FEES_FIELD_NUMBER: _ClassVar[int]
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
    uncounted_fees: bool
    def __init__(self, input_usd: _Optional[str] = ..., output_usd: _Optional[str] = ..., cache_read_usd: _Optional[str] = ..., cache_write_usd: _Optional[str] = ..., audio_input_usd: _Optional[str] = ..., audio_cache_read_usd: _Optional[str] = ..., audio_output_usd: _Optional[str] = ..., image_output_usd: _Optional[str] = ..., request_usd: _Optional[str] = ..., web_search_usd: _Optional[str] = ..., uncounted_fees: _Optional[bool] = ...) -> None: ...
