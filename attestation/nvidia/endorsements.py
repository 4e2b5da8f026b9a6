"""What NVIDIA's certificates say about a device: its identity, its chip, and the firmware that its key belongs to.

A chain has exactly five certificates, all P-384 with SHA-384: FMC leaf (made by the device at every boot), BROM (the
device's own authority, one per device), Provisioner ICA, Identity (one per generation), Device Identity CA. The root is
pinned by the SHA-256 of its DER; it is the one that four public verifiers of NVIDIA evidence embed.

The BROM certificate's subject serialNumber is a byte for the kind of device (0x41 for a GPU, 0x50 for an NVSwitch)
followed by its 64-bit PDI, in hex. That is seen on every published chain and equals the PDIs in NVIDIA's signed
topology lists of 8 GPUs and 4 switches, but NVIDIA documents it nowhere. It is certified, unlike the UUID that a driver
reports, and so it is the identity enrolled.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Hashable
from dataclasses import dataclass, replace
from enum import Enum, unique
from typing import ClassVar, Final, Self

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.x509.oid import NameOID

from attestation.errors import MalformedError, TrustAnchorError
from attestation.lru import JudgementCache
from attestation.nvidia.statement import MeasurementAppraisal, Statement
from attestation.ocsp import OcspCache
from attestation.rim.verify import RimAnchors
from attestation.spdm.dice import (
    OID_COMPOSITE_DEVICE_ID,
    OID_DICE_TCB_INFO,
    FirmwareIdentity,
    parse_composite_device_id,
    parse_dice_tcb_info,
)
from attestation.x509 import CertificateChain, ChainCache, ChainRules, EcAlgorithm, NameAttributes, unknown_extensions

NVIDIA_DEVICE_IDENTITY_CA_SHA256: Final = bytes.fromhex(
    "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48"
)
"""SHA-256 of the DER of "NVIDIA Device Identity CA" (serial 2d3670b1ca100411c1fec0e82a065b54, 5 November 2021)."""

CHAIN_LENGTH: Final = 5
LEAF: Final = 0
BROM: Final = 1

OID_SPDM_DEVICE_INFO: Final = x509.ObjectIdentifier("1.3.6.1.4.1.412.274.1")
"""otherName of the leaf: ``manufacturer:product:serial number`` (DSP0274 1.1.0, section 10.6.1, table 33)."""

REMEMBERED_STATEMENTS: Final = 1024
"""Statements that are remembered, some 8 KiB each. GPUs alone in their machine state the same where their software is
the same; in protected-PCIe mode, and where they are switches, each states its own."""
REMEMBERED_MEASUREMENTS: Final = 256
"""Appraisals that are remembered, some 30 KiB each. Published GPUs of one driver and VBIOS measure the same."""

PDI_DIGITS: Final = 16
_DEVICE_INFO: Final = re.compile(r"NVIDIA:([A-Z0-9_]+):([0-9A-F]+)")


@unique
class DeviceKind(Enum):
    """Kinds of devices, by the first byte of the BROM certificate's serialNumber, in hex."""

    GPU = "41"
    NVSWITCH = "50"

    def certifies(self, serial: str) -> bool:
        """Is `serial`, a BROM certificate's subject serialNumber, one of this kind: the byte and a PDI?"""
        return re.fullmatch(rf"{self.value}[0-9A-F]{{{PDI_DIGITS}}}", serial) is not None


@dataclass(frozen=True, slots=True)
class DeviceEndorsement:
    """What a device's certificates say; only believable where their chain is trusted.

    Attributes:
        products: the chip as leaf, BROM and device information name it, without repetition: one, if they agree.
        serial_number: the BROM certificate's subject serialNumber in lower-case hex where it is of the kind; else None.
        stated_serial_number: the same as it stands there, whatever it is.
        device_info: serial number in the leaf's SPDM device information; None where absent.
        firmware: what the leaf says of the firmware that its key belongs to; None where it says nothing.
        device_key: the BROM key's point (X9.62 uncompressed); empty where it is on no curve that is verified, which the
            chain's rules refuse.
    """

    products: tuple[str, ...]
    serial_number: str | None
    stated_serial_number: str
    device_info: str | None
    firmware: FirmwareIdentity | None
    device_key: bytes

    @property
    def pdi(self) -> str | None:
        """The device's PDI in lower-case hex; None where no serial number of its kind is certified."""
        return None if self.serial_number is None else self.serial_number[2:]

    @classmethod
    def from_chain(cls, chain: CertificateChain, leaf: x509.Certificate, *, kind: DeviceKind) -> Self:
        """Read the endorsement of a device of this kind out of leaf and BROM certificate.

        Args:
            chain: of the device.
            leaf: its first certificate.
            kind: of the device.

        Raises:
            MalformedError: fewer than two certificates, names without their parts, or a broken DICE extension.
        """
        subjects = chain.subjects
        if len(subjects) <= BROM:
            raise MalformedError("NVIDIA certificate chain", "no BROM certificate follows the leaf")
        info = _device_info(leaf)
        products = [
            _attribute(subjects[LEAF], NameOID.COMMON_NAME, "leaf"),
            _attribute(subjects[BROM], NameOID.COMMON_NAME, "BROM"),
        ]
        names = [name.split(" ")[0] for name in products] + ([] if info is None else [info[0]])
        serial = _attribute(subjects[BROM], NameOID.SERIAL_NUMBER, "BROM")
        return cls(
            products=tuple(dict.fromkeys(names)),
            serial_number=serial.lower() if kind.certifies(serial) else None,
            stated_serial_number=serial,
            device_info=None if info is None else info[1],
            firmware=_firmware(leaf),
            device_key=chain.points[BROM],
        )


@dataclass(frozen=True, slots=True, eq=False)
class DeviceAnchors:
    """Which roots the evidence and the manifests of one kind of device may end in, and what verified before.

    There are no default roots: use `nvidia` in production, `simulated` in tests and demonstrations.

    Attributes:
        KIND: of the devices.
        roots: SHA-256 of the DER of each vendor root.
        simulated_roots: the same of simulators' roots; results under them say `simulated`.
        chains: verified chains with what they endorse.
        rims: roots of manifests, and manifests that verified. A simulator's root is one for its manifests too.
        ocsp: OCSP responses that were found authentic.
        statements: what authentic devices stated, judged.
        appraised: what authentic devices measured, compared with pinned values and manifests.
    """

    KIND: ClassVar[DeviceKind]

    roots: frozenset[bytes]
    simulated_roots: frozenset[bytes]
    chains: ChainCache[DeviceEndorsement]
    rims: RimAnchors
    ocsp: OcspCache
    statements: JudgementCache[tuple[Hashable, ...], Statement]
    appraised: JudgementCache[tuple[Hashable, ...], MeasurementAppraisal]

    @classmethod
    def nvidia(cls) -> Self:
        """NVIDIA's Device Identity CA, its CoRIM signing root for manifests, and nothing else."""
        return cls._of(frozenset({NVIDIA_DEVICE_IDENTITY_CA_SHA256}), frozenset(), RimAnchors.nvidia())

    @classmethod
    def simulated(cls, *roots: bytes) -> Self:
        """The roots of simulators, as DER, and nothing else.

        Raises:
            TrustAnchorError: no root is given.
        """
        if not roots:
            raise TrustAnchorError(f"NVIDIA {cls.KIND.name}: no root certificate is configured")
        digests = frozenset(hashlib.sha256(root).digest() for root in roots)
        return cls._of(frozenset(), digests, RimAnchors.simulated(*roots))

    def with_simulated(self, *roots: bytes) -> Self:
        """These roots and those of simulators, as DER; what verified before is not carried over."""
        added = {hashlib.sha256(root).digest() for root in roots}
        return self._of(self.roots, self.simulated_roots | added, self.rims.with_simulated(*roots))

    def with_rims(self, rims: RimAnchors) -> Self:
        """These roots for evidence, and those of `rims` for manifests; chains that verified before are kept."""
        return replace(self, rims=rims)

    @classmethod
    def _of(cls, roots: frozenset[bytes], simulated_roots: frozenset[bytes], rims: RimAnchors) -> Self:
        rules = ChainRules(length=CHAIN_LENGTH, algorithm=EcAlgorithm.P384_SHA384, pinned_roots=roots | simulated_roots)
        derive = functools.partial(DeviceEndorsement.from_chain, kind=cls.KIND)
        return cls(
            roots=roots,
            simulated_roots=simulated_roots,
            chains=ChainCache(rules=rules, derive=derive),
            rims=rims,
            ocsp=OcspCache(),
            statements=JudgementCache(REMEMBERED_STATEMENTS),
            appraised=JudgementCache(REMEMBERED_MEASUREMENTS),
        )


def _attribute(subject: NameAttributes, oid: x509.ObjectIdentifier, name: str) -> str:
    """The one attribute `oid` of the subject of the certificate called `name`."""
    values = [value for kind, value in subject if kind == oid]
    if len(values) != 1:
        raise MalformedError(f"NVIDIA {name} certificate", f"subject has {len(values)} × {oid.dotted_string}")
    return values[0]


def _firmware(leaf: x509.Certificate) -> FirmwareIdentity | None:
    """What the leaf says of its firmware, in whichever of the two generations it says it."""
    extensions = unknown_extensions(leaf)
    composite, tcb_info = extensions.get(OID_COMPOSITE_DEVICE_ID), extensions.get(OID_DICE_TCB_INFO)
    if composite is not None and tcb_info is not None:
        raise MalformedError("NVIDIA leaf certificate", "carries both CompositeDeviceID and DiceTcbInfo")
    if composite is not None:
        return parse_composite_device_id(composite)
    return None if tcb_info is None else parse_dice_tcb_info(tcb_info)


def _device_info(leaf: x509.Certificate) -> tuple[str, str] | None:
    """Product and serial number from the leaf's SPDM device information; None where absent."""
    infos = [
        name.value
        for extension in leaf.extensions
        if type(extension.value) is x509.SubjectAlternativeName
        for name in extension.value.get_values_for_type(x509.OtherName)
        if name.type_id == OID_SPDM_DEVICE_INFO
    ]
    if not infos:
        return None
    try:
        match = _DEVICE_INFO.fullmatch(asn1.decode_der(str, infos[0])) if len(infos) == 1 else None
    except ValueError as error:
        raise MalformedError("NVIDIA leaf certificate", f"device information is no UTF8String: {error}") from error
    if match is None:
        raise MalformedError("NVIDIA leaf certificate", "device information is not NVIDIA:product:serial number")
    return match[1], match[2]
