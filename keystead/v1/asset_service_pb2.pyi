import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from keystead.v1 import asset_ref_pb2 as _asset_ref_pb2
from keystead.v1 import constraints_pb2 as _constraints_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AssetKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ASSET_KIND_UNSPECIFIED: _ClassVar[AssetKind]
    ASSET_KIND_MODEL: _ClassVar[AssetKind]
    ASSET_KIND_DATASET: _ClassVar[AssetKind]
    ASSET_KIND_CHECKPOINT: _ClassVar[AssetKind]
    ASSET_KIND_ADAPTER: _ClassVar[AssetKind]
    ASSET_KIND_PREPROCESSED: _ClassVar[AssetKind]
    ASSET_KIND_FEATURES: _ClassVar[AssetKind]
    ASSET_KIND_EVALUATION_SET: _ClassVar[AssetKind]

class AssetState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ASSET_STATE_UNSPECIFIED: _ClassVar[AssetState]
    ASSET_STATE_ACTIVE: _ClassVar[AssetState]
    ASSET_STATE_REVOKED: _ClassVar[AssetState]
ASSET_KIND_UNSPECIFIED: AssetKind
ASSET_KIND_MODEL: AssetKind
ASSET_KIND_DATASET: AssetKind
ASSET_KIND_CHECKPOINT: AssetKind
ASSET_KIND_ADAPTER: AssetKind
ASSET_KIND_PREPROCESSED: AssetKind
ASSET_KIND_FEATURES: AssetKind
ASSET_KIND_EVALUATION_SET: AssetKind
ASSET_STATE_UNSPECIFIED: AssetState
ASSET_STATE_ACTIVE: AssetState
ASSET_STATE_REVOKED: AssetState

class Asset(_message.Message):
    __slots__ = ("asset", "kind", "state", "constraints", "create_time", "versions")
    ASSET_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    asset: str
    kind: AssetKind
    state: AssetState
    constraints: _constraints_pb2.Constraints
    create_time: _timestamp_pb2.Timestamp
    versions: _containers.RepeatedCompositeFieldContainer[AssetVersion]
    def __init__(self, asset: _Optional[str] = ..., kind: _Optional[_Union[AssetKind, str]] = ..., state: _Optional[_Union[AssetState, str]] = ..., constraints: _Optional[_Union[_constraints_pb2.Constraints, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., versions: _Optional[_Iterable[_Union[AssetVersion, _Mapping]]] = ...) -> None: ...

class AssetVersion(_message.Message):
    __slots__ = ("ref", "key_id", "manifest_digest", "create_time", "constraints", "state")
    REF_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ref: _asset_ref_pb2.AssetRef
    key_id: str
    manifest_digest: bytes
    create_time: _timestamp_pb2.Timestamp
    constraints: _constraints_pb2.Constraints
    state: AssetState
    def __init__(self, ref: _Optional[_Union[_asset_ref_pb2.AssetRef, _Mapping]] = ..., key_id: _Optional[str] = ..., manifest_digest: _Optional[bytes] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., constraints: _Optional[_Union[_constraints_pb2.Constraints, _Mapping]] = ..., state: _Optional[_Union[AssetState, str]] = ...) -> None: ...

class RegisterAssetRequest(_message.Message):
    __slots__ = ("request_id", "asset", "kind", "constraints")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ASSET_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    asset: str
    kind: AssetKind
    constraints: _constraints_pb2.Constraints
    def __init__(self, request_id: _Optional[str] = ..., asset: _Optional[str] = ..., kind: _Optional[_Union[AssetKind, str]] = ..., constraints: _Optional[_Union[_constraints_pb2.Constraints, _Mapping]] = ...) -> None: ...

class RegisterAssetResponse(_message.Message):
    __slots__ = ("asset",)
    ASSET_FIELD_NUMBER: _ClassVar[int]
    asset: Asset
    def __init__(self, asset: _Optional[_Union[Asset, _Mapping]] = ...) -> None: ...

class AddAssetVersionRequest(_message.Message):
    __slots__ = ("request_id", "ref", "key_id", "manifest_digest", "wrapped_key", "parents", "description_digest")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REF_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    WRAPPED_KEY_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_DIGEST_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    ref: _asset_ref_pb2.AssetRef
    key_id: str
    manifest_digest: bytes
    wrapped_key: bytes
    parents: _containers.RepeatedCompositeFieldContainer[_asset_ref_pb2.AssetRef]
    description_digest: bytes
    def __init__(self, request_id: _Optional[str] = ..., ref: _Optional[_Union[_asset_ref_pb2.AssetRef, _Mapping]] = ..., key_id: _Optional[str] = ..., manifest_digest: _Optional[bytes] = ..., wrapped_key: _Optional[bytes] = ..., parents: _Optional[_Iterable[_Union[_asset_ref_pb2.AssetRef, _Mapping]]] = ..., description_digest: _Optional[bytes] = ...) -> None: ...

class AddAssetVersionResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: AssetVersion
    def __init__(self, version: _Optional[_Union[AssetVersion, _Mapping]] = ...) -> None: ...

class GetAssetRequest(_message.Message):
    __slots__ = ("asset",)
    ASSET_FIELD_NUMBER: _ClassVar[int]
    asset: str
    def __init__(self, asset: _Optional[str] = ...) -> None: ...

class GetAssetResponse(_message.Message):
    __slots__ = ("asset",)
    ASSET_FIELD_NUMBER: _ClassVar[int]
    asset: Asset
    def __init__(self, asset: _Optional[_Union[Asset, _Mapping]] = ...) -> None: ...

class ListAssetsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAssetsResponse(_message.Message):
    __slots__ = ("assets", "next_page_token")
    ASSETS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    assets: _containers.RepeatedCompositeFieldContainer[Asset]
    next_page_token: str
    def __init__(self, assets: _Optional[_Iterable[_Union[Asset, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class RevokeAssetRequest(_message.Message):
    __slots__ = ("request_id", "asset", "descendants")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ASSET_FIELD_NUMBER: _ClassVar[int]
    DESCENDANTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    asset: str
    descendants: bool
    def __init__(self, request_id: _Optional[str] = ..., asset: _Optional[str] = ..., descendants: _Optional[bool] = ...) -> None: ...

class RevokeAssetResponse(_message.Message):
    __slots__ = ("asset", "descendants")
    ASSET_FIELD_NUMBER: _ClassVar[int]
    DESCENDANTS_FIELD_NUMBER: _ClassVar[int]
    asset: Asset
    descendants: _containers.RepeatedCompositeFieldContainer[_asset_ref_pb2.AssetRef]
    def __init__(self, asset: _Optional[_Union[Asset, _Mapping]] = ..., descendants: _Optional[_Iterable[_Union[_asset_ref_pb2.AssetRef, _Mapping]]] = ...) -> None: ...

class ConstrainAssetRequest(_message.Message):
    __slots__ = ("request_id", "asset", "version", "constraints")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ASSET_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    asset: str
    version: int
    constraints: _constraints_pb2.Constraints
    def __init__(self, request_id: _Optional[str] = ..., asset: _Optional[str] = ..., version: _Optional[int] = ..., constraints: _Optional[_Union[_constraints_pb2.Constraints, _Mapping]] = ...) -> None: ...

class ConstrainAssetResponse(_message.Message):
    __slots__ = ("asset", "tightened", "revoked_leases")
    ASSET_FIELD_NUMBER: _ClassVar[int]
    TIGHTENED_FIELD_NUMBER: _ClassVar[int]
    REVOKED_LEASES_FIELD_NUMBER: _ClassVar[int]
    asset: Asset
    tightened: _containers.RepeatedCompositeFieldContainer[_asset_ref_pb2.AssetRef]
    revoked_leases: int
    def __init__(self, asset: _Optional[_Union[Asset, _Mapping]] = ..., tightened: _Optional[_Iterable[_Union[_asset_ref_pb2.AssetRef, _Mapping]]] = ..., revoked_leases: _Optional[int] = ...) -> None: ...

class GetWrappingKeyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetWrappingKeyResponse(_message.Message):
    __slots__ = ("hpke_key", "broker")
    HPKE_KEY_FIELD_NUMBER: _ClassVar[int]
    BROKER_FIELD_NUMBER: _ClassVar[int]
    hpke_key: bytes
    broker: str
    def __init__(self, hpke_key: _Optional[bytes] = ..., broker: _Optional[str] = ...) -> None: ...
