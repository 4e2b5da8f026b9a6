from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeviceEvidence(_message.Message):
    __slots__ = ("slot", "scheme", "data", "certificates")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    slot: str
    scheme: str
    data: bytes
    certificates: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, slot: _Optional[str] = ..., scheme: _Optional[str] = ..., data: _Optional[bytes] = ..., certificates: _Optional[_Iterable[bytes]] = ...) -> None: ...

class NodeEvidence(_message.Message):
    __slots__ = ("cpu", "devices", "runtime_data")
    CPU_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_DATA_FIELD_NUMBER: _ClassVar[int]
    cpu: DeviceEvidence
    devices: _containers.RepeatedCompositeFieldContainer[DeviceEvidence]
    runtime_data: bytes
    def __init__(self, cpu: _Optional[_Union[DeviceEvidence, _Mapping]] = ..., devices: _Optional[_Iterable[_Union[DeviceEvidence, _Mapping]]] = ..., runtime_data: _Optional[bytes] = ...) -> None: ...
