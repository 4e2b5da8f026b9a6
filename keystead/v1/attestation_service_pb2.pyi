import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from keystead.v1 import evidence_pb2 as _evidence_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetChallengeRequest(_message.Message):
    __slots__ = ("grant",)
    GRANT_FIELD_NUMBER: _ClassVar[int]
    grant: bytes
    def __init__(self, grant: _Optional[bytes] = ...) -> None: ...

class GetChallengeResponse(_message.Message):
    __slots__ = ("nonce", "expire_time", "broker")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    BROKER_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    expire_time: _timestamp_pb2.Timestamp
    broker: str
    def __init__(self, nonce: _Optional[bytes] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., broker: _Optional[str] = ...) -> None: ...

class AppraiseRequest(_message.Message):
    __slots__ = ("evidence", "grant")
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    evidence: _evidence_pb2.NodeEvidence
    grant: bytes
    def __init__(self, evidence: _Optional[_Union[_evidence_pb2.NodeEvidence, _Mapping]] = ..., grant: _Optional[bytes] = ...) -> None: ...

class AppraiseResponse(_message.Message):
    __slots__ = ("attestation_result", "expire_time", "node_id", "next_nonce")
    ATTESTATION_RESULT_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_NONCE_FIELD_NUMBER: _ClassVar[int]
    attestation_result: str
    expire_time: _timestamp_pb2.Timestamp
    node_id: str
    next_nonce: bytes
    def __init__(self, attestation_result: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., node_id: _Optional[str] = ..., next_nonce: _Optional[bytes] = ...) -> None: ...
