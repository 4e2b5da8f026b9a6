import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from keystead.v1 import asset_ref_pb2 as _asset_ref_pb2
from keystead.v1 import evidence_pb2 as _evidence_pb2
from keystead.v1 import job_service_pb2 as _job_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Lease(_message.Message):
    __slots__ = ("lease_id", "job_uid", "node_id", "assets", "expire_time", "policy_digest")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_UID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ASSETS_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    job_uid: str
    node_id: str
    assets: _containers.RepeatedCompositeFieldContainer[_asset_ref_pb2.AssetRef]
    expire_time: _timestamp_pb2.Timestamp
    policy_digest: bytes
    def __init__(self, lease_id: _Optional[str] = ..., job_uid: _Optional[str] = ..., node_id: _Optional[str] = ..., assets: _Optional[_Iterable[_Union[_asset_ref_pb2.AssetRef, _Mapping]]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., policy_digest: _Optional[bytes] = ...) -> None: ...

class Obligation(_message.Message):
    __slots__ = ("code", "params")
    CODE_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    code: str
    params: str
    def __init__(self, code: _Optional[str] = ..., params: _Optional[str] = ...) -> None: ...

class WrappedKey(_message.Message):
    __slots__ = ("asset", "key_id", "ciphertext", "manifest_digest")
    ASSET_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    asset: _asset_ref_pb2.AssetRef
    key_id: str
    ciphertext: bytes
    manifest_digest: bytes
    def __init__(self, asset: _Optional[_Union[_asset_ref_pb2.AssetRef, _Mapping]] = ..., key_id: _Optional[str] = ..., ciphertext: _Optional[bytes] = ..., manifest_digest: _Optional[bytes] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("origin", "entry_hash", "commit_time", "key_id", "signature")
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    ENTRY_HASH_FIELD_NUMBER: _ClassVar[int]
    COMMIT_TIME_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    origin: str
    entry_hash: bytes
    commit_time: _timestamp_pb2.Timestamp
    key_id: str
    signature: bytes
    def __init__(self, origin: _Optional[str] = ..., entry_hash: _Optional[bytes] = ..., commit_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., key_id: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Passport(_message.Message):
    __slots__ = ("attestation_result", "hpke_key", "signature", "nonce")
    ATTESTATION_RESULT_FIELD_NUMBER: _ClassVar[int]
    HPKE_KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    attestation_result: str
    hpke_key: bytes
    signature: bytes
    nonce: bytes
    def __init__(self, attestation_result: _Optional[str] = ..., hpke_key: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class AcquireLeaseRequest(_message.Message):
    __slots__ = ("grant", "assets", "evidence", "passport")
    GRANT_FIELD_NUMBER: _ClassVar[int]
    ASSETS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    PASSPORT_FIELD_NUMBER: _ClassVar[int]
    grant: _job_service_pb2.JobGrant
    assets: _containers.RepeatedCompositeFieldContainer[_asset_ref_pb2.AssetRef]
    evidence: _evidence_pb2.NodeEvidence
    passport: Passport
    def __init__(self, grant: _Optional[_Union[_job_service_pb2.JobGrant, _Mapping]] = ..., assets: _Optional[_Iterable[_Union[_asset_ref_pb2.AssetRef, _Mapping]]] = ..., evidence: _Optional[_Union[_evidence_pb2.NodeEvidence, _Mapping]] = ..., passport: _Optional[_Union[Passport, _Mapping]] = ...) -> None: ...

class AcquireLeaseResponse(_message.Message):
    __slots__ = ("lease", "keys", "obligations", "attestation_result", "receipt", "next_nonce")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_RESULT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    NEXT_NONCE_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    keys: _containers.RepeatedCompositeFieldContainer[WrappedKey]
    obligations: _containers.RepeatedCompositeFieldContainer[Obligation]
    attestation_result: str
    receipt: Receipt
    next_nonce: bytes
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ..., keys: _Optional[_Iterable[_Union[WrappedKey, _Mapping]]] = ..., obligations: _Optional[_Iterable[_Union[Obligation, _Mapping]]] = ..., attestation_result: _Optional[str] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., next_nonce: _Optional[bytes] = ...) -> None: ...

class RenewLeaseRequest(_message.Message):
    __slots__ = ("lease_id", "evidence")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    evidence: _evidence_pb2.NodeEvidence
    def __init__(self, lease_id: _Optional[str] = ..., evidence: _Optional[_Union[_evidence_pb2.NodeEvidence, _Mapping]] = ...) -> None: ...

class RenewLeaseResponse(_message.Message):
    __slots__ = ("lease", "obligations", "attestation_result", "receipt", "next_nonce")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    ATTESTATION_RESULT_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    NEXT_NONCE_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    obligations: _containers.RepeatedCompositeFieldContainer[Obligation]
    attestation_result: str
    receipt: Receipt
    next_nonce: bytes
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ..., obligations: _Optional[_Iterable[_Union[Obligation, _Mapping]]] = ..., attestation_result: _Optional[str] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., next_nonce: _Optional[bytes] = ...) -> None: ...

class ReturnLeaseRequest(_message.Message):
    __slots__ = ("lease_id", "zeroised", "signature")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    ZEROISED_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    zeroised: bool
    signature: bytes
    def __init__(self, lease_id: _Optional[str] = ..., zeroised: _Optional[bool] = ..., signature: _Optional[bytes] = ...) -> None: ...

class ReturnLeaseResponse(_message.Message):
    __slots__ = ("receipt",)
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    receipt: Receipt
    def __init__(self, receipt: _Optional[_Union[Receipt, _Mapping]] = ...) -> None: ...

class AssetUse(_message.Message):
    __slots__ = ("asset", "bytes_opened", "tokens_served", "bytes_served")
    ASSET_FIELD_NUMBER: _ClassVar[int]
    BYTES_OPENED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_SERVED_FIELD_NUMBER: _ClassVar[int]
    BYTES_SERVED_FIELD_NUMBER: _ClassVar[int]
    asset: _asset_ref_pb2.AssetRef
    bytes_opened: int
    tokens_served: int
    bytes_served: int
    def __init__(self, asset: _Optional[_Union[_asset_ref_pb2.AssetRef, _Mapping]] = ..., bytes_opened: _Optional[int] = ..., tokens_served: _Optional[int] = ..., bytes_served: _Optional[int] = ...) -> None: ...

class ReportUsageRequest(_message.Message):
    __slots__ = ("lease_id", "sequence", "uses", "signature")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    sequence: int
    uses: _containers.RepeatedCompositeFieldContainer[AssetUse]
    signature: bytes
    def __init__(self, lease_id: _Optional[str] = ..., sequence: _Optional[int] = ..., uses: _Optional[_Iterable[_Union[AssetUse, _Mapping]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class ReportUsageResponse(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...
