from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DenialReason(_message.Message):
    __slots__ = ("code", "field", "expected", "actual", "message", "remedy", "reference")
    CODE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    code: str
    field: str
    expected: str
    actual: str
    message: str
    remedy: str
    reference: str
    def __init__(self, code: _Optional[str] = ..., field: _Optional[str] = ..., expected: _Optional[str] = ..., actual: _Optional[str] = ..., message: _Optional[str] = ..., remedy: _Optional[str] = ..., reference: _Optional[str] = ...) -> None: ...

class Denial(_message.Message):
    __slots__ = ("reasons", "record_hash")
    REASONS_FIELD_NUMBER: _ClassVar[int]
    RECORD_HASH_FIELD_NUMBER: _ClassVar[int]
    reasons: _containers.RepeatedCompositeFieldContainer[DenialReason]
    record_hash: bytes
    def __init__(self, reasons: _Optional[_Iterable[_Union[DenialReason, _Mapping]]] = ..., record_hash: _Optional[bytes] = ...) -> None: ...
