import datetime

from godoty.v1 import attachment_pb2 as _attachment_pb2
from godoty.v1 import metering_pb2 as _metering_pb2
from godoty.v1 import session_pb2 as _session_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionRecord(_message.Message):
    __slots__ = ("begin", "message", "citation", "content", "state_json", "end", "attachment_data")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CITATION_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    STATE_JSON_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_DATA_FIELD_NUMBER: _ClassVar[int]
    begin: SessionExportBegin
    message: _session_pb2.Message
    citation: _session_pb2.Citation
    content: SessionContentPiece
    state_json: str
    end: SessionExportEnd
    attachment_data: SessionAttachmentData
    def __init__(self, begin: _Optional[_Union[SessionExportBegin, _Mapping]] = ..., message: _Optional[_Union[_session_pb2.Message, _Mapping]] = ..., citation: _Optional[_Union[_session_pb2.Citation, _Mapping]] = ..., content: _Optional[_Union[SessionContentPiece, _Mapping]] = ..., state_json: _Optional[str] = ..., end: _Optional[_Union[SessionExportEnd, _Mapping]] = ..., attachment_data: _Optional[_Union[SessionAttachmentData, _Mapping]] = ...) -> None: ...

class SessionExportBegin(_message.Message):
    __slots__ = ("format", "export_time", "session", "totals")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    EXPORT_TIME_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    format: int
    export_time: _timestamp_pb2.Timestamp
    session: _session_pb2.Session
    totals: _metering_pb2.Totals
    def __init__(self, format: _Optional[int] = ..., export_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., session: _Optional[_Union[_session_pb2.Session, _Mapping]] = ..., totals: _Optional[_Union[_metering_pb2.Totals, _Mapping]] = ...) -> None: ...

class SessionContentPiece(_message.Message):
    __slots__ = ("block_index", "block")
    BLOCK_INDEX_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    block_index: int
    block: _session_pb2.ContentBlock
    def __init__(self, block_index: _Optional[int] = ..., block: _Optional[_Union[_session_pb2.ContentBlock, _Mapping]] = ...) -> None: ...

class SessionAttachmentData(_message.Message):
    __slots__ = ("attachment", "data")
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    attachment: _attachment_pb2.Attachment
    data: bytes
    def __init__(self, attachment: _Optional[_Union[_attachment_pb2.Attachment, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class SessionExportEnd(_message.Message):
    __slots__ = ("message_count",)
    MESSAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    message_count: int
    def __init__(self, message_count: _Optional[int] = ...) -> None: ...
