import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SiteState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SITE_STATE_UNSPECIFIED: _ClassVar[SiteState]
    SITE_STATE_ACTIVE: _ClassVar[SiteState]
    SITE_STATE_SUSPENDED: _ClassVar[SiteState]
    SITE_STATE_RETIRED: _ClassVar[SiteState]
SITE_STATE_UNSPECIFIED: SiteState
SITE_STATE_ACTIVE: SiteState
SITE_STATE_SUSPENDED: SiteState
SITE_STATE_RETIRED: SiteState

class SignedStatement(_message.Message):
    __slots__ = ("statement", "signatures")
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    statement: bytes
    signatures: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, statement: _Optional[bytes] = ..., signatures: _Optional[_Iterable[str]] = ...) -> None: ...

class Site(_message.Message):
    __slots__ = ("site_id", "jurisdiction", "facility", "operator", "expire_time", "state", "serial", "start_time", "exposures", "certifications", "network_zone")
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    JURISDICTION_FIELD_NUMBER: _ClassVar[int]
    FACILITY_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPOSURES_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_ZONE_FIELD_NUMBER: _ClassVar[int]
    site_id: str
    jurisdiction: str
    facility: str
    operator: str
    expire_time: _timestamp_pb2.Timestamp
    state: SiteState
    serial: int
    start_time: _timestamp_pb2.Timestamp
    exposures: _containers.RepeatedScalarFieldContainer[str]
    certifications: _containers.RepeatedScalarFieldContainer[str]
    network_zone: str
    def __init__(self, site_id: _Optional[str] = ..., jurisdiction: _Optional[str] = ..., facility: _Optional[str] = ..., operator: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state: _Optional[_Union[SiteState, str]] = ..., serial: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., exposures: _Optional[_Iterable[str]] = ..., certifications: _Optional[_Iterable[str]] = ..., network_zone: _Optional[str] = ...) -> None: ...

class EnrolSiteRequest(_message.Message):
    __slots__ = ("request_id", "record")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    record: SignedStatement
    def __init__(self, request_id: _Optional[str] = ..., record: _Optional[_Union[SignedStatement, _Mapping]] = ...) -> None: ...

class EnrolSiteResponse(_message.Message):
    __slots__ = ("site",)
    SITE_FIELD_NUMBER: _ClassVar[int]
    site: Site
    def __init__(self, site: _Optional[_Union[Site, _Mapping]] = ...) -> None: ...

class RenewSiteRequest(_message.Message):
    __slots__ = ("request_id", "record")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    record: SignedStatement
    def __init__(self, request_id: _Optional[str] = ..., record: _Optional[_Union[SignedStatement, _Mapping]] = ...) -> None: ...

class RenewSiteResponse(_message.Message):
    __slots__ = ("site",)
    SITE_FIELD_NUMBER: _ClassVar[int]
    site: Site
    def __init__(self, site: _Optional[_Union[Site, _Mapping]] = ...) -> None: ...

class SuspendSiteRequest(_message.Message):
    __slots__ = ("request_id", "site_id", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    site_id: str
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., site_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class SuspendSiteResponse(_message.Message):
    __slots__ = ("site",)
    SITE_FIELD_NUMBER: _ClassVar[int]
    site: Site
    def __init__(self, site: _Optional[_Union[Site, _Mapping]] = ...) -> None: ...

class GetSiteRequest(_message.Message):
    __slots__ = ("site_id",)
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    site_id: str
    def __init__(self, site_id: _Optional[str] = ...) -> None: ...

class GetSiteResponse(_message.Message):
    __slots__ = ("site", "record")
    SITE_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    site: Site
    record: SignedStatement
    def __init__(self, site: _Optional[_Union[Site, _Mapping]] = ..., record: _Optional[_Union[SignedStatement, _Mapping]] = ...) -> None: ...

class ListSitesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSitesResponse(_message.Message):
    __slots__ = ("sites", "next_page_token")
    SITES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sites: _containers.RepeatedCompositeFieldContainer[Site]
    next_page_token: str
    def __init__(self, sites: _Optional[_Iterable[_Union[Site, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
