from godoty.v1 import billing_service_pb2 as _billing_service_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BudgetAlert(_message.Message):
    __slots__ = ("window", "percent", "spent_usd", "limit_usd")
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    SPENT_USD_FIELD_NUMBER: _ClassVar[int]
    LIMIT_USD_FIELD_NUMBER: _ClassVar[int]
    window: _billing_service_pb2.BudgetWindow
    percent: int
    spent_usd: str
    limit_usd: str
    def __init__(self, window: _Optional[_Union[_billing_service_pb2.BudgetWindow, str]] = ..., percent: _Optional[int] = ..., spent_usd: _Optional[str] = ..., limit_usd: _Optional[str] = ...) -> None: ...
