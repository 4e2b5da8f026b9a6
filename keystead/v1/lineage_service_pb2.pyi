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

class LineageDirection(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LINEAGE_DIRECTION_UNSPECIFIED: _ClassVar[LineageDirection]
    LINEAGE_DIRECTION_UP: _ClassVar[LineageDirection]
    LINEAGE_DIRECTION_DOWN: _ClassVar[LineageDirection]
LINEAGE_DIRECTION_UNSPECIFIED: LineageDirection
LINEAGE_DIRECTION_UP: LineageDirection
LINEAGE_DIRECTION_DOWN: LineageDirection

class LeaseSignature(_message.Message):
    __slots__ = ("lease_id", "signature")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    signature: bytes
    def __init__(self, lease_id: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class NewAsset(_message.Message):
    __slots__ = ("kind", "constraints")
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    kind: _asset_service_pb2.AssetKind
    constraints: str
    def __init__(self, kind: _Optional[_Union[_asset_service_pb2.AssetKind, str]] = ..., constraints: _Optional[str] = ...) -> None: ...

class RegisterOutputRequest(_message.Message):
    __slots__ = ("request_id", "job_uid", "lease", "ref", "new_asset", "key_id", "manifest_digest", "wrapped_key")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_UID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    NEW_ASSET_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_KEY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    job_uid: str
    lease: LeaseSignature
    ref: _asset_ref_pb2.AssetRef
    new_asset: NewAsset
    key_id: str
    manifest_digest: bytes
    wrapped_key: bytes
    def __init__(self, request_id: _Optional[str] = ..., job_uid: _Optional[str] = ..., lease: _Optional[_Union[LeaseSignature, _Mapping]] = ..., ref: _Optional[_Union[_asset_ref_pb2.AssetRef, _Mapping]] = ..., new_asset: _Optional[_Union[NewAsset, _Mapping]] = ..., key_id: _Optional[str] = ..., manifest_digest: _Optional[bytes] = ..., wrapped_key: _Optional[bytes] = ...) -> None: ...

class RegisterOutputResponse(_message.Message):
    __slots__ = ("version", "parents")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    version: _asset_service_pb2.AssetVersion
    parents: _containers.RepeatedCompositeFieldContainer[_asset_ref_pb2.AssetRef]
    def __init__(self, version: _Optional[_Union[_asset_service_pb2.AssetVersion, _Mapping]] = ..., parents: _Optional[_Iterable[_Union[_asset_ref_pb2.AssetRef, _Mapping]]] = ...) -> None: ...

class DeclareParentsRequest(_message.Message):
    __slots__ = ("request_id", "ref", "parents")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    ref: _asset_ref_pb2.AssetRef
    parents: _containers.RepeatedCompositeFieldContainer[_asset_ref_pb2.AssetRef]
    def __init__(self, request_id: _Optional[str] = ..., ref: _Optional[_Union[_asset_ref_pb2.AssetRef, _Mapping]] = ..., parents: _Optional[_Iterable[_Union[_asset_ref_pb2.AssetRef, _Mapping]]] = ...) -> None: ...

class DeclareParentsResponse(_message.Message):
    __slots__ = ("version", "tightened", "revoked_leases")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIGHTENED_FIELD_NUMBER: _ClassVar[int]
    REVOKED_LEASES_FIELD_NUMBER: _ClassVar[int]
    version: _asset_service_pb2.AssetVersion
    tightened: _containers.RepeatedCompositeFieldContainer[_asset_ref_pb2.AssetRef]
    revoked_leases: int
    def __init__(self, version: _Optional[_Union[_asset_service_pb2.AssetVersion, _Mapping]] = ..., tightened: _Optional[_Iterable[_Union[_asset_ref_pb2.AssetRef, _Mapping]]] = ..., revoked_leases: _Optional[int] = ...) -> None: ...

class GetLineageRequest(_message.Message):
    __slots__ = ("asset", "version", "direction")
    ASSET_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    asset: str
    version: int
    direction: LineageDirection
    def __init__(self, asset: _Optional[str] = ..., version: _Optional[int] = ..., direction: _Optional[_Union[LineageDirection, str]] = ...) -> None: ...

class LineageEdge(_message.Message):
    __slots__ = ("child", "parent", "grant_id", "lease_id", "create_time")
    CHILD_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    child: _asset_ref_pb2.AssetRef
    parent: _asset_ref_pb2.AssetRef
    grant_id: str
    lease_id: str
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, child: _Optional[_Union[_asset_ref_pb2.AssetRef, _Mapping]] = ..., parent: _Optional[_Union[_asset_ref_pb2.AssetRef, _Mapping]] = ..., grant_id: _Optional[str] = ..., lease_id: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class LineageNode(_message.Message):
    __slots__ = ("ref", "kind", "state", "constraints_digest")
    REF_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ref: _asset_ref_pb2.AssetRef
    kind: _asset_service_pb2.AssetKind
    state: _asset_service_pb2.AssetState
    constraints_digest: bytes
    def __init__(self, ref: _Optional[_Union[_asset_ref_pb2.AssetRef, _Mapping]] = ..., kind: _Optional[_Union[_asset_service_pb2.AssetKind, str]] = ..., state: _Optional[_Union[_asset_service_pb2.AssetState, str]] = ..., constraints_digest: _Optional[bytes] = ...) -> None: ...

class GetLineageResponse(_message.Message):
    __slots__ = ("roots", "nodes", "edges", "truncated")
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    roots: _containers.RepeatedCompositeFieldContainer[_asset_ref_pb2.AssetRef]
    nodes: _containers.RepeatedCompositeFieldContainer[LineageNode]
    edges: _containers.RepeatedCompositeFieldContainer[LineageEdge]
    truncated: bool
    def __init__(self, roots: _Optional[_Iterable[_Union[_asset_ref_pb2.AssetRef, _Mapping]]] = ..., nodes: _Optional[_Iterable[_Union[LineageNode, _Mapping]]] = ..., edges: _Optional[_Iterable[_Union[LineageEdge, _Mapping]]] = ..., truncated: _Optional[bool] = ...) -> None: ...
