"""What the bytes of an NVIDIA GPU's evidence say: SPDM measurements with NVIDIA's opaque data inside.

The opaque types and their encodings are NVIDIA's own. They are documented by NVIDIA's open attestation SDK (1.x, GPU
SPDM opaque data) and were confirmed here on published Hopper and Blackwell evidence. Types that are not named below are
kept as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum, unique
from typing import Final, Self

from attestation.errors import MalformedError
from attestation.spdm.abi import SignedMeasurements
from attestation.spdm.opaque import opaque_to_bytes, parse_opaque

FWID_SIZE: Final = 48
PDI_SIZE: Final = 8
SWITCH_LINKS: Final = 18
"""NVLink ports of a Hopper GPU; each may lead to a switch."""
PROTECTED_PCIE_ON: Final = 0xAA
PROTECTED_PCIE_OFF: Final = 0x55
NVDEC0_ENABLED: Final = 0xAA
NVDEC0_DISABLED: Final = 0x55
_STRUCTURE: Final = "NVIDIA GPU opaque data"
_VBIOS: Final = struct.Struct("<BBBBBxxx")


@unique
class OpaqueType(IntEnum):
    """Types of opaque fields in a GPU's evidence, by NVIDIA's names."""

    CERT_ISSUER_NAME = 1
    CERT_AUTHORITY_KEY_IDENTIFIER = 2
    DRIVER_VERSION = 3
    GPU_INFO = 4
    SKU = 5
    VBIOS_VERSION = 6
    MANUFACTURER_ID = 7
    TAMPER_DETECTION = 8
    SMC = 9
    VPR = 10
    NVDEC0_STATUS = 11
    MSRSCNT = 12
    CPRINFO = 13
    BOARD_ID = 14
    CHIP_SKU = 15
    CHIP_SKU_MOD = 16
    PROJECT = 17
    PROJECT_SKU = 18
    PROJECT_SKU_MOD = 19
    FWID = 20
    PROTECTED_PCIE_STATUS = 21
    SWITCH_PDI = 22
    SYS_ENABLE_STATUS = 33
    OPAQUE_DATA_VERSION = 34
    CHIP_INFO = 35
    FEATURE_FLAG = 36


@unique
class Mode(StrEnum):
    """The confidential-computing mode that the signed evidence states.

    Attributes:
        SINGLE_GPU: single-GPU passthrough (SPT).
        MULTI_GPU: multi-GPU passthrough with encrypted NVLink (MPT).
        PROTECTED_PCIE: protected PCIe: several GPUs and their switches in one trust boundary (PPCIE).
        UNSTATED: drivers before the feature flag and the protected-PCIe status existed.
    """

    SINGLE_GPU = "spt"
    MULTI_GPU = "mpt"
    PROTECTED_PCIE = "ppcie"
    UNSTATED = "unstated"


FEATURE_FLAGS: Final[Mapping[int, Mode]] = {0: Mode.SINGLE_GPU, 1: Mode.MULTI_GPU, 2: Mode.PROTECTED_PCIE}
"""Mode by value of FEATURE_FLAG."""


@dataclass(frozen=True, slots=True)
class GpuEvidence:
    """One GPU's evidence, parsed; nothing about it is verified.

    Attributes:
        measurements: the SPDM request and signed response.
        opaque: opaque fields by type, in the order of the wire; unknown types too.
        trailing: what one published collector appends after the signature: empty, or one byte where that was allowed.
    """

    measurements: SignedMeasurements
    opaque: Mapping[int, bytes]
    trailing: bytes = b""

    @classmethod
    def parse(cls, data: bytes, *, allow_trailing_byte: bool = False) -> Self:
        """Request ‖ response, to the last byte.

        Args:
            data: the evidence.
            allow_trailing_byte: drop one byte after the signature and keep it in `trailing`. Only the conformance
                profile does that, because one published collector appends one; production never does.

        Raises:
            MalformedError: not that structure, or bytes follow it.
            UnsupportedError: an SPDM version other than 1.1.
        """
        trailing = b""
        if allow_trailing_byte and SignedMeasurements.has_one_byte_after(data):
            data, trailing = data[:-1], data[-1:]
        measurements = SignedMeasurements.parse(data)
        return cls(measurements, parse_opaque(measurements.response.opaque), trailing)

    def to_bytes(self) -> bytes:
        """The evidence as it came.

        Raises:
            ValueError: `opaque` is not what the signed response holds.
        """
        if opaque_to_bytes(self.opaque) != self.measurements.response.opaque:
            raise ValueError("GPU evidence: opaque fields differ from the signed response")
        return self.measurements.to_bytes() + self.trailing

    @property
    def nonce(self) -> bytes:
        """The requester's nonce: bytes 4 to 36 of the evidence."""
        return self.measurements.request.nonce

    @property
    def fwid(self) -> bytes | None:
        """SHA-384 of the FMC firmware; None where the driver does not report it.

        Raises:
            MalformedError: not 48 bytes.
        """
        return self._sized(OpaqueType.FWID, FWID_SIZE)

    @property
    def driver_version(self) -> str | None:
        """For example ``570.124.06``; None where absent.

        Raises:
            MalformedError: no NUL-terminated text.
        """
        return self.text(OpaqueType.DRIVER_VERSION)

    @property
    def vbios_version(self) -> str | None:
        """For example ``96.00.CF.00.02``; None where absent.

        Two little-endian words: four version bytes, then the OEM's byte and three that are zero.

        Raises:
            MalformedError: not 8 bytes, or the last three are not zero.
        """
        data = self._sized(OpaqueType.VBIOS_VERSION, _VBIOS.size)
        if data is None:
            return None
        if any(data[5:]):
            raise MalformedError(_STRUCTURE, f"VBIOS_VERSION has its upper bytes set: {data.hex()}")
        d, c, b, a, oem = _VBIOS.unpack(data)
        return f"{a:02X}.{b:02X}.{c:02X}.{d:02X}.{oem:02X}"

    @property
    def chip(self) -> str | None:
        """Chip name such as ``GB100``; None where the driver does not report it.

        Raises:
            MalformedError: no NUL-terminated text.
        """
        return self.text(OpaqueType.CHIP_INFO)

    @property
    def vbios_rim_id(self) -> str | None:
        """Identifier of the VBIOS reference values: ``NV_GPU_VBIOS_<project>_<SKU>_<chip SKU>_<version>``.

        Raises:
            MalformedError: one of its parts is no text.
        """
        parts = [self.text(kind) for kind in (OpaqueType.PROJECT, OpaqueType.PROJECT_SKU, OpaqueType.CHIP_SKU)]
        version = self.vbios_version
        if version is None or None in parts:
            return None
        return "_".join(("NV_GPU_VBIOS", *(part for part in parts if part is not None), version.replace(".", "")))

    @property
    def feature_flag(self) -> int | None:
        """FEATURE_FLAG; None where the driver does not report it.

        Raises:
            MalformedError: not 2 bytes.
        """
        return self._uint(OpaqueType.FEATURE_FLAG, 2)

    @property
    def protected_pcie(self) -> int | None:
        """PROTECTED_PCIE_STATUS: 0xAA on, 0x55 off; None where the driver does not report it.

        Raises:
            MalformedError: not 1 byte.
        """
        return self._uint(OpaqueType.PROTECTED_PCIE_STATUS, 1)

    @property
    def nvdec0(self) -> int | None:
        """NVDEC0_STATUS: 0xAA enabled, 0x55 disabled; None where absent.

        Raises:
            MalformedError: not 1 byte.
        """
        return self._uint(OpaqueType.NVDEC0_STATUS, 1)

    @property
    def opaque_version(self) -> int | None:
        """OPAQUE_DATA_VERSION; None where the driver does not report it.

        Raises:
            MalformedError: not 2 bytes.
        """
        return self._uint(OpaqueType.OPAQUE_DATA_VERSION, 2)

    @property
    def measurement_counts(self) -> tuple[int, ...] | None:
        """MSRSCNT: how often each measurement was extended, by index; None where absent.

        Raises:
            MalformedError: not a whole number of 32-bit words.
        """
        data = self.opaque.get(OpaqueType.MSRSCNT)
        if data is None:
            return None
        if len(data) % 4:
            raise MalformedError(_STRUCTURE, f"MSRSCNT has {len(data)} bytes, expected a multiple of 4")
        return struct.unpack(f"<{len(data) // 4}I", data)

    @property
    def switch_pdis(self) -> tuple[bytes, ...] | None:
        """The PDI of the switch behind each NVLink port, most significant byte first; None where absent.

        The wire has them least significant byte first. In this order they equal the PDI in the switches' certificates.

        Raises:
            MalformedError: not 18 PDIs of 8 bytes.
        """
        data = self._sized(OpaqueType.SWITCH_PDI, SWITCH_LINKS * PDI_SIZE)
        if data is None:
            return None
        return tuple(data[offset : offset + PDI_SIZE][::-1] for offset in range(0, len(data), PDI_SIZE))

    @property
    def mode(self) -> Mode | None:
        """The mode that feature flag and protected-PCIe status state together; None where they contradict or are new.

        Raises:
            MalformedError: a field of another size.
        """
        status = self.protected_pcie
        if status not in {None, PROTECTED_PCIE_ON, PROTECTED_PCIE_OFF}:
            return None
        flag = self.feature_flag
        if flag is None:
            if status is None:
                return Mode.UNSTATED
            return Mode.PROTECTED_PCIE if status == PROTECTED_PCIE_ON else Mode.SINGLE_GPU
        mode = FEATURE_FLAGS.get(flag)
        if status is not None and (status == PROTECTED_PCIE_ON) != (mode is Mode.PROTECTED_PCIE):
            return None
        return mode

    def _sized(self, kind: OpaqueType, size: int) -> bytes | None:
        """The field `kind`, which must have `size` bytes where it is present."""
        data = self.opaque.get(kind)
        if data is not None and len(data) != size:
            raise MalformedError(_STRUCTURE, f"{kind.name} has {len(data)} bytes, expected {size}")
        return data

    def _uint(self, kind: OpaqueType, size: int) -> int | None:
        """The field `kind` as an unsigned integer of `size` bytes."""
        data = self._sized(kind, size)
        return None if data is None else int.from_bytes(data, "little")

    def text(self, kind: OpaqueType) -> str | None:
        """The field `kind` as text; None where absent.

        Raises:
            MalformedError: not printable ASCII followed by at least one NUL and nothing but NULs.
        """
        data = self.opaque.get(kind)
        if data is None:
            return None
        text = data.rstrip(b"\0")
        if len(text) == len(data) or not text.isascii() or not text.decode("ascii", "replace").isprintable():
            raise MalformedError(_STRUCTURE, f"{kind.name} is no NUL-terminated text: {data.hex()}")
        return text.decode("ascii")
