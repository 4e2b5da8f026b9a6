"""Errors of the node's side (RFC 9334's Attester), and the one map from gRPC statuses to them.

::

    AttesterError
    ├── CollectionError          evidence cannot be collected
    │   ├── NoTeeError               this machine has no TEE that gives evidence, or not to this process
    │   ├── EvidenceConflictError    somebody else asked through the same interface; the evidence is not ours
    │   ├── GpuEvidenceError         a GPU, its driver or its confidential mode gives no evidence
    │   └── SwitchEvidenceError      an NVSwitch, its library or its trusted mode gives no evidence
    ├── BrokerError              the broker did not do what was asked
    │   ├── AccessDeniedError        it decided "no"; `reasons` has every reason
    │   ├── RequestRefusedError      the request cannot be carried out as it stands; repeating it does not help
    │   ├── BrokerUnavailableError   no answer: not reached, overloaded, or failed; repeating it may help
    │   └── BadAnswerError           an answer that contradicts the request or the protocol
    ├── ObligationError          the lease comes with a duty that nobody on this node fulfils
    ├── CredentialError          a certificate, key or grant that cannot be used
    └── LeaseEndedError          the lease expired, was returned or was refused; its keys are gone

`AccessDeniedError` is an answer. Every other error means that there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from keystead.v1 import denial_pb2

DOMAIN: Final = "keystead"
_DETAILS: Final = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True, order=True)
class Reason:
    """One reason for a refusal, as the broker gives it (`keystead.v1.DenialReason`).

    Attributes:
        code: stable code.
        field: what was checked.
        expected: what the rule asks for.
        actual: what was found.
        message: the rule in words.
        remedy: what can be done about it.
        reference: whose word `expected` is; empty where it is the broker's own rule.
    """

    code: str
    field: str
    expected: str
    actual: str
    message: str
    remedy: str
    reference: str = ""


class AttesterError(Exception):
    """Base of this package's errors; `code` is stable, the text is for people."""

    code: ClassVar[str] = "ATTESTER_ERROR"


class CollectionError(AttesterError):
    """Evidence cannot be collected."""

    code: ClassVar[str] = "NO_EVIDENCE"


class NoTeeError(CollectionError):
    """This machine has no TEE that gives evidence, or not to this process."""

    code: ClassVar[str] = "NO_TEE"


class EvidenceConflictError(CollectionError):
    """Somebody else asked through the same interface meanwhile; the evidence is not for our request."""

    code: ClassVar[str] = "EVIDENCE_CONFLICT"


class GpuEvidenceError(CollectionError):
    """A GPU, its driver or its confidential mode gives no evidence."""

    code: ClassVar[str] = "NO_GPU_EVIDENCE"


class SwitchEvidenceError(CollectionError):
    """An NVSwitch, its library or its trusted NVLink mode gives no evidence."""

    code: ClassVar[str] = "NO_SWITCH_EVIDENCE"


class BrokerError(AttesterError):
    """The broker did not do what was asked.

    Attributes:
        reason: the broker's own stable code (`google.rpc.ErrorInfo.reason`); empty where it gave none.
    """

    code: ClassVar[str] = "BROKER_ERROR"

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class AccessDeniedError(BrokerError):
    """The broker decided "no".

    Attributes:
        reasons: every reason at once, in the broker's order. Empty only where the caller's certificate has not the
            role for the call, so that nothing was decided about it.
        record_hash: the hash of the refusal's audit record; empty where it was not recorded by itself.
    """

    code: ClassVar[str] = "ACCESS_DENIED"

    def __init__(
        self, message: str, *, reason: str = "", reasons: tuple[Reason, ...] = (), record_hash: bytes = b""
    ) -> None:
        super().__init__(message, reason=reason)
        self.reasons = reasons
        self.record_hash = record_hash


class RequestRefusedError(BrokerError):
    """The request cannot be carried out as it stands; repeating it does not help."""

    code: ClassVar[str] = "REQUEST_REFUSED"


class BrokerUnavailableError(BrokerError):
    """No answer: the broker was not reached in time, is overloaded, or failed. Repeating the request may help."""

    code: ClassVar[str] = "BROKER_UNAVAILABLE"


class BadAnswerError(BrokerError):
    """The broker's answer contradicts the request or the protocol; nothing of it is used."""

    code: ClassVar[str] = "BAD_BROKER_ANSWER"


class ObligationError(AttesterError):
    """The lease comes with a duty that nobody on this node fulfils; its keys were erased."""

    code: ClassVar[str] = "UNKNOWN_OBLIGATION"


class CredentialError(AttesterError):
    """A certificate, key or grant that cannot be used as it stands."""

    code: ClassVar[str] = "BAD_CREDENTIAL"


class LeaseEndedError(AttesterError):
    """The lease expired, was returned or was refused; its keys are gone from memory."""

    code: ClassVar[str] = "LEASE_ENDED"


_REFUSED: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)


def from_rpc_error(error: grpc.RpcError) -> BrokerError:
    """The typed error for a failed call: its status, its `google.rpc.ErrorInfo` and its `keystead.v1.Denial`.

    Details that cannot be decoded change nothing about the status, which decides the class.
    """
    # What the library raises is an RpcError and a Call; its types do not say so.
    call: object = error
    if not isinstance(call, grpc.Call):
        return BrokerUnavailableError(f"the call failed without a status: {error}")
    status = call.code()
    message = call.details() or status.name
    reason, denial = _details(call)
    if status is grpc.StatusCode.PERMISSION_DENIED:
        return AccessDeniedError(
            message,
            reason=reason,
            reasons=tuple(
                Reason(
                    code=item.code,
                    field=item.field,
                    expected=item.expected,
                    actual=item.actual,
                    message=item.message,
                    remedy=item.remedy,
                    reference=item.reference,
                )
                for item in denial.reasons
            ),
            record_hash=denial.record_hash,
        )
    text = f"{message} ({reason or status.name})"
    if status in _REFUSED:
        return RequestRefusedError(text, reason=reason)
    return BrokerUnavailableError(text, reason=reason)


def _details(error: grpc.Call) -> tuple[str, denial_pb2.Denial]:
    reason, denial = "", denial_pb2.Denial()
    for name, value in error.trailing_metadata() or ():
        if name != _DETAILS or not isinstance(value, bytes):
            continue
        try:
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
                    reason = info.reason
                elif detail.Is(denial.DESCRIPTOR):
                    detail.Unpack(denial)
        except DecodeError:
            return "", denial_pb2.Denial()
    return reason, denial
