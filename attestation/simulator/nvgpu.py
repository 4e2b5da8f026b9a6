"""Software NVIDIA GPUs that sign bit-accurate evidence under a private root, with any defect on request.

Everything is a function of the vendor's seed: keys are derived from it and signatures are deterministic (RFC 6979), so
that a GPU has the same certificates whenever it is simulated again. That is what makes it useless for anything but
tests, benches and demonstrations: whoever has the seed can be every GPU. Verifiers trust such a root only through
`NvGpuAnchors.simulated`, and every result under it says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum, auto
from functools import cached_property
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.errors import ManifestError
from attestation.nvgpu.abi import (
    FEATURE_FLAGS,
    NVDEC0_DISABLED,
    NVDEC0_ENABLED,
    PDI_SIZE,
    PROTECTED_PCIE_OFF,
    PROTECTED_PCIE_ON,
    SWITCH_LINKS,
    Mode,
    OpaqueType,
)
from attestation.nvgpu.endorsements import OID_SPDM_DEVICE_INFO, NvGpuAnchors
from attestation.nvgpu.verify import IDENTITY_KIND, SCHEME
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
from attestation.spdm.dice import (
    OID_COMPOSITE_DEVICE_ID,
    OID_DICE_TCB_INFO,
    composite_device_id_to_bytes,
    dice_tcb_info_to_bytes,
)
from attestation.spdm.opaque import opaque_to_bytes
from attestation.types import Evidence, HardwareIdentity

SEED_SIZE: Final = 32
MEASUREMENT_COUNT: Final = 64
MEASUREMENT_TYPE_MUTABLE_FIRMWARE: Final = 0x01
UNUSED_MEASUREMENTS: Final = frozenset({1, 63, 64})
"""Indices that hold zeros, as genuine GPUs have some."""

_P384_ORDER: Final = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)
_EXPIRED: Final = datetime(2020, 10, 18, tzinfo=UTC)
_SEED_FILE: Final = "nvgpu-seed.hex"
_ROOT_FILE: Final = "nvgpu-root.pem"


class Architecture(Enum):
    """GPU generations; they differ in chip name, in how the leaf states its firmware, and in opaque fields."""

    HOPPER = "GH100"
    BLACKWELL = "GB100"


class GpuDefect(Enum):
    """What a simulated GPU gets wrong on request, each named after what it breaks."""

    WRONG_NONCE = auto()
    """Evidence over another nonce: a replay."""
    BAD_SIGNATURE = auto()
    """One bit of the signature is flipped."""
    ALTERED_MEASUREMENT = auto()
    """Measurement 8 is changed after signing."""
    OTHER_FIRMWARE = auto()
    """Measurement 8 is another firmware's, and signed."""
    WRONG_FWID = auto()
    """The evidence states another firmware than the leaf."""
    MISSING_FWID = auto()
    """The evidence states no firmware identity, as drivers before 550."""
    WRONG_DEVICE_KEY = auto()
    """The leaf repeats another device's key (Hopper)."""
    OTHER_CHAIN = auto()
    """The certificate chain of another GPU of the same vendor."""
    OTHER_ROOT = auto()
    """A chain under another vendor's root."""
    EXPIRED_LEAF = auto()
    """The leaf is no longer valid."""
    DEVELOPER_MODE = auto()
    """Developer mode: firmware measurements differ, and on Blackwell the leaf's flags say debug."""
    SWITCH_SERIAL = auto()
    """The BROM certificate names an NVSwitch."""
    OTHER_CHIP = auto()
    """The evidence names another chip than the certificates."""
    CONTRADICTORY_MODE = auto()
    """Feature flag and protected-PCIe status contradict each other."""
    NO_SWITCHES = auto()
    """Protected PCIe without a list of switches."""
    ONE_MEASUREMENT = auto()
    """One measurement was asked for, and one came."""
    DUPLICATE_OPAQUE = auto()
    """An opaque field appears twice: malformed."""
    TRAILING_BYTE = auto()
    """One byte after the signature, as one published collector appends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuConfiguration:
    """What a simulated GPU runs.

    Attributes:
        driver_version: as the driver states it.
        vbios_version: five bytes in hex, separated by dots.
        mode: confidential-computing mode; `Mode.UNSTATED` leaves both fields out.
        switch_pdis: PDI of the switch behind each of the 18 links, most significant byte first; empty for none.
    """

    driver_version: str = "580.95.05"
    vbios_version: str = "96.00.CF.00.02"
    mode: Mode = Mode.SINGLE_GPU
    switch_pdis: tuple[bytes, ...] = ()


class SimulatedGpuVendor:
    """A private NVIDIA: root, and per chip an Identity and a Provisioner authority.

    Attributes:
        root: the root certificate.
    """

    def __init__(self, seed: bytes) -> None:
        """A vendor whose keys derive from `seed` (32 bytes, secret if anything that trusts its root matters).

        Raises:
            ManifestError: `seed` is not 32 bytes.
        """
        if len(seed) != SEED_SIZE:
            raise ManifestError(f"simulated GPU vendor: the seed must be {SEED_SIZE} bytes, not {len(seed)}")
        self._seed = seed
        self._root_key = self.key("root")
        name = distinguished_name(("O", "Keystead simulator"), ("CN", "SIMULATED Device Identity CA"))
        self.root = issue(
            Subject(name, self._root_key, serial=serial_number(seed, "root")), issuer=name, issuer_key=self._root_key
        )
        self._authorities: dict[
            Architecture, tuple[x509.Certificate, x509.Certificate, ec.EllipticCurvePrivateKey]
        ] = {}

    @classmethod
    def load(cls, directory: Path) -> Self:
        """The vendor that `save` wrote to `directory`.

        Raises:
            ManifestError: no seed there, or its root is not the one that stands beside it.
        """
        try:
            vendor = cls(bytes.fromhex((directory / _SEED_FILE).read_text(encoding="ascii")))
            root = (directory / _ROOT_FILE).read_bytes()
        except (OSError, ValueError) as error:
            raise ManifestError(f"simulated GPU vendor: nothing usable in {directory}: {error}") from error
        if root != vendor.root.public_bytes(Encoding.PEM):
            raise ManifestError(f"simulated GPU vendor: {_ROOT_FILE} in {directory} is not the root of {_SEED_FILE}")
        return vendor

    def save(self, directory: Path) -> None:
        """Write seed (readable by its owner only) and root certificate into `directory`."""
        directory.mkdir(parents=True, exist_ok=True)
        seed = directory / _SEED_FILE
        seed.touch(mode=0o600)
        seed.write_text(self._seed.hex(), encoding="ascii")
        (directory / _ROOT_FILE).write_bytes(self.root.public_bytes(Encoding.PEM))

    @property
    def root_der(self) -> bytes:
        """The root certificate, to be trusted through `NvGpuAnchors.simulated`."""
        return self.root.public_bytes(Encoding.DER)

    def anchors(self) -> NvGpuAnchors:
        """Anchors that trust this vendor and no other."""
        return NvGpuAnchors.simulated(self.root_der)

    def gpu(
        self,
        pdi: int,
        *,
        architecture: Architecture = Architecture.HOPPER,
        configuration: GpuConfiguration | None = None,
    ) -> SimulatedGpu:
        """The GPU with this PDI (64 bits); the same one every time."""
        return SimulatedGpu(
            vendor=self, pdi=pdi, architecture=architecture, configuration=configuration or GpuConfiguration()
        )

    def key(self, label: str) -> ec.EllipticCurvePrivateKey:
        """The P-384 key called `label`: extra random bits, FIPS 186-5, appendix A.2.1."""
        hkdf = HKDF(algorithm=hashes.SHA384(), length=56, salt=None, info=f"keystead simulator {label}".encode())
        return ec.derive_private_key(
            int.from_bytes(hkdf.derive(self._seed), "big") % (_P384_ORDER - 1) + 1, ec.SECP384R1()
        )

    def authority(
        self, architecture: Architecture
    ) -> tuple[x509.Certificate, x509.Certificate, ec.EllipticCurvePrivateKey]:
        """Provisioner ICA, Identity and the provisioner's key for one chip."""
        if architecture not in self._authorities:
            chip = architecture.value
            identity_key, ica_key = self.key(f"{chip} identity"), self.key(f"{chip} provisioner")
            identity_name = distinguished_name(("O", "Keystead simulator"), ("CN", f"SIMULATED {chip} Identity"))
            ica_name = distinguished_name(
                ("C", "US"), ("O", "Keystead simulator"), ("CN", f"SIMULATED {chip} Provisioner ICA 1")
            )
            identity = issue(
                Subject(identity_name, identity_key, serial=serial_number(self._seed, chip, "identity")),
                issuer=self.root.subject,
                issuer_key=self._root_key,
            )
            ica = issue(
                Subject(ica_name, ica_key, serial=serial_number(self._seed, chip, "provisioner")),
                issuer=identity_name,
                issuer_key=identity_key,
            )
            self._authorities[architecture] = (ica, identity, ica_key)
        return self._authorities[architecture]


@dataclass(frozen=True, kw_only=True)
class SimulatedGpu:
    """One software GPU.

    Attributes:
        vendor: whose root its chain ends in.
        pdi: 64-bit identity, certified in its BROM certificate.
        architecture: generation.
        configuration: what it runs.
    """

    vendor: SimulatedGpuVendor
    pdi: int
    architecture: Architecture
    configuration: GpuConfiguration = field(default_factory=GpuConfiguration)

    def __post_init__(self) -> None:
        if not 0 <= self.pdi < 1 << (8 * PDI_SIZE):
            raise ManifestError(f"simulated GPU: a PDI has 64 bits, {self.pdi:#x} does not fit")

    @property
    def identity(self) -> HardwareIdentity:
        """The identity that verification proves."""
        return HardwareIdentity(IDENTITY_KIND, f"41{self.pdi:016x}")

    @property
    def measurements(self) -> Mapping[int, bytes]:
        """Measurement by index: what reference values should pin."""
        return {
            index: bytes(COORDINATE_SIZE)
            if index in UNUSED_MEASUREMENTS
            else digest(self.architecture.value, self.configuration.driver_version, str(index))
            for index in range(1, MEASUREMENT_COUNT + 1)
        }

    @property
    def fwid(self) -> bytes:
        """SHA-384 of the simulated FMC firmware."""
        return digest(self.architecture.value, "FMC")

    def evidence(self, slot: str, nonce: bytes, *, defects: Collection[GpuDefect] = ()) -> Evidence:
        """Evidence over `nonce` (32 bytes) with the certificate chain, broken as `defects` say.

        Raises:
            ManifestError: `nonce` is not 32 bytes.
        """
        if len(nonce) != NONCE_SIZE:
            raise ManifestError(f"simulated GPU: a nonce has {NONCE_SIZE} bytes, not {len(nonce)}")
        data = self._sign(nonce, frozenset(defects))
        chain = self._chain_for(frozenset(defects))
        return Evidence(slot=slot, scheme=SCHEME, data=data, certificates=chain)

    def certificates(self, *, defects: Collection[GpuDefect] = ()) -> tuple[bytes, ...]:
        """The chain as DER, leaf first: FMC leaf, BROM, Provisioner ICA, Identity, root."""
        defects = frozenset(defects)
        if not defects & _CHAIN_DEFECTS:
            return self._sound_chain
        return self._make_chain(defects)

    @cached_property
    def _sound_chain(self) -> tuple[bytes, ...]:
        return self._make_chain(frozenset())

    @cached_property
    def _brom_key(self) -> ec.EllipticCurvePrivateKey:
        return self.vendor.key(f"BROM {self.pdi:016x}")

    @cached_property
    def _leaf_key(self) -> ec.EllipticCurvePrivateKey:
        return self.vendor.key(f"FMC {self.pdi:016x}")

    def _chain_for(self, defects: frozenset[GpuDefect]) -> tuple[bytes, ...]:
        """This GPU's chain, or that of somebody else."""
        if GpuDefect.OTHER_CHAIN in defects:
            return replace(self, pdi=self.pdi ^ 1).certificates()
        if GpuDefect.OTHER_ROOT in defects:
            return replace(self, vendor=SimulatedGpuVendor(hashlib.sha256(b"another vendor").digest())).certificates()
        return self.certificates(defects=defects)

    def _make_chain(self, defects: frozenset[GpuDefect]) -> tuple[bytes, ...]:
        """Issue BROM and leaf under the vendor's authorities."""
        ica, identity, ica_key = self.vendor.authority(self.architecture)
        chip = self.architecture.value
        serial = f"{'50' if GpuDefect.SWITCH_SERIAL in defects else '41'}{self.pdi:016X}"
        brom_name = distinguished_name(
            ("SERIAL", serial), ("C", "US"), ("O", "Keystead simulator"), ("CN", f"{chip} A01 GSP BROM")
        )
        brom = issue(Subject(brom_name, self._brom_key, serial=int(serial, 16)), issuer=ica.subject, issuer_key=ica_key)
        # NVIDIA's leaf has the key identifier, its top bit cleared, as serial number in both senses of the word.
        leaf_serial = int.from_bytes(key_identifier(self._leaf_key).digest, "big") & ((1 << 159) - 1)
        leaf_name = distinguished_name(
            ("SERIAL", f"{leaf_serial:040X}"),
            ("C", "US"),
            ("O", "Keystead simulator"),
            ("CN", f"{chip} A01 GSP FMC LF"),
        )
        leaf = issue(
            Subject(
                leaf_name,
                self._leaf_key,
                serial=leaf_serial,
                authority=False,
                not_after=_EXPIRED if GpuDefect.EXPIRED_LEAF in defects else NOT_AFTER,
                extensions=(self._device_info(), self._firmware_extension(defects)),
            ),
            issuer=brom_name,
            issuer_key=self._brom_key,
        )
        chain = (leaf, brom, ica, identity, self.vendor.root)
        return tuple(certificate.public_bytes(Encoding.DER) for certificate in chain)

    def _device_info(self) -> x509.ExtensionType:
        """SPDM device information: manufacturer, product, serial number."""
        text = f"NVIDIA:{self.architecture.value}:{self.pdi ^ 0x48B02D0000000000:016X}"
        return x509.SubjectAlternativeName([x509.OtherName(OID_SPDM_DEVICE_INFO, asn1.encode_der(text))])

    def _firmware_extension(self, defects: frozenset[GpuDefect]) -> x509.ExtensionType:
        """What the leaf says of its firmware, as this generation says it."""
        if self.architecture is Architecture.BLACKWELL:
            flags = ("not_configured", *(("debug",) if GpuDefect.DEVELOPER_MODE in defects else ()))
            der = dice_tcb_info_to_bytes(model=f"{self.architecture.value} A01 GSP", fwid=self.fwid, flags=flags)
            return x509.UnrecognizedExtension(OID_DICE_TCB_INFO, der)
        key = self._leaf_key if GpuDefect.WRONG_DEVICE_KEY in defects else self._brom_key
        return x509.UnrecognizedExtension(
            OID_COMPOSITE_DEVICE_ID, composite_device_id_to_bytes(device_key=point(key), fwid=self.fwid)
        )

    def _sign(self, nonce: bytes, defects: frozenset[GpuDefect]) -> bytes:
        """Request ‖ signed response."""
        if GpuDefect.WRONG_NONCE in defects:
            nonce = hashlib.sha256(nonce).digest()
        measurements = dict(self.measurements)
        if defects & {GpuDefect.OTHER_FIRMWARE, GpuDefect.DEVELOPER_MODE}:
            measurements[8] = digest("another firmware")
        one = GpuDefect.ONE_MEASUREMENT in defects
        blocks = [
            MeasurementBlock(index, MEASUREMENT_TYPE_MUTABLE_FIRMWARE, value)
            for index, value in sorted(measurements.items())
            if index == 1 or not one
        ]
        request = GetMeasurements(
            attributes=ATTRIBUTE_SIGNATURE_REQUESTED,
            operation=1 if one else OPERATION_ALL_MEASUREMENTS,
            nonce=nonce,
            slot_id=0,
        )
        opaque = opaque_to_bytes(self._opaque(defects))
        if GpuDefect.DUPLICATE_OPAQUE in defects:
            opaque += opaque_to_bytes({OpaqueType.NVDEC0_STATUS: bytes((NVDEC0_ENABLED,))})
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
        if GpuDefect.BAD_SIGNATURE in defects:
            signature[-1] ^= 1
        data = bytearray(unsigned + signature)
        if GpuDefect.ALTERED_MEASUREMENT in defects:
            data[data.index(measurements[8])] ^= 1
        return bytes(data) + (b"\0" if GpuDefect.TRAILING_BYTE in defects else b"")

    def _opaque(self, defects: frozenset[GpuDefect]) -> dict[int, bytes]:
        """Opaque fields in the order, and with the sizes, that genuine GPUs have them."""
        blackwell = self.architecture is Architecture.BLACKWELL
        mode = self.configuration.mode
        *version, oem = (int(part, 16) for part in self.configuration.vbios_version.split("."))
        fields: dict[int, bytes] = {
            OpaqueType.VBIOS_VERSION: bytes((*reversed(version), oem, 0, 0, 0)),
            OpaqueType.BOARD_ID: bytes.fromhex("6f060000" if blackwell else "3c050000"),
            OpaqueType.CHIP_SKU: (b"886" if blackwell else b"895").ljust(9, b"\0"),
            OpaqueType.CHIP_SKU_MOD: b"0".ljust(5, b"\0"),
            OpaqueType.PROJECT: b"G525\0" if blackwell else b"G520\0",
            OpaqueType.PROJECT_SKU: b"0220\0" if blackwell else b"0280\0",
            OpaqueType.PROJECT_SKU_MOD: b"0\0",
            OpaqueType.DRIVER_VERSION: self.configuration.driver_version.encode("ascii") + b"\0",
            OpaqueType.GPU_INFO: bytes.fromhex("a001000000000000" if blackwell else "8001000000000000"),
            OpaqueType.MSRSCNT: b"".join(
                (index not in UNUSED_MEASUREMENTS).to_bytes(4, "little") for index in range(1, MEASUREMENT_COUNT + 1)
            ),
            OpaqueType.CPRINFO: bytes.fromhex("00000400" if blackwell else "00800300"),
            OpaqueType.NVDEC0_STATUS: bytes((NVDEC0_DISABLED,)),
        }
        if GpuDefect.MISSING_FWID not in defects:
            wrong = GpuDefect.WRONG_FWID in defects
            fields[OpaqueType.FWID] = digest("another FMC") if wrong else self.fwid
        if blackwell:
            fields[OpaqueType.SYS_ENABLE_STATUS] = b"\x07\x07"
            fields[OpaqueType.CHIP_INFO] = b"GB100\0"
        elif mode is not Mode.UNSTATED:
            status = PROTECTED_PCIE_ON if mode is Mode.PROTECTED_PCIE else PROTECTED_PCIE_OFF
            fields[OpaqueType.PROTECTED_PCIE_STATUS] = bytes((status,))
        if GpuDefect.OTHER_CHIP in defects:
            fields[OpaqueType.CHIP_INFO] = b"AD102\0"
        if self.configuration.switch_pdis and GpuDefect.NO_SWITCHES not in defects:
            fields[OpaqueType.SWITCH_PDI] = self._switches()
        if mode is not Mode.UNSTATED:
            flag = next(value for value, name in FEATURE_FLAGS.items() if name is mode)
            fields[OpaqueType.OPAQUE_DATA_VERSION] = (1).to_bytes(2, "little")
            fields[OpaqueType.FEATURE_FLAG] = flag.to_bytes(2, "little")
        if GpuDefect.CONTRADICTORY_MODE in defects:
            fields[OpaqueType.PROTECTED_PCIE_STATUS] = bytes((PROTECTED_PCIE_ON,))
            fields[OpaqueType.FEATURE_FLAG] = (0).to_bytes(2, "little")
        return fields

    def _switches(self) -> bytes:
        """The PDI behind each link, least significant byte first, the given ones in turn."""
        pdis = self.configuration.switch_pdis
        return b"".join(pdis[link % len(pdis)][::-1] for link in range(SWITCH_LINKS))


_CHAIN_DEFECTS: Final = frozenset(
    {GpuDefect.EXPIRED_LEAF, GpuDefect.DEVELOPER_MODE, GpuDefect.SWITCH_SERIAL, GpuDefect.WRONG_DEVICE_KEY}
)
"""Defects of this GPU's own certificates."""
