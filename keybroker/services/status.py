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

from attestation.errors import AttestationError, ManifestError, ResultError, TrustAnchorError
from audit.errors import (
    AuditError,
    EntryNotFoundError,
    ErasureError,
    KeyringError,
    QueryError,
    RecordError,
    UnwitnessedError,
)
from keybroker import errors
from keybroker.denial import DeniedError, Reason
from keystead.binding import BindingError, UnwrapError
from keystead.v1 import denial_pb2
from policy.errors import PolicyError, PolicyInputError

DOMAIN: Final = "keystead"

CODES: Final[Mapping[type[Exception], grpc.StatusCode]] = {
    AttestationError: grpc.StatusCode.INVALID_ARGUMENT,
    TrustAnchorError: grpc.StatusCode.FAILED_PRECONDITION,
    ManifestError: grpc.StatusCode.INTERNAL,  # reference values are the broker's own
    ResultError: grpc.StatusCode.INVALID_ARGUMENT,
    BindingError: grpc.StatusCode.INVALID_ARGUMENT,
    UnwrapError: grpc.StatusCode.INVALID_ARGUMENT,
    PolicyError: grpc.StatusCode.UNAVAILABLE,
    PolicyInputError: grpc.StatusCode.INVALID_ARGUMENT,  # what the request says cannot be put before the policy
    AuditError: grpc.StatusCode.INTERNAL,
    EntryNotFoundError: grpc.StatusCode.NOT_FOUND,
    QueryError: grpc.StatusCode.INVALID_ARGUMENT,
    UnwitnessedError: grpc.StatusCode.UNAVAILABLE,
    KeyringError: grpc.StatusCode.UNAVAILABLE,
    ErasureError: grpc.StatusCode.FAILED_PRECONDITION,
    RecordError: grpc.StatusCode.INVALID_ARGUMENT,  # the request holds what no record may; the text repeats no value
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
    errors.DecisionStaleError: grpc.StatusCode.ABORTED,
    errors.RequestMismatchError: grpc.StatusCode.ALREADY_EXISTS,
    errors.KeyManagementError: grpc.StatusCode.INTERNAL,
    errors.ChallengeError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ConfigError: grpc.StatusCode.INTERNAL,
    errors.AlreadyInitialisedError: grpc.StatusCode.INTERNAL,
    errors.NotAuthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.RoleError: grpc.StatusCode.PERMISSION_DENIED,
    errors.InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.LineageTooLargeError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NothingGrantedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StatementError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.SignaturesMissingError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StatementExpiredError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DeclassificationStaleError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.GrantInvalidError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.StreamsTakenError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NoAppraisalError: grpc.StatusCode.NOT_FOUND,
    errors.WitnessError: grpc.StatusCode.UNAVAILABLE,
    errors.PolicyUnavailableError: grpc.StatusCode.UNAVAILABLE,
}
"""The nearest base class decides, so a new error needs a line only where it differs from its parent."""

_HIDDEN: Final = frozenset({grpc.StatusCode.INTERNAL})
_UNEXPECTED: Final = "INTERNAL"

MAX_MESSAGE: Final = 512
"""Characters of a status message."""

MAX_DENIAL: Final = 4096
"""Bytes of a denial. Status, message and details are trailing metadata, of which a gRPC client takes 8 KiB unless it
says otherwise (grpc.max_metadata_size), base64 included where a proxy encodes it."""

_MAX_VALUE: Final = 160
_REASON_OVERHEAD: Final = 256


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
    message = (
        _clip(str(error), MAX_MESSAGE) if code not in _HIDDEN else "internal error; the broker's log has the detail"
    )
    metadata: dict[str, str] = {}
    if isinstance(error, errors.InvalidRequestError):
        metadata["field"] = error.field
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    details = [_any(info)]
    if isinstance(error, DeniedError):
        details.append(_any(denial_message(error)))
    number: int = code.value[0]
    status = status_pb2.Status(code=number, message=message, details=details)
    return code, message, status.SerializeToString()


def denial_message(error: DeniedError) -> denial_pb2.Denial:
    """A denial in at most `MAX_DENIAL` bytes.

    All reasons are there while they fit: first in full, then with the rule and its remedy once for each code, and with
    long values cut. What still does not fit is counted in a last reason, ``MORE_REASONS``; each code comes once before
    any comes twice.
    """
    full = [reason_message(item) for item in error.reasons]
    denial = denial_pb2.Denial(reasons=full, record_hash=error.record_hash)
    if denial.ByteSize() <= MAX_DENIAL:
        return denial
    first: list[denial_pb2.DenialReason] = []
    again: list[denial_pb2.DenialReason] = []
    seen: set[str] = set()
    for item in full:
        for name in ("field", "expected", "actual", "message", "remedy", "reference"):
            setattr(item, name, _clip(getattr(item, name), _MAX_VALUE))
        if item.code in seen:
            item.message = item.remedy = item.reference = ""
        (again if item.code in seen else first).append(item)
        seen.add(item.code)
    kept: list[denial_pb2.DenialReason] = []
    left = MAX_DENIAL - _REASON_OVERHEAD - len(error.record_hash) - 8
    for item in [*first, *again]:
        size = item.ByteSize() + 4
        if size > left:
            break
        left -= size
        kept.append(item)
    missing = len(full) - len(kept)
    kept.sort(key=lambda item: (item.code, item.field))
    if missing:
        kept.append(
            denial_pb2.DenialReason(
                code="MORE_REASONS",
                field="denial.reasons",
                expected="all of them",
                actual=f"{missing} more",
                message="There are more reasons than a gRPC status can carry",
                remedy="mend these first; the audit record names the code of every reason",
            )
        )
    return denial_pb2.Denial(reasons=kept, record_hash=error.record_hash)


def reason_message(item: Reason) -> denial_pb2.DenialReason:
    """One reason as a message."""
    return denial_pb2.DenialReason(
        code=item.code,
        field=item.field,
        expected=item.expected,
        actual=item.actual,
        message=item.message,
        remedy=item.remedy,
        reference=item.reference,
    )


def _clip(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[: size - 1]}…"


def _any(message: error_details_pb2.ErrorInfo | denial_pb2.Denial) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
