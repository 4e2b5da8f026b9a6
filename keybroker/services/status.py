"""The only map from errors to gRPC status codes and `google.rpc.ErrorInfo` (AIP-193).

The reason is the error's stable `code`; the domain is ``keystead``. A denial carries `keystead.v1.Denial` with every
reason. What a client has no use for stays in the broker's log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from attestation.errors import AttestationError, MalformedError, TrustAnchorError, UnsupportedError
from audit.errors import AuditError, EntryNotFoundError, QueryError
from keybroker import errors
from keybroker.denial import DeniedError
from keystead.binding import BindingError
from keystead.v1 import denial_pb2
from policy.errors import PolicyError

DOMAIN: Final = "keystead"

CODES: Final[Mapping[type[Exception], grpc.StatusCode]] = {
    AttestationError: grpc.StatusCode.INVALID_ARGUMENT,
    MalformedError: grpc.StatusCode.INVALID_ARGUMENT,
    UnsupportedError: grpc.StatusCode.INVALID_ARGUMENT,
    TrustAnchorError: grpc.StatusCode.FAILED_PRECONDITION,
    BindingError: grpc.StatusCode.INVALID_ARGUMENT,
    PolicyError: grpc.StatusCode.UNAVAILABLE,
    AuditError: grpc.StatusCode.INTERNAL,
    EntryNotFoundError: grpc.StatusCode.NOT_FOUND,
    QueryError: grpc.StatusCode.INVALID_ARGUMENT,
    DeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.KeybrokerError: grpc.StatusCode.INTERNAL,
    errors.StoreError: grpc.StatusCode.INTERNAL,
    errors.StoreUnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.StoreConflictError: grpc.StatusCode.ABORTED,
    errors.StoreOutcomeUnknownError: grpc.StatusCode.UNAVAILABLE,
    errors.StoreTimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.StoreOverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.StoreClosedError: grpc.StatusCode.UNAVAILABLE,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.StateConflictError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RequestMismatchError: grpc.StatusCode.ALREADY_EXISTS,
    errors.KeyManagementError: grpc.StatusCode.INTERNAL,
    errors.ChallengeError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ConfigError: grpc.StatusCode.INTERNAL,
    errors.AlreadyInitialisedError: grpc.StatusCode.INTERNAL,
    errors.NotAuthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.RoleError: grpc.StatusCode.PERMISSION_DENIED,
    errors.InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.GrantInvalidError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.PolicyUnavailableError: grpc.StatusCode.UNAVAILABLE,
}
"""The nearest base class decides, so a new error needs a line only where it differs from its parent."""

_HIDDEN: Final = frozenset({grpc.StatusCode.INTERNAL})
_UNEXPECTED: Final = "INTERNAL"


def code_of(error: Exception) -> grpc.StatusCode | None:
    """The gRPC status code for `error`; None where it is none of Keystead's errors."""
    for base in type(error).__mro__:
        if base in CODES:
            return CODES[base]
    return None


def to_status(error: Exception) -> tuple[grpc.StatusCode, str, bytes]:
    """Status code, message and the serialised `google.rpc.Status` (trailer ``grpc-status-details-bin``)."""
    code = code_of(error) or grpc.StatusCode.INTERNAL
    reason = getattr(error, "code", _UNEXPECTED) if code_of(error) else _UNEXPECTED
    message = str(error) if code not in _HIDDEN else "internal error; the broker's log has the detail"
    metadata: dict[str, str] = {}
    if isinstance(error, errors.InvalidRequestError):
        metadata["field"] = error.field
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    details = [_any(info)]
    if isinstance(error, DeniedError):
        details.append(
            _any(
                denial_pb2.Denial(
                    reasons=[
                        denial_pb2.DenialReason(
                            code=item.code,
                            field=item.field,
                            expected=item.expected,
                            actual=item.actual,
                            message=item.message,
                            remedy=item.remedy,
                        )
                        for item in error.reasons
                    ],
                    record_hash=error.record_hash,
                )
            )
        )
    number: int = code.value[0]
    status = status_pb2.Status(code=number, message=message, details=details)
    return code, message, status.SerializeToString()


def _any(message: error_details_pb2.ErrorInfo | denial_pb2.Denial) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
