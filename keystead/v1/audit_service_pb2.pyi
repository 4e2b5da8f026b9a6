import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AuditRecord(_message.Message):
    __slots__ = ("leaf_index", "payload", "leaf_hash")
    LEAF_INDEX_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    LEAF_HASH_FIELD_NUMBER: _ClassVar[int]
    leaf_index: int
    payload: bytes
    leaf_hash: bytes
    def __init__(self, leaf_index: _Optional[int] = ..., payload: _Optional[bytes] = ..., leaf_hash: _Optional[bytes] = ...) -> None: ...

class QueryRecordsRequest(_message.Message):
    __slots__ = ("asset", "job_uid", "node_id", "hardware", "site_id", "jurisdiction", "kind", "result", "reason", "start_time", "end_time", "page_size", "page_token", "tenant", "actor", "policy_digest", "lease_id", "user", "alive_at")
    ASSET_FIELD_NUMBER: _ClassVar[int]
    JOB_UID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    HARDWARE_FIELD_NUMBER: _ClassVar[int]
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    JURISDICTION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    POLICY_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    ALIVE_AT_FIELD_NUMBER: _ClassVar[int]
    asset: str
    job_uid: str
    node_id: str
    hardware: str
    site_id: str
    jurisdiction: str
    kind: str
    result: str
    reason: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    page_size: int
    page_token: str
    tenant: str
    actor: str
    policy_digest: str
    lease_id: str
    user: str
    alive_at: _timestamp_pb2.Timestamp
    def __init__(self, asset: _Optional[str] = ..., job_uid: _Optional[str] = ..., node_id: _Optional[str] = ..., hardware: _Optional[str] = ..., site_id: _Optional[str] = ..., jurisdiction: _Optional[str] = ..., kind: _Optional[str] = ..., result: _Optional[str] = ..., reason: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., tenant: _Optional[str] = ..., actor: _Optional[str] = ..., policy_digest: _Optional[str] = ..., lease_id: _Optional[str] = ..., user: _Optional[str] = ..., alive_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class QueryRecordsResponse(_message.Message):
    __slots__ = ("records", "next_page_token")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[AuditRecord]
    next_page_token: str
    def __init__(self, records: _Optional[_Iterable[_Union[AuditRecord, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class StreamRecordsRequest(_message.Message):
    __slots__ = ("query", "follow", "newest")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    query: QueryRecordsRequest
    follow: bool
    newest: int
    def __init__(self, query: _Optional[_Union[QueryRecordsRequest, _Mapping]] = ..., follow: _Optional[bool] = ..., newest: _Optional[int] = ...) -> None: ...

class StreamRecordsResponse(_message.Message):
    __slots__ = ("records", "resume_token", "complete")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[AuditRecord]
    resume_token: str
    complete: bool
    def __init__(self, records: _Optional[_Iterable[_Union[AuditRecord, _Mapping]]] = ..., resume_token: _Optional[str] = ..., complete: _Optional[bool] = ...) -> None: ...

class GetCheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCheckpointResponse(_message.Message):
    __slots__ = ("checkpoint", "verifier_key")
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_KEY_FIELD_NUMBER: _ClassVar[int]
    checkpoint: str
    verifier_key: str
    def __init__(self, checkpoint: _Optional[str] = ..., verifier_key: _Optional[str] = ...) -> None: ...

class ProveRecordRequest(_message.Message):
    __slots__ = ("leaf_index", "old_checkpoint")
    LEAF_INDEX_FIELD_NUMBER: _ClassVar[int]
    OLD_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    leaf_index: int
    old_checkpoint: str
    def __init__(self, leaf_index: _Optional[int] = ..., old_checkpoint: _Optional[str] = ...) -> None: ...

class ProveRecordResponse(_message.Message):
    __slots__ = ("bundle",)
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    bundle: bytes
    def __init__(self, bundle: _Optional[bytes] = ...) -> None: ...

class GetAppraisalRequest(_message.Message):
    __slots__ = ("leaf_index", "leaf_hash", "with_today")
    LEAF_INDEX_FIELD_NUMBER: _ClassVar[int]
    LEAF_HASH_FIELD_NUMBER: _ClassVar[int]
    WITH_TODAY_FIELD_NUMBER: _ClassVar[int]
    leaf_index: int
    leaf_hash: bytes
    with_today: bool
    def __init__(self, leaf_index: _Optional[int] = ..., leaf_hash: _Optional[bytes] = ..., with_today: _Optional[bool] = ...) -> None: ...

class GetAppraisalResponse(_message.Message):
    __slots__ = ("package", "today")
    PACKAGE_FIELD_NUMBER: _ClassVar[int]
    TODAY_FIELD_NUMBER: _ClassVar[int]
    package: bytes
    today: bytes
    def __init__(self, package: _Optional[bytes] = ..., today: _Optional[bytes] = ...) -> None: ...

class GetEvidencePackageRequest(_message.Message):
    __slots__ = ("asset", "tenant", "start_time", "end_time", "old_checkpoint")
    ASSET_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    OLD_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    asset: str
    tenant: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    old_checkpoint: str
    def __init__(self, asset: _Optional[str] = ..., tenant: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., old_checkpoint: _Optional[str] = ...) -> None: ...

class GetEvidencePackageResponse(_message.Message):
    __slots__ = ("package",)
    PACKAGE_FIELD_NUMBER: _ClassVar[int]
    package: bytes
    def __init__(self, package: _Optional[bytes] = ...) -> None: ...

class EraseRecordsRequest(_message.Message):
    __slots__ = ("request_id", "tenant", "user", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    tenant: str
    user: str
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., tenant: _Optional[str] = ..., user: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class EraseRecordsResponse(_message.Message):
    __slots__ = ("erasure", "keys", "records", "leaf_hash", "cleared")
    ERASURE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    LEAF_HASH_FIELD_NUMBER: _ClassVar[int]
    CLEARED_FIELD_NUMBER: _ClassVar[int]
    erasure: int
    keys: int
    records: int
    leaf_hash: bytes
    cleared: bool
    def __init__(self, erasure: _Optional[int] = ..., keys: _Optional[int] = ..., records: _Optional[int] = ..., leaf_hash: _Optional[bytes] = ..., cleared: _Optional[bool] = ...) -> None: ...
