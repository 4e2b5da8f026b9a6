import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from keystead.v1 import asset_ref_pb2 as _asset_ref_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_OPEN: _ClassVar[JobState]
    JOB_STATE_CLOSED: _ClassVar[JobState]
    JOB_STATE_PREEMPTED: _ClassVar[JobState]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_OPEN: JobState
JOB_STATE_CLOSED: JobState
JOB_STATE_PREEMPTED: JobState

class JobGrant(_message.Message):
    __slots__ = ("grant", "signature", "key_id")
    GRANT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    grant: bytes
    signature: bytes
    key_id: str
    def __init__(self, grant: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., key_id: _Optional[str] = ...) -> None: ...

class BudgetUse(_message.Message):
    __slots__ = ("asset", "name", "scope", "limit", "spent")
    ASSET_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    asset: _asset_ref_pb2.AssetRef
    name: str
    scope: str
    limit: int
    spent: int
    def __init__(self, asset: _Optional[_Union[_asset_ref_pb2.AssetRef, _Mapping]] = ..., name: _Optional[str] = ..., scope: _Optional[str] = ..., limit: _Optional[int] = ..., spent: _Optional[int] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("job_uid", "grant_id", "tenant", "state", "assets", "purposes", "expire_time", "live_leases", "start_time", "project", "user", "stage", "image", "network", "attempt", "budgets", "uses")
    class BudgetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    JOB_UID_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ASSETS_FIELD_NUMBER: _ClassVar[int]
    PURPOSES_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    LIVE_LEASES_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    job_uid: str
    grant_id: str
    tenant: str
    state: JobState
    assets: _containers.RepeatedCompositeFieldContainer[_asset_ref_pb2.AssetRef]
    purposes: _containers.RepeatedScalarFieldContainer[str]
    expire_time: _timestamp_pb2.Timestamp
    live_leases: int
    start_time: _timestamp_pb2.Timestamp
    project: str
    user: str
    stage: str
    image: str
    network: str
    attempt: int
    budgets: _containers.ScalarMap[str, int]
    uses: _containers.RepeatedCompositeFieldContainer[BudgetUse]
    def __init__(self, job_uid: _Optional[str] = ..., grant_id: _Optional[str] = ..., tenant: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., assets: _Optional[_Iterable[_Union[_asset_ref_pb2.AssetRef, _Mapping]]] = ..., purposes: _Optional[_Iterable[str]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., live_leases: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., project: _Optional[str] = ..., user: _Optional[str] = ..., stage: _Optional[str] = ..., image: _Optional[str] = ..., network: _Optional[str] = ..., attempt: _Optional[int] = ..., budgets: _Optional[_Mapping[str, int]] = ..., uses: _Optional[_Iterable[_Union[BudgetUse, _Mapping]]] = ...) -> None: ...

class AuthorizeJobRequest(_message.Message):
    __slots__ = ("request_id", "job_uid", "assets", "purposes", "nodes", "sites", "node_ceiling", "expire_time", "start_time", "project", "user", "stage", "image", "network", "budgets")
    class BudgetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_UID_FIELD_NUMBER: _ClassVar[int]
    ASSETS_FIELD_NUMBER: _ClassVar[int]
    PURPOSES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    NODE_CEILING_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    job_uid: str
    assets: _containers.RepeatedCompositeFieldContainer[_asset_ref_pb2.AssetRef]
    purposes: _containers.RepeatedScalarFieldContainer[str]
    nodes: _containers.RepeatedScalarFieldContainer[str]
    sites: _containers.RepeatedScalarFieldContainer[str]
    node_ceiling: int
    expire_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    project: str
    user: str
    stage: str
    image: str
    network: str
    budgets: _containers.ScalarMap[str, int]
    def __init__(self, request_id: _Optional[str] = ..., job_uid: _Optional[str] = ..., assets: _Optional[_Iterable[_Union[_asset_ref_pb2.AssetRef, _Mapping]]] = ..., purposes: _Optional[_Iterable[str]] = ..., nodes: _Optional[_Iterable[str]] = ..., sites: _Optional[_Iterable[str]] = ..., node_ceiling: _Optional[int] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., project: _Optional[str] = ..., user: _Optional[str] = ..., stage: _Optional[str] = ..., image: _Optional[str] = ..., network: _Optional[str] = ..., budgets: _Optional[_Mapping[str, int]] = ...) -> None: ...

class AuthorizeJobResponse(_message.Message):
    __slots__ = ("grant", "nonce", "nonce_expire_time", "broker")
    GRANT_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    NONCE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    BROKER_FIELD_NUMBER: _ClassVar[int]
    grant: JobGrant
    nonce: bytes
    nonce_expire_time: _timestamp_pb2.Timestamp
    broker: str
    def __init__(self, grant: _Optional[_Union[JobGrant, _Mapping]] = ..., nonce: _Optional[bytes] = ..., nonce_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., broker: _Optional[str] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("job_uid",)
    JOB_UID_FIELD_NUMBER: _ClassVar[int]
    job_uid: str
    def __init__(self, job_uid: _Optional[str] = ...) -> None: ...

class GetJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class EndJobRequest(_message.Message):
    __slots__ = ("request_id", "job_uid")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_UID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    job_uid: str
    def __init__(self, request_id: _Optional[str] = ..., job_uid: _Optional[str] = ...) -> None: ...

class EndJobResponse(_message.Message):
    __slots__ = ("job", "revoked_leases")
    JOB_FIELD_NUMBER: _ClassVar[int]
    REVOKED_LEASES_FIELD_NUMBER: _ClassVar[int]
    job: Job
    revoked_leases: int
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., revoked_leases: _Optional[int] = ...) -> None: ...

class ExtendJobRequest(_message.Message):
    __slots__ = ("request_id", "job_uid", "expire_time")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_UID_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    job_uid: str
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, request_id: _Optional[str] = ..., job_uid: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ExtendJobResponse(_message.Message):
    __slots__ = ("grant", "nonce", "nonce_expire_time", "broker")
    GRANT_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    NONCE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    BROKER_FIELD_NUMBER: _ClassVar[int]
    grant: JobGrant
    nonce: bytes
    nonce_expire_time: _timestamp_pb2.Timestamp
    broker: str
    def __init__(self, grant: _Optional[_Union[JobGrant, _Mapping]] = ..., nonce: _Optional[bytes] = ..., nonce_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., broker: _Optional[str] = ...) -> None: ...

class PreemptJobRequest(_message.Message):
    __slots__ = ("request_id", "job_uid")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_UID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    job_uid: str
    def __init__(self, request_id: _Optional[str] = ..., job_uid: _Optional[str] = ...) -> None: ...

class PreemptJobResponse(_message.Message):
    __slots__ = ("job", "revoked_leases")
    JOB_FIELD_NUMBER: _ClassVar[int]
    REVOKED_LEASES_FIELD_NUMBER: _ClassVar[int]
    job: Job
    revoked_leases: int
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ..., revoked_leases: _Optional[int] = ...) -> None: ...

class RequeueJobRequest(_message.Message):
    __slots__ = ("request_id", "job_uid", "expire_time", "start_time")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_UID_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    job_uid: str
    expire_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    def __init__(self, request_id: _Optional[str] = ..., job_uid: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RequeueJobResponse(_message.Message):
    __slots__ = ("grant", "nonce", "nonce_expire_time", "broker", "attempt", "revoked_leases")
    GRANT_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    NONCE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    BROKER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REVOKED_LEASES_FIELD_NUMBER: _ClassVar[int]
    grant: JobGrant
    nonce: bytes
    nonce_expire_time: _timestamp_pb2.Timestamp
    broker: str
    attempt: int
    revoked_leases: int
    def __init__(self, grant: _Optional[_Union[JobGrant, _Mapping]] = ..., nonce: _Optional[bytes] = ..., nonce_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., broker: _Optional[str] = ..., attempt: _Optional[int] = ..., revoked_leases: _Optional[int] = ...) -> None: ...
