import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from keystead.v1 import asset_ref_pb2 as _asset_ref_pb2
from keystead.v1 import denial_pb2 as _denial_pb2
from keystead.v1 import job_service_pb2 as _job_service_pb2
from keystead.v1 import lease_service_pb2 as _lease_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PlanPlacementRequest(_message.Message):
    __slots__ = ("job", "job_uid", "page_size", "page_token")
    JOB_FIELD_NUMBER: _ClassVar[int]
    JOB_UID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    job: _job_service_pb2.AuthorizeJobRequest
    job_uid: str
    page_size: int
    page_token: str
    def __init__(self, job: _Optional[_Union[_job_service_pb2.AuthorizeJobRequest, _Mapping]] = ..., job_uid: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class IneligibleNodes(_message.Message):
    __slots__ = ("nodes", "example", "reasons")
    NODES_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    nodes: int
    example: str
    reasons: _containers.RepeatedCompositeFieldContainer[_denial_pb2.DenialReason]
    def __init__(self, nodes: _Optional[int] = ..., example: _Optional[str] = ..., reasons: _Optional[_Iterable[_Union[_denial_pb2.DenialReason, _Mapping]]] = ...) -> None: ...

class SitePlacement(_message.Message):
    __slots__ = ("site_id", "jurisdiction", "nodes", "eligible", "attested", "ineligible", "untold")
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    JURISDICTION_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    ATTESTED_FIELD_NUMBER: _ClassVar[int]
    INELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    UNTOLD_FIELD_NUMBER: _ClassVar[int]
    site_id: str
    jurisdiction: str
    nodes: int
    eligible: int
    attested: int
    ineligible: _containers.RepeatedCompositeFieldContainer[IneligibleNodes]
    untold: int
    def __init__(self, site_id: _Optional[str] = ..., jurisdiction: _Optional[str] = ..., nodes: _Optional[int] = ..., eligible: _Optional[int] = ..., attested: _Optional[int] = ..., ineligible: _Optional[_Iterable[_Union[IneligibleNodes, _Mapping]]] = ..., untold: _Optional[int] = ...) -> None: ...

class PlanPlacementResponse(_message.Message):
    __slots__ = ("reasons", "sites", "next_page_token")
    REASONS_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    reasons: _containers.RepeatedCompositeFieldContainer[_denial_pb2.DenialReason]
    sites: _containers.RepeatedCompositeFieldContainer[SitePlacement]
    next_page_token: str
    def __init__(self, reasons: _Optional[_Iterable[_Union[_denial_pb2.DenialReason, _Mapping]]] = ..., sites: _Optional[_Iterable[_Union[SitePlacement, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WouldReleaseRequest(_message.Message):
    __slots__ = ("job", "job_uid", "node_id", "assets")
    JOB_FIELD_NUMBER: _ClassVar[int]
    JOB_UID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ASSETS_FIELD_NUMBER: _ClassVar[int]
    job: _job_service_pb2.AuthorizeJobRequest
    job_uid: str
    node_id: str
    assets: _containers.RepeatedCompositeFieldContainer[_asset_ref_pb2.AssetRef]
    def __init__(self, job: _Optional[_Union[_job_service_pb2.AuthorizeJobRequest, _Mapping]] = ..., job_uid: _Optional[str] = ..., node_id: _Optional[str] = ..., assets: _Optional[_Iterable[_Union[_asset_ref_pb2.AssetRef, _Mapping]]] = ...) -> None: ...

class WouldReleaseResponse(_message.Message):
    __slots__ = ("would_release", "reasons", "obligations", "appraise_time", "record_hash")
    WOULD_RELEASE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    APPRAISE_TIME_FIELD_NUMBER: _ClassVar[int]
    RECORD_HASH_FIELD_NUMBER: _ClassVar[int]
    would_release: bool
    reasons: _containers.RepeatedCompositeFieldContainer[_denial_pb2.DenialReason]
    obligations: _containers.RepeatedCompositeFieldContainer[_lease_service_pb2.Obligation]
    appraise_time: _timestamp_pb2.Timestamp
    record_hash: bytes
    def __init__(self, would_release: _Optional[bool] = ..., reasons: _Optional[_Iterable[_Union[_denial_pb2.DenialReason, _Mapping]]] = ..., obligations: _Optional[_Iterable[_Union[_lease_service_pb2.Obligation, _Mapping]]] = ..., appraise_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., record_hash: _Optional[bytes] = ...) -> None: ...
