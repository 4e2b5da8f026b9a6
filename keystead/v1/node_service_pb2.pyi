from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_STATE_UNSPECIFIED: _ClassVar[NodeState]
    NODE_STATE_ACTIVE: _ClassVar[NodeState]
    NODE_STATE_QUARANTINED: _ClassVar[NodeState]
    NODE_STATE_RETIRED: _ClassVar[NodeState]

class NodeCustody(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_CUSTODY_UNSPECIFIED: _ClassVar[NodeCustody]
    NODE_CUSTODY_IN_TRANSIT: _ClassVar[NodeCustody]
    NODE_CUSTODY_INSTALLED: _ClassVar[NodeCustody]
    NODE_CUSTODY_MAINTENANCE: _ClassVar[NodeCustody]
    NODE_CUSTODY_DECOMMISSIONED: _ClassVar[NodeCustody]
NODE_STATE_UNSPECIFIED: NodeState
NODE_STATE_ACTIVE: NodeState
NODE_STATE_QUARANTINED: NodeState
NODE_STATE_RETIRED: NodeState
NODE_CUSTODY_UNSPECIFIED: NodeCustody
NODE_CUSTODY_IN_TRANSIT: NodeCustody
NODE_CUSTODY_INSTALLED: NodeCustody
NODE_CUSTODY_MAINTENANCE: NodeCustody
NODE_CUSTODY_DECOMMISSIONED: NodeCustody

class DeviceIdentity(_message.Message):
    __slots__ = ("slot", "kind", "value")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    slot: str
    kind: str
    value: str
    def __init__(self, slot: _Optional[str] = ..., kind: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("node_id", "site_id", "devices", "state", "partition", "custody", "rack", "power_zone", "cooling_zone", "network_zone")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    CUSTODY_FIELD_NUMBER: _ClassVar[int]
    RACK_FIELD_NUMBER: _ClassVar[int]
    POWER_ZONE_FIELD_NUMBER: _ClassVar[int]
    COOLING_ZONE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_ZONE_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    site_id: str
    devices: _containers.RepeatedCompositeFieldContainer[DeviceIdentity]
    state: NodeState
    partition: str
    custody: NodeCustody
    rack: str
    power_zone: str
    cooling_zone: str
    network_zone: str
    def __init__(self, node_id: _Optional[str] = ..., site_id: _Optional[str] = ..., devices: _Optional[_Iterable[_Union[DeviceIdentity, _Mapping]]] = ..., state: _Optional[_Union[NodeState, str]] = ..., partition: _Optional[str] = ..., custody: _Optional[_Union[NodeCustody, str]] = ..., rack: _Optional[str] = ..., power_zone: _Optional[str] = ..., cooling_zone: _Optional[str] = ..., network_zone: _Optional[str] = ...) -> None: ...

class EnrolNodeRequest(_message.Message):
    __slots__ = ("request_id", "node")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    node: Node
    def __init__(self, request_id: _Optional[str] = ..., node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class EnrolNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class SetNodeStateRequest(_message.Message):
    __slots__ = ("request_id", "node_id", "state", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    node_id: str
    state: NodeState
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., node_id: _Optional[str] = ..., state: _Optional[_Union[NodeState, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class SetNodeStateResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class SetNodeCustodyRequest(_message.Message):
    __slots__ = ("request_id", "node_id", "custody", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTODY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    node_id: str
    custody: NodeCustody
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., node_id: _Optional[str] = ..., custody: _Optional[_Union[NodeCustody, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class SetNodeCustodyResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class MoveNodeRequest(_message.Message):
    __slots__ = ("request_id", "node_id", "site_id", "rack", "power_zone", "cooling_zone", "network_zone", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SITE_ID_FIELD_NUMBER: _ClassVar[int]
    RACK_FIELD_NUMBER: _ClassVar[int]
    POWER_ZONE_FIELD_NUMBER: _ClassVar[int]
    COOLING_ZONE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_ZONE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    node_id: str
    site_id: str
    rack: str
    power_zone: str
    cooling_zone: str
    network_zone: str
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., node_id: _Optional[str] = ..., site_id: _Optional[str] = ..., rack: _Optional[str] = ..., power_zone: _Optional[str] = ..., cooling_zone: _Optional[str] = ..., network_zone: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class MoveNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class ChangeNodeDevicesRequest(_message.Message):
    __slots__ = ("request_id", "node_id", "remove", "add", "reason")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    ADD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    node_id: str
    remove: _containers.RepeatedScalarFieldContainer[str]
    add: _containers.RepeatedCompositeFieldContainer[DeviceIdentity]
    reason: str
    def __init__(self, request_id: _Optional[str] = ..., node_id: _Optional[str] = ..., remove: _Optional[_Iterable[str]] = ..., add: _Optional[_Iterable[_Union[DeviceIdentity, _Mapping]]] = ..., reason: _Optional[str] = ...) -> None: ...

class ChangeNodeDevicesResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: Node
    def __init__(self, node: _Optional[_Union[Node, _Mapping]] = ...) -> None: ...

class ImportNodesRequest(_message.Message):
    __slots__ = ("start", "nodes")
    START_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    start: ImportStart
    nodes: ImportedNodes
    def __init__(self, start: _Optional[_Union[ImportStart, _Mapping]] = ..., nodes: _Optional[_Union[ImportedNodes, _Mapping]] = ...) -> None: ...

class ImportStart(_message.Message):
    __slots__ = ("request_id", "dry_run")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    dry_run: bool
    def __init__(self, request_id: _Optional[str] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class ImportedNodes(_message.Message):
    __slots__ = ("nodes",)
    NODES_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[ImportedNode]
    def __init__(self, nodes: _Optional[_Iterable[_Union[ImportedNode, _Mapping]]] = ...) -> None: ...

class ImportedNode(_message.Message):
    __slots__ = ("line", "node", "device_lines")
    LINE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_LINES_FIELD_NUMBER: _ClassVar[int]
    line: int
    node: Node
    device_lines: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, line: _Optional[int] = ..., node: _Optional[_Union[Node, _Mapping]] = ..., device_lines: _Optional[_Iterable[int]] = ...) -> None: ...

class ImportProblem(_message.Message):
    __slots__ = ("line", "field", "code", "message")
    LINE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    line: int
    field: str
    code: str
    message: str
    def __init__(self, line: _Optional[int] = ..., field: _Optional[str] = ..., code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class ImportNodesResponse(_message.Message):
    __slots__ = ("nodes", "devices", "problems", "problem_count")
    NODES_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    nodes: int
    devices: int
    problems: _containers.RepeatedCompositeFieldContainer[ImportProblem]
    problem_count: int
    def __init__(self, nodes: _Optional[int] = ..., devices: _Optional[int] = ..., problems: _Optional[_Iterable[_Union[ImportProblem, _Mapping]]] = ..., problem_count: _Optional[int] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListNodesResponse(_message.Message):
    __slots__ = ("nodes", "next_page_token")
    NODES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    next_page_token: str
    def __init__(self, nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
