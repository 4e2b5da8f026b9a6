"""A software OCSP service for the certificates of simulated devices and of signers of manifests, with any defect."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from attestation.errors import ManifestError
from attestation.simulator.certificates import NOT_AFTER, NOT_BEFORE, Subject, distinguished_name, issue
from attestation.simulator.nvgpu import Architecture, SimulatedGpuVendor
from attestation.simulator.nvswitch import PROVISIONER

LIFETIME: Final = 24 * 3600
"""Seconds; as NVIDIA's responses."""
_RESPONDER: Final = "OCSP responder"
_KEYS: Final = (
    "root",
    "RIM authority",
    "RIM product",
    PROVISIONER,
    *(f"{architecture.value} {name}" for architecture in Architecture for name in ("identity", "provisioner")),
)
"""Keys of authorities that have certificates to answer for."""


class OcspDefect(Enum):
    """What a simulated response gets wrong on request, each named after what it breaks."""

    OTHER_ISSUER = auto()
    """The responder was appointed by somebody other than the certificate's issuer."""
    NOT_FOR_OCSP = auto()
    """The responder's certificate is not for OCSPSigning."""
    EXPIRED_RESPONDER = auto()
    """The responder's certificate is no longer valid."""
    BAD_SIGNATURE = auto()
    """One bit of the signature is flipped."""
    OTHER_ALGORITHM = auto()
    """Signed with SHA-256."""
    NO_CERTIFICATE = auto()
    """The responder's certificate is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedOcsp:
    """Answers for every certificate that a simulated vendor issued.

    Attributes:
        vendor: whose authorities answer.
    """

    vendor: SimulatedGpuVendor

    def responses(
        self,
        chain: tuple[bytes, ...],
        *,
        this_update: int,
        first: int = 0,
        revoked: Collection[int] = (),
        nonce: bytes | None = None,
        lifetime: int | None = LIFETIME,
        defects: Collection[OcspDefect] = (),
    ) -> tuple[bytes, ...]:
        """A response (DER) for each certificate of `chain` from position `first` to below the root.

        Args:
            chain: DER, leaf first.
            this_update: seconds since the epoch.
            first: 1 for a device, whose leaf no authority made.
            revoked: positions of certificates that are revoked.
            nonce: of the request; None for none.
            lifetime: seconds to nextUpdate; None leaves it out.
            defects: what is wrong with every response.

        Raises:
            ManifestError: a certificate of somebody else.
        """
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        return tuple(
            self._response(
                certificates[position],
                certificates[position + 1],
                this_update=this_update,
                revoked=position in revoked,
                nonce=nonce,
                lifetime=lifetime,
                wrong=frozenset(defects),
            )
            for position in range(first, len(certificates) - 1)
        )

    def _response(
        self,
        subject: x509.Certificate,
        issuer: x509.Certificate,
        *,
        this_update: int,
        revoked: bool,
        nonce: bytes | None,
        lifetime: int | None,
        wrong: frozenset[OcspDefect],
    ) -> bytes:
        start = datetime.fromtimestamp(this_update, UTC)
        responder = self._responder(issuer, this_update, wrong)
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=subject,
                issuer=issuer,
                algorithm=hashes.SHA384(),
                cert_status=ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD,
                this_update=start,
                next_update=None if lifetime is None else datetime.fromtimestamp(this_update + lifetime, UTC),
                revocation_time=start if revoked else None,
                revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, responder)
        )
        if OcspDefect.NO_CERTIFICATE not in wrong:
            builder = builder.certificates([responder])
        if nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        algorithm = hashes.SHA256() if OcspDefect.OTHER_ALGORITHM in wrong else hashes.SHA384()
        response = builder.sign(self.vendor.key(_RESPONDER), algorithm)
        der, signature = response.public_bytes(Encoding.DER), response.signature
        if OcspDefect.BAD_SIGNATURE in wrong:
            der = der.replace(signature, signature[:-1] + bytes([signature[-1] ^ 1]))
        return der

    def _responder(self, issuer: x509.Certificate, this_update: int, wrong: frozenset[OcspDefect]) -> x509.Certificate:
        """The certificate of the responder that answers for `issuer`."""
        issuer_key = self._key_of(issuer)
        if OcspDefect.OTHER_ISSUER in wrong:
            issuer_key = self.vendor.key("somebody else")
        usage = (
            ExtendedKeyUsageOID.CODE_SIGNING if OcspDefect.NOT_FOR_OCSP in wrong else ExtendedKeyUsageOID.OCSP_SIGNING
        )
        expired = OcspDefect.EXPIRED_RESPONDER in wrong
        subject = Subject(
            distinguished_name(("C", "US"), ("O", "Keystead simulator"), ("CN", "SIMULATED OCSP Responder")),
            self.vendor.key(_RESPONDER),
            serial=7,
            authority=False,
            not_before=NOT_BEFORE,
            not_after=datetime.fromtimestamp(this_update - 1, UTC) if expired else NOT_AFTER,
            extensions=(x509.ExtendedKeyUsage([usage]),),
        )
        return issue(subject, issuer=issuer.subject, issuer_key=issuer_key)

    def _key_of(self, issuer: x509.Certificate) -> ec.EllipticCurvePrivateKey:
        """The private key of one of the vendor's authorities."""
        for label in _KEYS:
            key = self.vendor.key(label)
            if key.public_key() == issuer.public_key():
                return key
        raise ManifestError(f"simulated OCSP: {issuer.subject.rfc4514_string():.100} is none of this vendor's")
