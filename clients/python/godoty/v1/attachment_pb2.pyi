from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Attachment(_message.Message):
    __slots__ = ("attachment_id", "media_type", "size_bytes", "width", "height", "pages")
    ATTACHMENT_ID_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    PAGES_FIELD_NUMBER: _ClassVar[int]
    attachment_id: str
    media_type: str
    size_bytes: int
    width: int
    height: int
    pages: int
    def __init__(self, attachment_id: _Optional[str] = ..., media_type: _Optional[str] = ..., size_bytes: _Optional[int] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., pages: _Optional[int] = ...) -> None: ...

class AttachmentSource(_message.Message):
    __slots__ = ("attachment_id", "inline", "url")
    ATTACHMENT_ID_FIELD_NUMBER: _ClassVar[int]
    INLINE_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    attachment_id: str
    inline: bytes
    url: str
    def __init__(self, attachment_id: _Optional[str] = ..., inline: _Optional[bytes] = ..., url: _Optional[str] = ...) -> None: ...
