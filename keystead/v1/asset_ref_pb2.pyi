from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class AssetRef(_message.Message):
    __slots__ = ("asset", "version")
    ASSET_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    asset: str
    version: int
    def __init__(self, asset: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...
