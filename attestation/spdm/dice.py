"""What DICE says in an alias certificate about the firmware that its key belongs to.

Two generations are in the field: CompositeDeviceID of the first Microsoft/TCG RIoT profile (OID 2.23.133.5.4.1, NVIDIA
Hopper and LS10) and DiceTcbInfo (TCG DICE Attestation Architecture 1.1, section 6.1.1, OID 2.23.133.5.4.1.1, NVIDIA
Blackwell). Both are decoded as strict DER by `cryptography.hazmat.asn1`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, TypeVar

from cryptography import x509
from cryptography.hazmat import asn1

from attestation.errors import MalformedError

OID_COMPOSITE_DEVICE_ID: Final = x509.ObjectIdentifier("2.23.133.5.4.1")
OID_DICE_TCB_INFO: Final = x509.ObjectIdentifier("2.23.133.5.4.1.1")
OID_SHA384: Final = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.2")
OID_EC_PUBLIC_KEY: Final = x509.ObjectIdentifier("1.2.840.10045.2.1")
OID_SECP384R1: Final = x509.ObjectIdentifier("1.3.132.0.34")
SHA384_SIZE: Final = 48

OPERATIONAL_FLAGS: Final = (
    "not_configured",
    "not_secure",
    "recovery",
    "debug",
    "not_replay_protected",
    "not_integrity_protected",
    "not_runtime_measured",
    "not_immutable",
    "not_tcb",
)
"""OperationalFlags of DiceTcbInfo, bit 0 first (TCG DICE Attestation Architecture 1.1, section 6.1.1)."""

_FIXED_WIDTH: Final = 0x00000001
"""Bit 31 of OperationalFlags, fixedWidth: says that all 32 bits are there."""

_Sequence = TypeVar("_Sequence")


@asn1.sequence
class Fwid:
    """FWID ::= SEQUENCE { hashAlg OBJECT IDENTIFIER, digest OCTET STRING }."""

    hash_algorithm: x509.ObjectIdentifier
    digest: bytes


@asn1.sequence
class EcAlgorithm:
    """AlgorithmIdentifier of an elliptic-curve key on a named curve (RFC 5480, section 2.1)."""

    algorithm: x509.ObjectIdentifier
    curve: x509.ObjectIdentifier


@asn1.sequence
class EcPublicKeyInfo:
    """SubjectPublicKeyInfo of an elliptic-curve key (RFC 5480, section 2)."""

    algorithm: EcAlgorithm
    public_key: asn1.BitString


@asn1.sequence
class CompositeDeviceId:
    """CompositeDeviceID ::= SEQUENCE { version INTEGER, deviceID SubjectPublicKeyInfo, fwid FWID }."""

    version: int
    device_id: EcPublicKeyInfo
    fwid: Fwid


@asn1.sequence
class DiceTcbInfo:
    """DiceTcbInfo, fields [0] to [10] of TCG DICE Attestation Architecture 1.1, section 6.1.1."""

    vendor: Annotated[str | None, asn1.Implicit(0)]
    model: Annotated[str | None, asn1.Implicit(1)]
    version: Annotated[str | None, asn1.Implicit(2)]
    svn: Annotated[int | None, asn1.Implicit(3)]
    layer: Annotated[int | None, asn1.Implicit(4)]
    index: Annotated[int | None, asn1.Implicit(5)]
    fwids: Annotated[list[Fwid] | None, asn1.Implicit(6)]
    flags: Annotated[asn1.BitString | None, asn1.Implicit(7)]
    vendor_info: Annotated[bytes | None, asn1.Implicit(8)]
    type: Annotated[bytes | None, asn1.Implicit(9)]
    flags_mask: Annotated[asn1.BitString | None, asn1.Implicit(10)]


@dataclass(frozen=True, slots=True)
class FirmwareIdentity:
    """What either structure says of the firmware layer whose key the certificate certifies.

    Attributes:
        fwid: SHA-384 digest of the firmware.
        device_key: the device key's point (X9.62 uncompressed) as CompositeDeviceID repeats it; None in DiceTcbInfo.
        flags: names of the OperationalFlags that are set, in the order of their bits; empty in CompositeDeviceID.
    """

    fwid: bytes
    device_key: bytes | None = None
    flags: tuple[str, ...] = ()


def parse_composite_device_id(der: bytes) -> FirmwareIdentity:
    """The firmware identity in a CompositeDeviceID.

    Raises:
        MalformedError: not that structure, another version than 1, another key than P-384, or no SHA-384 digest.
    """
    structure = "CompositeDeviceID"
    value = _decode(CompositeDeviceId, der, structure)
    algorithm = value.device_id.algorithm
    if value.version != 1:
        raise MalformedError(structure, f"version {value.version}, only 1 is defined")
    if algorithm.algorithm != OID_EC_PUBLIC_KEY or algorithm.curve != OID_SECP384R1:
        raise MalformedError(structure, "deviceID is not a P-384 key")
    return FirmwareIdentity(_digest(value.fwid, structure), device_key=value.device_id.public_key.as_bytes())


def parse_dice_tcb_info(der: bytes) -> FirmwareIdentity:
    """The firmware identity in a DiceTcbInfo: the first of its fwids, which is the running layer's.

    Raises:
        MalformedError: not that structure, no fwids, or the first is no SHA-384 digest.
    """
    structure = "DiceTcbInfo"
    value = _decode(DiceTcbInfo, der, structure)
    if not value.fwids:
        raise MalformedError(structure, "fwids is absent or empty")
    bits = value.flags.as_bytes() if value.flags is not None else b""
    flags = tuple(
        name
        for bit, name in enumerate(OPERATIONAL_FLAGS)
        if bit < 8 * len(bits) and bits[bit // 8] & (0x80 >> (bit % 8))
    )
    return FirmwareIdentity(_digest(value.fwids[0], structure), flags=flags)


def composite_device_id_to_bytes(*, device_key: bytes, fwid: bytes) -> bytes:
    """A CompositeDeviceID of version 1.

    Args:
        device_key: point of the device's P-384 key, X9.62 uncompressed.
        fwid: SHA-384 digest of the firmware.
    """
    algorithm = EcAlgorithm(algorithm=OID_EC_PUBLIC_KEY, curve=OID_SECP384R1)
    device_id = EcPublicKeyInfo(algorithm=algorithm, public_key=asn1.BitString(device_key, 0))
    return asn1.encode_der(CompositeDeviceId(version=1, device_id=device_id, fwid=_fwid(fwid)))


def dice_tcb_info_to_bytes(*, model: str, fwid: bytes, flags: Sequence[str]) -> bytes:
    """A DiceTcbInfo as NVIDIA's Blackwell writes it: two fwids, the second all zero, and 32 bits of flags.

    Args:
        model: for example ``GB100 A01 GSP``.
        fwid: SHA-384 digest of the firmware.
        flags: names of `OPERATIONAL_FLAGS` to set.

    Raises:
        ValueError: a flag that is not one of `OPERATIONAL_FLAGS`.
    """
    bits = _FIXED_WIDTH
    for flag in flags:
        bits |= 1 << (31 - OPERATIONAL_FLAGS.index(flag))
    return asn1.encode_der(
        DiceTcbInfo(
            vendor="NVIDIA",
            model=model,
            version="01",
            svn=1,
            layer=0,
            index=0,
            fwids=[_fwid(fwid), _fwid(bytes(SHA384_SIZE))],
            flags=asn1.BitString(bits.to_bytes(4, "big"), 0),
            vendor_info=b"\xc0",
            type=b"\x00",
            flags_mask=None,
        )
    )


def _fwid(digest: bytes) -> Fwid:
    """FWID of a SHA-384 digest."""
    return Fwid(hash_algorithm=OID_SHA384, digest=digest)


def _decode(cls: type[_Sequence], der: bytes, structure: str) -> _Sequence:
    """`der` as `cls`, strictly."""
    try:
        return asn1.decode_der(cls, der)
    except ValueError as error:
        raise MalformedError(structure, f"not DER of that structure: {error}") from error


def _digest(fwid: Fwid, structure: str) -> bytes:
    """The digest of `fwid`, which must be SHA-384."""
    if fwid.hash_algorithm != OID_SHA384 or len(fwid.digest) != SHA384_SIZE:
        raise MalformedError(
            structure, f"fwid is {fwid.hash_algorithm.dotted_string} of {len(fwid.digest)} bytes, expected SHA-384"
        )
    return fwid.digest
