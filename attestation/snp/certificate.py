"""AMD's endorsement certificates as bytes: the X.509 v3 shape that VCEK, VLEK, ASK, ASVK and ARK share.

AMD's leaf certificates carry the serial number 0, which RFC 5280, section 4.1.2.2 forbids and which
`cryptography.x509` warns that it will refuse; so this vendor's certificates are read with the same library's strict
DER decoder instead. Signatures are RSASSA-PSS with SHA-384, MGF1 with SHA-384, a salt of 48 bytes and trailer 1
(document 57230): the parameters are compared byte for byte, none is negotiated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509 import ObjectIdentifier

from attestation.ecdsa import EcdsaKey
from attestation.errors import MalformedError

MAX_CERTIFICATE_SIZE: Final = 8192
"""AMD's are 1.3 to 1.7 KiB; anything much longer is refused before it is decoded."""

PSS_SHA384_ALGORITHM: Final = bytes.fromhex(
    "304606092a864886f70d01010a3039a00f300d06096086480165030402020500"
    "a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130a303020101"
)
"""AlgorithmIdentifier of ASK and ARK: RSASSA-PSS, SHA-384, MGF1-SHA-384, salt 48, trailer 1 written out."""

PSS_SHA384_ALGORITHM_DEFAULT_TRAILER: Final = bytes.fromhex(
    "304106092a864886f70d01010a3034a00f300d06096086480165030402020500"
    "a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130"
)
"""The same with the trailer left out, as DER has it for a default value: leaf certificates."""

_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
_COMMON_NAME: Final = "2.5.4.3"
_BASIC_CONSTRAINTS: Final = "2.5.29.19"
_KEY_USAGE: Final = "2.5.29.15"
_KEY_CERT_SIGN: Final = 0x04
_UNDERSTOOD_CRITICAL: Final = frozenset({_BASIC_CONSTRAINTS, _KEY_USAGE})
AMD_NAME: Final[Mapping[str, str]] = {
    "2.5.4.11": "Engineering",
    "2.5.4.6": "US",
    "2.5.4.7": "Santa Clara",
    "2.5.4.8": "CA",
    "2.5.4.10": "Advanced Micro Devices",
}
"""Every AMD name's attributes but the common name, by object identifier (document 57230)."""


@asn1.sequence
class _Extension:
    oid: ObjectIdentifier
    critical: Annotated[bool, asn1.Default(value=False)]
    value: bytes


@asn1.sequence
class _Attribute:
    oid: ObjectIdentifier
    value: asn1.PrintableString | str | asn1.IA5String


@asn1.sequence
class _Validity:
    not_before: asn1.UTCTime | asn1.GeneralizedTime
    not_after: asn1.UTCTime | asn1.GeneralizedTime


@asn1.sequence
class _Tbs:
    version: Annotated[int, asn1.Explicit(0)]
    serial: int
    signature: asn1.TLV
    issuer: list[asn1.SetOf[_Attribute]]
    validity: _Validity
    subject: list[asn1.SetOf[_Attribute]]
    public_key: asn1.TLV
    extensions: Annotated[list[_Extension], asn1.Explicit(3)]


@asn1.sequence
class _Certificate:
    tbs: asn1.TLV
    algorithm: asn1.TLV
    signature: asn1.BitString


@asn1.sequence
class _BasicConstraints:
    ca: Annotated[bool, asn1.Default(value=False)]
    path_length: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AmdCertificate:
    """One decoded certificate; nothing about it is verified yet.

    Attributes:
        der: the certificate's bytes.
        serial: serial number; 0 in AMD's leaf certificates.
        issuer, subject: attributes by object identifier.
        not_before, not_after: validity, integer seconds since the epoch, both inclusive.
        public_key: the subject's key; a plain P-256 or P-384 key is ready to verify, and was never given to OpenSSL,
            which takes ten times as long to read it.
        extensions: extension values by object identifier.
        tbs, signature: what is signed, and the signature.
    """

    der: bytes
    serial: int
    issuer: Mapping[str, str]
    subject: Mapping[str, str]
    not_before: int
    not_after: int
    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | EcdsaKey
    extensions: Mapping[str, bytes]
    tbs: bytes
    signature: bytes

    @classmethod
    def parse(cls, der: bytes, *, what: str) -> Self:
        """Decode one certificate; `what` names it in errors.

        Raises:
            MalformedError: not a DER X.509 v3 certificate of this shape: other signature parameters, a critical
                extension that is not understood, an extension or name attribute twice, another kind of key.
        """
        if len(der) > MAX_CERTIFICATE_SIZE:
            raise MalformedError(what, f"{len(der)} bytes, at most {MAX_CERTIFICATE_SIZE} are allowed")
        try:
            outer = asn1.decode_der(_Certificate, der)
            tbs = outer.tbs.parse(_Tbs)
            algorithm, inner_algorithm = asn1.encode_der(outer.algorithm), asn1.encode_der(tbs.signature)
            spki = asn1.encode_der(tbs.public_key)
            public_key = EcdsaKey.from_spki(spki) or serialization.load_der_public_key(spki)
            tbs_bytes = asn1.encode_der(outer.tbs)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise MalformedError(what, f"not a DER X.509 certificate: {error}") from None
        if tbs.version != 2:
            raise MalformedError(what, f"X.509 version field is {tbs.version}, expected 2 (v3)")
        if algorithm not in (PSS_SHA384_ALGORITHM, PSS_SHA384_ALGORITHM_DEFAULT_TRAILER):
            raise MalformedError(what, "signature algorithm is not RSASSA-PSS with SHA-384, MGF1-SHA-384 and salt 48")
        if inner_algorithm != algorithm:
            raise MalformedError(what, "the signed signature algorithm differs from the outer one")
        if outer.signature.padding_bits():
            raise MalformedError(what, "signature has unused bits")
        if not isinstance(public_key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | EcdsaKey):
            raise MalformedError(what, f"public key is a {type(public_key).__name__}, expected RSA or EC")
        return cls(
            der=der,
            serial=tbs.serial,
            issuer=_name(tbs.issuer, f"{what} issuer"),
            subject=_name(tbs.subject, f"{what} subject"),
            not_before=_seconds(tbs.validity.not_before.as_datetime()),
            not_after=_seconds(tbs.validity.not_after.as_datetime()),
            public_key=public_key,
            extensions=_extensions(tbs.extensions, what),
            tbs=tbs_bytes,
            signature=outer.signature.as_bytes(),
        )

    @property
    def common_name(self) -> str:
        """The subject's common name; empty where there is none."""
        return self.subject.get(_COMMON_NAME, "")

    @property
    def issuer_common_name(self) -> str:
        """The issuer's common name; empty where there is none."""
        return self.issuer.get(_COMMON_NAME, "")

    @property
    def is_amd_name(self) -> bool:
        """Are all attributes of subject and issuer but the common names AMD's?"""
        return all(
            {oid: value for oid, value in name.items() if oid != _COMMON_NAME} == AMD_NAME
            for name in (self.subject, self.issuer)
        )

    @property
    def may_sign_certificates(self) -> bool:
        """Is it a CA: basicConstraints CA:TRUE, and keyCertSign wherever there is a keyUsage?

        Raises:
            MalformedError: one of the two extensions cannot be decoded.
        """
        constraints = self.extensions.get(_BASIC_CONSTRAINTS)
        if constraints is None:
            return False
        try:
            usage = self.extensions.get(_KEY_USAGE)
            return asn1.decode_der(_BasicConstraints, constraints).ca and (
                usage is None or bool(asn1.decode_der(asn1.BitString, usage).as_bytes()[:1][0] & _KEY_CERT_SIGN)
            )
        except (ValueError, IndexError) as error:
            raise MalformedError(self.common_name, f"basicConstraints or keyUsage: {error}") from None

    def is_signed_by(self, issuer: AmdCertificate) -> bool:
        """Does the signature verify with the RSA-4096 key of `issuer`?"""
        return verify_pss_sha384(issuer.public_key, signature=self.signature, message=self.tbs)


def verify_pss_sha384(
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | EcdsaKey, *, signature: bytes, message: bytes
) -> bool:
    """Does AMD's RSASSA-PSS `signature` over `message` verify with `key`? Only an RSA key of 4,096 bits can."""
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != 4096:
        return False
    try:
        key.verify(signature, message, _PSS, hashes.SHA384())
    except InvalidSignature:
        return False
    return True


def _seconds(instant: datetime) -> int:
    return int(instant.timestamp())


def _name(sequence: list[asn1.SetOf[_Attribute]], what: str) -> dict[str, str]:
    name: dict[str, str] = {}
    for relative in sequence:
        for attribute in relative.as_list():
            oid, value = attribute.oid.dotted_string, attribute.value
            if oid in name:
                raise MalformedError(what, f"attribute {oid} is there twice")
            name[oid] = value if isinstance(value, str) else value.as_str()
    return name


def _extensions(sequence: list[_Extension], what: str) -> dict[str, bytes]:
    extensions: dict[str, bytes] = {}
    for extension in sequence:
        oid = extension.oid.dotted_string
        if oid in extensions:
            raise MalformedError(what, f"extension {oid} is there twice")
        if extension.critical and oid not in _UNDERSTOOD_CRITICAL:
            raise MalformedError(what, f"critical extension {oid} is not understood")
        extensions[oid] = extension.value
    return extensions
