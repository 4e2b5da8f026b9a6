"""The node's connection to the broker: mutual TLS, a deadline for every call, retries where repeating is safe.

The certificates prove a transport identity, no more: what a node may have is decided by its evidence. All calls of a
node may be repeated as they are (docs/protocol.md, "Retries"), so those that met an overloaded or absent broker are
sent again by gRPC itself, with growing pauses, until the deadline.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc

from attester.errors import CredentialError, from_rpc_error
from keystead.v1 import asset_service_pb2 as asset_pb
from keystead.v1 import attestation_service_pb2 as attestation_pb
from keystead.v1 import lease_service_pb2 as lease_pb
from keystead.v1 import lineage_service_pb2 as lineage_pb
from keystead.v1.asset_service_pb2_grpc import AssetServiceStub
from keystead.v1.attestation_service_pb2_grpc import AttestationServiceStub
from keystead.v1.lease_service_pb2_grpc import LeaseServiceStub
from keystead.v1.lineage_service_pb2_grpc import LineageServiceStub

DEFAULT_TIMEOUT: Final = 30.0
"""Seconds that one call may take, retries included."""

_MAX_PEM: Final = 1 << 20
_MAX_MESSAGE: Final = 64 << 20
_RETRIES: Final = {
    "maxAttempts": 5,
    "initialBackoff": "0.2s",
    "maxBackoff": "5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED"],
}
_SERVICES: Final = (
    "keystead.v1.AssetService",
    "keystead.v1.AttestationService",
    "keystead.v1.LeaseService",
    "keystead.v1.LineageService",
)
_SERVICE_CONFIG: Final = json.dumps(
    {"methodConfig": [{"name": [{"service": service} for service in _SERVICES], "retryPolicy": _RETRIES}]}
)

Request = TypeVar("Request")
Response = TypeVar("Response")


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What a node shows and trusts on the wire, all in PEM.

    Attributes:
        ca: the authority that issued the broker's certificate.
        certificate: the node's certificate chain.
        key: the node's private key.
    """

    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)

    @classmethod
    def from_files(cls, *, ca: Path, certificate: Path, key: Path) -> Self:
        """Read the three files.

        Raises:
            CredentialError: one cannot be read or is not PEM.
        """
        return cls(ca=_pem(ca), certificate=_pem(certificate), key=_pem(key))


def _pem(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_PEM)
    except OSError as error:
        raise CredentialError(f"{path}: {error.strerror}") from None
    if b"-----BEGIN " not in data:
        raise CredentialError(f"{path}: not PEM")
    return data


class BrokerClient:
    """A channel to the broker; safe to be used by several threads. Use it as a context manager.

    Args:
        address: ``HOST:PORT``.
        tls: see `TlsMaterial`.
        timeout: seconds that one call may take, retries included.
    """

    __slots__ = ("_assets", "_attestation", "_channel", "_leases", "_lineage", "_timeout", "address")

    def __init__(self, address: str, *, tls: TlsMaterial, timeout: float = DEFAULT_TIMEOUT) -> None:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=tls.ca, private_key=tls.key, certificate_chain=tls.certificate
        )
        options: tuple[tuple[str, Any], ...] = (
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.enable_retries", 1),
            ("grpc.max_receive_message_length", _MAX_MESSAGE),
        )
        self.address = address
        self._timeout = timeout
        self._channel = grpc.secure_channel(address, credentials, options=options)
        self._attestation = AttestationServiceStub(self._channel)
        self._assets = AssetServiceStub(self._channel)
        self._leases = LeaseServiceStub(self._channel)
        self._lineage = LineageServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel; calls under way end as `BrokerUnavailableError`."""
        self._channel.close()

    def _call(self, method: Callable[..., Response], request: object) -> Response:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None

    def get_challenge(self, *, grant: bytes | None) -> attestation_pb.GetChallengeResponse:
        """Ask for a nonce, for a signed grant's bytes or for none.

        Raises:
            BrokerError: see its subclasses.
        """
        return self._call(self._attestation.GetChallenge, attestation_pb.GetChallengeRequest(grant=grant or b""))

    def appraise(self, request: attestation_pb.AppraiseRequest) -> attestation_pb.AppraiseResponse:
        """Have evidence appraised.

        Raises:
            BrokerError: see its subclasses; `AccessDeniedError` has every reason.
        """
        return self._call(self._attestation.Appraise, request)

    def acquire_lease(self, request: lease_pb.AcquireLeaseRequest) -> lease_pb.AcquireLeaseResponse:
        """Ask for a lease.

        Raises:
            BrokerError: see its subclasses; `AccessDeniedError` has every reason.
        """
        return self._call(self._leases.AcquireLease, request)

    def renew_lease(self, request: lease_pb.RenewLeaseRequest) -> lease_pb.RenewLeaseResponse:
        """Ask for a lease to be extended.

        Raises:
            BrokerError: see its subclasses; `AccessDeniedError` has every reason.
        """
        return self._call(self._leases.RenewLease, request)

    def report_usage(self, request: lease_pb.ReportUsageRequest) -> lease_pb.ReportUsageResponse:
        """Say what a lease used so far.

        Raises:
            BrokerError: see its subclasses.
        """
        return self._call(self._leases.ReportUsage, request)

    def return_lease(self, request: lease_pb.ReturnLeaseRequest) -> lease_pb.ReturnLeaseResponse:
        """Give a lease back.

        Raises:
            BrokerError: see its subclasses.
        """
        return self._call(self._leases.ReturnLease, request)

    def get_wrapping_key(self) -> asset_pb.GetWrappingKeyResponse:
        """Ask for the HPKE public key to wrap data keys to.

        Raises:
            BrokerError: see its subclasses.
        """
        return self._call(self._assets.GetWrappingKey, asset_pb.GetWrappingKeyRequest())

    def register_output(self, request: lineage_pb.RegisterOutputRequest) -> lineage_pb.RegisterOutputResponse:
        """Register what a job made.

        Raises:
            BrokerError: see its subclasses; `AccessDeniedError` has every reason.
        """
        return self._call(self._lineage.RegisterOutput, request)
