import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from keystead.v1 import asset_ref_pb2 as _asset_ref_pb2
from keystead.v1 import asset_service_pb2 as _asset_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeclassificationState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECLASSIFICATION_STATE_UNSPECIFIED: _ClassVar[DeclassificationState]
    DECLASSIFICATION_STATE_PROPOSED: _ClassVar[DeclassificationState]
    DECLASSIFICATION_STATE_APPLIED: _ClassVar[DeclassificationState]
DECLASSIFICATION_STATE_UNSPECIFIED: DeclassificationState
DECLASSIFICATION_STATE_PROPOSED: DeclassificationState
DECLASSIFICATION_STATE_APPLIED: DeclassificationState

class ApproverSet(_message.Message):
    __slots__ = ("serial", "threshold", "approvers", "statement", "signatures", "create_time")
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    APPROVERS_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    serial: int
    threshold: int
    approvers: _containers.RepeatedCompositeFieldContainer[Approver]
    statement: bytes
    signatures: _containers.RepeatedScalarFieldContainer[str]
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, serial: _Optional[int] = ..., threshold: _Optional[int] = ..., approvers: _Optional[_Iterable[_Union[Approver, _Mapping]]] = ..., statement: _Optional[bytes] = ..., signatures: _Optional[_Iterable[str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Approver(_message.Message):
    __slots__ = ("name", "public_key")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    name: str
    public_key: bytes
    def __init__(self, name: _Optional[str] = ..., public_key: _Optional[bytes] = ...) -> None: ...

class SetApproversRequest(_message.Message):
    __slots__ = ("request_id", "statement", "signatures")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    statement: bytes
    signatures: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_id: _Optional[str] = ..., statement: _Optional[bytes] = ..., signatures: _Optional[_Iterable[str]] = ...) -> None: ...

class SetApproversResponse(_message.Message):
    __slots__ = ("approvers",)
    APPROVERS_FIELD_NUMBER: _ClassVar[int]
    approvers: ApproverSet
    def __init__(self, approvers: _Optional[_Union[ApproverSet, _Mapping]] = ...) -> None: ...

class GetApproversRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetApproversResponse(_message.Message):
    __slots__ = ("approvers",)
    APPROVERS_FIELD_NUMBER: _ClassVar[int]
    approvers: ApproverSet
    def __init__(self, approvers: _Optional[_Union[ApproverSet, _Mapping]] = ...) -> None: ...

class Declassification(_message.Message):
    __slots__ = ("digest", "ref", "serial", "author", "state", "statement", "signatures", "signers", "create_time", "apply_time")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    SIGNERS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    APPLY_TIME_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    ref: _asset_ref_pb2.AssetRef
    serial: int
    author: str
    state: DeclassificationState
    statement: bytes
    signatures: _containers.RepeatedScalarFieldContainer[str]
    signers: _containers.RepeatedScalarFieldContainer[str]
    create_time: _timestamp_pb2.Timestamp
    apply_time: _timestamp_pb2.Timestamp
    def __init__(self, digest: _Optional[bytes] = ..., ref: _Optional[_Union[_asset_ref_pb2.AssetRef, _Mapping]] = ..., serial: _Optional[int] = ..., author: _Optional[str] = ..., state: _Optional[_Union[DeclassificationState, str]] = ..., statement: _Optional[bytes] = ..., signatures: _Optional[_Iterable[str]] = ..., signers: _Optional[_Iterable[str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., apply_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ProposeDeclassificationRequest(_message.Message):
    __slots__ = ("request_id", "statement")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    statement: bytes
    def __init__(self, request_id: _Optional[str] = ..., statement: _Optional[bytes] = ...) -> None: ...

class ProposeDeclassificationResponse(_message.Message):
    __slots__ = ("declassification",)
    DECLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    declassification: Declassification
    def __init__(self, declassification: _Optional[_Union[Declassification, _Mapping]] = ...) -> None: ...

class ApplyDeclassificationRequest(_message.Message):
    __slots__ = ("request_id", "statement", "signatures")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    statement: bytes
    signatures: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_id: _Optional[str] = ..., statement: _Optional[bytes] = ..., signatures: _Optional[_Iterable[str]] = ...) -> None: ...

class ApplyDeclassificationResponse(_message.Message):
    __slots__ = ("declassification", "version")
    DECLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    declassification: Declassification
    version: _asset_service_pb2.AssetVersion
    def __init__(self, declassification: _Optional[_Union[Declassification, _Mapping]] = ..., version: _Optional[_Union[_asset_service_pb2.AssetVersion, _Mapping]] = ...) -> None: ...

class ListDeclassificationsRequest(_message.Message):
    __slots__ = ("asset", "version", "page_size", "page_token")
    ASSET_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    asset: str
    version: int
    page_size: int
    page_token: str
    def __init__(self, asset: _Optional[str] = ..., version: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListDeclassificationsResponse(_message.Message):
    __slots__ = ("declassifications", "next_page_token")
    DECLASSIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    declassifications: _containers.RepeatedCompositeFieldContainer[Declassification]
    next_page_token: str
    def __init__(self, declassifications: _Optional[_Iterable[_Union[Declassification, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
