import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Assurance(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ASSURANCE_UNSPECIFIED: _ClassVar[Assurance]
    ASSURANCE_SIMULATED: _ClassVar[Assurance]
    ASSURANCE_CPU: _ClassVar[Assurance]
    ASSURANCE_CPU_AND_DEVICES: _ClassVar[Assurance]
ASSURANCE_UNSPECIFIED: Assurance
ASSURANCE_SIMULATED: Assurance
ASSURANCE_CPU: Assurance
ASSURANCE_CPU_AND_DEVICES: Assurance

class AreaClause(_message.Message):
    __slots__ = ("areas",)
    AREAS_FIELD_NUMBER: _ClassVar[int]
    areas: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, areas: _Optional[_Iterable[str]] = ...) -> None: ...

class Areas(_message.Message):
    __slots__ = ("allowed", "forbidden")
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    FORBIDDEN_FIELD_NUMBER: _ClassVar[int]
    allowed: _containers.RepeatedCompositeFieldContainer[AreaClause]
    forbidden: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, allowed: _Optional[_Iterable[_Union[AreaClause, _Mapping]]] = ..., forbidden: _Optional[_Iterable[str]] = ...) -> None: ...

class NameSet(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class ObligationParams(_message.Message):
    __slots__ = ("params",)
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    params: _containers.ScalarMap[str, int]
    def __init__(self, params: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Constraints(_message.Message):
    __slots__ = ("classification", "purposes", "residency", "exposure", "sites", "retain_until", "assurance", "node_ceiling", "copy_ceiling", "projects", "users", "stages", "images", "networks", "budgets", "obligations")
    class BudgetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class ObligationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ObligationParams
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ObligationParams, _Mapping]] = ...) -> None: ...
    CLASSIFICATION_FIELD_NUMBER: _ClassVar[int]
    PURPOSES_FIELD_NUMBER: _ClassVar[int]
    RESIDENCY_FIELD_NUMBER: _ClassVar[int]
    EXPOSURE_FIELD_NUMBER: _ClassVar[int]
    SITES_FIELD_NUMBER: _ClassVar[int]
    RETAIN_UNTIL_FIELD_NUMBER: _ClassVar[int]
    ASSURANCE_FIELD_NUMBER: _ClassVar[int]
    NODE_CEILING_FIELD_NUMBER: _ClassVar[int]
    COPY_CEILING_FIELD_NUMBER: _ClassVar[int]
    PROJECTS_FIELD_NUMBER: _ClassVar[int]
    USERS_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    classification: int
    purposes: NameSet
    residency: Areas
    exposure: Areas
    sites: NameSet
    retain_until: _timestamp_pb2.Timestamp
    assurance: Assurance
    node_ceiling: int
    copy_ceiling: int
    projects: NameSet
    users: NameSet
    stages: NameSet
    images: NameSet
    networks: NameSet
    budgets: _containers.ScalarMap[str, int]
    obligations: _containers.MessageMap[str, ObligationParams]
    def __init__(self, classification: _Optional[int] = ..., purposes: _Optional[_Union[NameSet, _Mapping]] = ..., residency: _Optional[_Union[Areas, _Mapping]] = ..., exposure: _Optional[_Union[Areas, _Mapping]] = ..., sites: _Optional[_Union[NameSet, _Mapping]] = ..., retain_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., assurance: _Optional[_Union[Assurance, str]] = ..., node_ceiling: _Optional[int] = ..., copy_ceiling: _Optional[int] = ..., projects: _Optional[_Union[NameSet, _Mapping]] = ..., users: _Optional[_Union[NameSet, _Mapping]] = ..., stages: _Optional[_Union[NameSet, _Mapping]] = ..., images: _Optional[_Union[NameSet, _Mapping]] = ..., networks: _Optional[_Union[NameSet, _Mapping]] = ..., budgets: _Optional[_Mapping[str, int]] = ..., obligations: _Optional[_Mapping[str, ObligationParams]] = ...) -> None: ...
