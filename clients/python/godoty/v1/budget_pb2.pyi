import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BudgetWindow(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUDGET_WINDOW_UNSPECIFIED: _ClassVar[BudgetWindow]
    BUDGET_WINDOW_DAY: _ClassVar[BudgetWindow]
    BUDGET_WINDOW_MONTH: _ClassVar[BudgetWindow]
    BUDGET_WINDOW_TOTAL: _ClassVar[BudgetWindow]
BUDGET_WINDOW_UNSPECIFIED: BudgetWindow
BUDGET_WINDOW_DAY: BudgetWindow
BUDGET_WINDOW_MONTH: BudgetWindow
BUDGET_WINDOW_TOTAL: BudgetWindow

class Budget(_message.Message):
    __slots__ = ("window", "limit_usd", "hard")
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    LIMIT_USD_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    window: BudgetWindow
    limit_usd: str
    hard: bool
    def __init__(self, window: _Optional[_Union[BudgetWindow, str]] = ..., limit_usd: _Optional[str] = ..., hard: _Optional[bool] = ...) -> None: ...

class BudgetStatus(_message.Message):
    __slots__ = ("window", "limit_usd", "hard", "spent_usd", "reserved_usd", "window_start_time")
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    LIMIT_USD_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    SPENT_USD_FIELD_NUMBER: _ClassVar[int]
    RESERVED_USD_FIELD_NUMBER: _ClassVar[int]
    WINDOW_START_TIME_FIELD_NUMBER: _ClassVar[int]
    window: BudgetWindow
    limit_usd: str
    hard: bool
    spent_usd: str
    reserved_usd: str
    window_start_time: _timestamp_pb2.Timestamp
    def __init__(self, window: _Optional[_Union[BudgetWindow, str]] = ..., limit_usd: _Optional[str] = ..., hard: _Optional[bool] = ..., spent_usd: _Optional[str] = ..., reserved_usd: _Optional[str] = ..., window_start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class BudgetAlert(_message.Message):
    __slots__ = ("window", "percent", "spent_usd", "limit_usd")
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    SPENT_USD_FIELD_NUMBER: _ClassVar[int]
    LIMIT_USD_FIELD_NUMBER: _ClassVar[int]
    window: BudgetWindow
    percent: int
    spent_usd: str
    limit_usd: str
    def __init__(self, window: _Optional[_Union[BudgetWindow, str]] = ..., percent: _Optional[int] = ..., spent_usd: _Optional[str] = ..., limit_usd: _Optional[str] = ...) -> None: ...
