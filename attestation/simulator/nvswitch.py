"""Software NVSwitches that sign bit-accurate evidence under the simulated GPU vendor's root, with any defect.

Like simulated GPUs they are functions of the vendor's seed, and useless for anything but tests, benches and
demonstrations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum, auto
from functools import cached_property
from typing import Final

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.errors import ManifestError
from attestation.nvidia.endorsements import OID_SPDM_DEVICE_INFO
from attestation.nvswitch.abi import GPU_COUNT, NO_GPU, PDI_SIZE, PORT_COUNT, OpaqueType
from attestation.nvswitch.endorsements import NvSwitchAnchors
from attestation.nvswitch.verify import IDENTITY_KIND, LOCKED, SCHEME
from attestation.simulator.certificates import (
    NOT_AFTER,
    Subject,
    digest,
    distinguished_name,
    issue,
    key_identifier,
    point,
    serial_number,
)
from attestation.simulator.nvgpu import Architecture, SimulatedGpuVendor
from attestation.spdm.abi import (
    ATTRIBUTE_SIGNATURE_REQUESTED,
    COORDINATE_SIZE,
    NONCE_SIZE,
    OPERATION_ALL_MEASUREMENTS,
    SIGNATURE_SIZE,
    GetMeasurements,
    MeasurementBlock,
    Measurements,
    SignedMeasurements,
    record_to_bytes,
)
from attestation.spdm.dice import OID_COMPOSITE_DEVICE_ID, composite_device_id_to_bytes
from attestation.spdm.opaque import opaque_to_bytes
from attestation.types import Evidence, HardwareIdentity

PRODUCT: Final = "LS_10"
"""The chip as certificates name it."""
RIM_PRODUCT: Final = "LS10"
"""The chip as manifests name it."""
PROVISIONER: Final = "LS_10 provisioner"
"""Label of the vendor's key that certifies switches."""
MEASUREMENT_COUNT: Final = 31
_EXPIRED: Final = datetime(2020, 10, 18, tzinfo=UTC)
_MUTABLE_FIRMWARE: Final = 0x01
_PORTS_EACH: Final = 4


class SwitchDefect(Enum):
    """What a simulated switch gets wrong on request, each named after what it breaks."""

    WRONG_NONCE = auto()
    """Evidence over another nonce: a replay."""
    BAD_SIGNATURE = auto()
    """One bit of the signature is flipped."""
    ALTERED_MEASUREMENT = auto()
    """Measurement 8 is changed after signing."""
    OTHER_FIRMWARE = auto()
    """Measurement 8 is another firmware's, and signed."""
    WRONG_FWID = auto()
    """The evidence states a firmware identity, and another than the leaf."""
    NO_LEAF_FWID = auto()
    """The leaf states no firmware identity."""
    WRONG_DEVICE_KEY = auto()
    """The leaf repeats another device's key."""
    OTHER_CHAIN = auto()
    """The certificate chain of another switch of the same vendor."""
    OTHER_ROOT = auto()
    """A chain under another vendor's root."""
    EXPIRED_LEAF = auto()
    """The leaf is no longer valid."""
    GPU_SERIAL = auto()
    """The BROM certificate names a GPU."""
    OTHER_PDI = auto()
    """The evidence states another switch's PDI."""
    UNLOCKED = auto()
    """The switch's configuration is not locked."""
    NO_GPUS = auto()
    """No port leads to a GPU."""
    BAD_PORT = auto()
    """A port leads to a place that does not exist: malformed."""
    ONE_MEASUREMENT = auto()
    """One measurement was asked for, and one came."""
    DUPLICATE_OPAQUE = auto()
    """An opaque field appears twice: malformed."""
    TRAILING_BYTE = auto()
    """One byte after the signature."""


@dataclass(frozen=True, kw_only=True)
class SimulatedSwitch:
    """One software NVSwitch.

    Attributes:
        vendor: whose root its chain ends in.
        pdi: 64-bit identity, certified in its BROM certificate.
        gpu_pdis: PDIs of the GPUs behind it, at most 8.
        position: its place on the board.
        bios_version: five bytes in hex, separated by dots.
    """

    vendor: SimulatedGpuVendor
    pdi: int
    gpu_pdis: tuple[int, ...] = ()
    position: int = 0
    bios_version: str = "96.10.6D.00.01"

    def __post_init__(self) -> None:
        if not 0 <= self.pdi < 1 << (8 * PDI_SIZE) or len(self.gpu_pdis) > GPU_COUNT:
            raise ManifestError(f"simulated NVSwitch: PDI {self.pdi:#x}, {len(self.gpu_pdis)} GPUs: too much")

    def anchors(self) -> NvSwitchAnchors:
        """Anchors that trust this switch's vendor and no other."""
        return NvSwitchAnchors.simulated(self.vendor.root_der)

    @property
    def identity(self) -> HardwareIdentity:
        """The identity that verification proves."""
        return HardwareIdentity(IDENTITY_KIND, f"50{self.pdi:016x}")

    @property
    def measurements(self) -> Mapping[int, bytes]:
        """Measurement by index: what reference values should pin."""
        return {index: digest(PRODUCT, self.bios_version, str(index)) for index in range(1, MEASUREMENT_COUNT + 1)}

    @property
    def fwid(self) -> bytes:
        """SHA-384 of the simulated FMC firmware."""
        return digest(PRODUCT, "FMC")

    def evidence(self, slot: str, nonce: bytes, *, defects: Collection[SwitchDefect] = ()) -> Evidence:
        """Evidence over `nonce` (32 bytes) with the certificate chain, broken as `defects` say.

        Raises:
            ManifestError: `nonce` is not 32 bytes.
        """
        if len(nonce) != NONCE_SIZE:
            raise ManifestError(f"simulated NVSwitch: a nonce has {NONCE_SIZE} bytes, not {len(nonce)}")
        wrong = frozenset(defects)
        if SwitchDefect.OTHER_CHAIN in wrong:
            chain = replace(self, pdi=self.pdi ^ 1).certificates()
        elif SwitchDefect.OTHER_ROOT in wrong:
            other = SimulatedGpuVendor(hashlib.sha256(b"another vendor").digest())
            chain = replace(self, vendor=other).certificates()
        else:
            chain = self.certificates(defects=wrong)
        return Evidence(slot=slot, scheme=SCHEME, data=self._sign(nonce, wrong), certificates=chain)

    def certificates(self, *, defects: Collection[SwitchDefect] = ()) -> tuple[bytes, ...]:
        """The chain as DER, leaf first: FMC leaf, BROM, Provisioner ICA, Identity, root.

        NVIDIA certifies LS10 under Hopper's Identity.
        """
        wrong = frozenset(defects)
        _, identity, _ = self.vendor.authority(Architecture.HOPPER)
        ica_name = distinguished_name(
            ("C", "US"), ("O", "Keystead simulator"), ("CN", f"SIMULATED {PRODUCT} Provisioner ICA 1")
        )
        ica_key = self.vendor.key(PROVISIONER)
        ica = issue(
            Subject(ica_name, ica_key, serial=serial_number(self.vendor.root_der, PROVISIONER)),
            issuer=identity.subject,
            issuer_key=self.vendor.key(f"{Architecture.HOPPER.value} identity"),
        )
        serial = f"{'41' if SwitchDefect.GPU_SERIAL in wrong else '50'}{self.pdi:016X}"
        brom_name = distinguished_name(
            ("SERIAL", serial), ("C", "US"), ("O", "Keystead simulator"), ("CN", f"{PRODUCT} A01 FSP BROM")
        )
        brom = issue(Subject(brom_name, self._brom_key, serial=int(serial, 16)), issuer=ica_name, issuer_key=ica_key)
        leaf_serial = int.from_bytes(key_identifier(self._leaf_key).digest, "big") & ((1 << 159) - 1)
        leaf = issue(
            Subject(
                distinguished_name(
                    ("SERIAL", f"{leaf_serial:040X}"),
                    ("C", "US"),
                    ("O", "Keystead simulator"),
                    ("CN", f"{PRODUCT} A01 FSP FMC LF"),
                ),
                self._leaf_key,
                serial=leaf_serial,
                authority=False,
                not_after=_EXPIRED if SwitchDefect.EXPIRED_LEAF in wrong else NOT_AFTER,
                extensions=self._leaf_extensions(wrong),
            ),
            issuer=brom_name,
            issuer_key=self._brom_key,
        )
        chain = (leaf, brom, ica, identity, self.vendor.root)
        return tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)

    @cached_property
    def _brom_key(self) -> ec.EllipticCurvePrivateKey:
        return self.vendor.key(f"switch BROM {self.pdi:016x}")

    @cached_property
    def _leaf_key(self) -> ec.EllipticCurvePrivateKey:
        return self.vendor.key(f"switch FMC {self.pdi:016x}")

    def _leaf_extensions(self, wrong: frozenset[SwitchDefect]) -> tuple[x509.ExtensionType, ...]:
        """Device information and the firmware that the leaf was made for."""
        text = f"NVIDIA:{PRODUCT}:{self.pdi ^ 0x48B02D0000000000:016X}"
        info = x509.SubjectAlternativeName([x509.OtherName(OID_SPDM_DEVICE_INFO, asn1.encode_der(text))])
        if SwitchDefect.NO_LEAF_FWID in wrong:
            return (info,)
        key = self._leaf_key if SwitchDefect.WRONG_DEVICE_KEY in wrong else self._brom_key
        composite = composite_device_id_to_bytes(device_key=point(key), fwid=self.fwid)
        return (info, x509.UnrecognizedExtension(OID_COMPOSITE_DEVICE_ID, composite))

    def _sign(self, nonce: bytes, wrong: frozenset[SwitchDefect]) -> bytes:
        """Request ‖ signed response."""
        if SwitchDefect.WRONG_NONCE in wrong:
            nonce = hashlib.sha256(nonce).digest()
        measurements = dict(self.measurements)
        if SwitchDefect.OTHER_FIRMWARE in wrong:
            measurements[8] = digest("another firmware")
        one = SwitchDefect.ONE_MEASUREMENT in wrong
        blocks = [
            MeasurementBlock(index, _MUTABLE_FIRMWARE, value)
            for index, value in sorted(measurements.items())
            if index == 1 or not one
        ]
        request = GetMeasurements(
            attributes=ATTRIBUTE_SIGNATURE_REQUESTED,
            operation=1 if one else OPERATION_ALL_MEASUREMENTS,
            nonce=nonce,
            slot_id=0,
        )
        opaque = opaque_to_bytes(self._opaque(wrong))
        if SwitchDefect.DUPLICATE_OPAQUE in wrong:
            opaque += opaque_to_bytes({OpaqueType.LOCK_STATUS: bytes(2)})
        response = Measurements(
            total_indices=0,
            slot_id=0,
            block_count=len(blocks),
            record=record_to_bytes(blocks),
            nonce=hashlib.sha256(b"response" + nonce + point(self._leaf_key)).digest(),
            opaque=opaque,
            signature=bytes(SIGNATURE_SIZE),
        )
        unsigned = SignedMeasurements(request, response, b"").to_bytes()[:-SIGNATURE_SIZE]
        r, s = decode_dss_signature(
            self._leaf_key.sign(unsigned, ec.ECDSA(hashes.SHA384(), deterministic_signing=True))
        )
        signature = bytearray(r.to_bytes(COORDINATE_SIZE, "big") + s.to_bytes(COORDINATE_SIZE, "big"))
        if SwitchDefect.BAD_SIGNATURE in wrong:
            signature[-1] ^= 1
        data = bytearray(unsigned + signature)
        if SwitchDefect.ALTERED_MEASUREMENT in wrong:
            data[data.index(measurements[8])] ^= 1
        return bytes(data) + (b"\0" if SwitchDefect.TRAILING_BYTE in wrong else b"")

    def _opaque(self, wrong: frozenset[SwitchDefect]) -> dict[int, bytes]:
        """Opaque fields in the order, and with the sizes, that genuine switches have them."""
        pdi = self.pdi ^ 1 if SwitchDefect.OTHER_PDI in wrong else self.pdi
        fields: dict[int, bytes] = {
            OpaqueType.VBIOS_VERSION: self.bios_version.encode("ascii"),
            OpaqueType.SWITCH_PDI: pdi.to_bytes(PDI_SIZE, "big"),
            OpaqueType.MSRSCNT: b"".join((1).to_bytes(4, "little") for _ in range(26)),
            OpaqueType.GPU_LINK_CONN: self._links(wrong),
            OpaqueType.DISABLED_PORTS: bytes.fromhex("ec00"),
            OpaqueType.POSITION_ID: self.position.to_bytes(2, "little"),
            OpaqueType.LOCK_STATUS: (0 if SwitchDefect.UNLOCKED in wrong else LOCKED).to_bytes(2, "little"),
        }
        if SwitchDefect.WRONG_FWID in wrong:
            fields[OpaqueType.FWID] = digest("another FMC")
        return fields

    def _links(self, wrong: frozenset[SwitchDefect]) -> bytes:
        """8 PDIs, then the place among them by port: four ports each."""
        pdis = () if SwitchDefect.NO_GPUS in wrong else self.gpu_pdis
        places = b"".join(pdi.to_bytes(PDI_SIZE, "big") for pdi in pdis).ljust(GPU_COUNT * PDI_SIZE, b"\xff")
        ports = bytearray(place for place in range(len(pdis)) for _ in range(_PORTS_EACH)).ljust(
            PORT_COUNT, bytes([NO_GPU])
        )
        if SwitchDefect.BAD_PORT in wrong:
            ports[-1] = GPU_COUNT
        return places + bytes(ports)
