"""What the bytes of an NVSwitch's evidence say: SPDM measurements with NVIDIA's opaque data inside.

The layout is that of GPUs; the meaning of the opaque types is the switch's own. It is documented by NVIDIA's open
attestation SDK (1.x, switch SPDM opaque data) and was confirmed here on published LS10 evidence: its own PDI and those
of the GPUs stand most significant byte first, as in the certificates, where GPUs have theirs reversed.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Final, Self

from attestation.errors import MalformedError
from attestation.spdm.abi import SignedMeasurements
from attestation.spdm.opaque import opaque_to_bytes, parse_opaque

FWID_SIZE: Final = 48
PDI_SIZE: Final = 8
GPU_COUNT: Final = 8
"""GPUs that a switch lists; unused places hold ones."""
PORT_COUNT: Final = 64
NO_GPU: Final = 0xFF
"""In the port map: nothing behind this port."""
_NO_PDI: Final = bytes([0xFF]) * PDI_SIZE
_STRUCTURE: Final = "NVSwitch opaque data"


@unique
class OpaqueType(IntEnum):
    """Types of opaque fields in a switch's evidence, by NVIDIA's names."""

    VBIOS_VERSION = 6
    MSRSCNT = 12
    FWID = 20
    SWITCH_PDI = 22
    DISABLED_PORTS = 23
    POSITION_ID = 24
    LOCK_STATUS = 25
    GPU_LINK_CONN = 26


@dataclass(frozen=True, slots=True)
class SwitchEvidence:
    """One switch's evidence, parsed; nothing about it is verified.

    Attributes:
        measurements: the SPDM request and signed response.
        opaque: opaque fields by type, in the order of the wire; unknown types too.
        trailing: what a collector appends after the signature: empty, or one byte where that was allowed.
    """

    measurements: SignedMeasurements
    opaque: Mapping[int, bytes]
    trailing: bytes = b""

    @classmethod
    def parse(cls, data: bytes, *, allow_trailing_byte: bool = False) -> Self:
        """Request ‖ response, to the last byte.

        Args:
            data: the evidence.
            allow_trailing_byte: drop one byte after the signature and keep it in `trailing`; for conformance only.

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
            raise ValueError("NVSwitch evidence: opaque fields differ from the signed response")
        return self.measurements.to_bytes() + self.trailing

    @property
    def nonce(self) -> bytes:
        """The requester's nonce: bytes 4 to 36 of the evidence."""
        return self.measurements.request.nonce

    @property
    def bios_version(self) -> str | None:
        """For example ``96.10.55.00.01``; None where absent.

        Raises:
            MalformedError: not printable ASCII, with or without NULs at its end.
        """
        data = self.opaque.get(OpaqueType.VBIOS_VERSION)
        if data is None:
            return None
        text = data.rstrip(b"\0")
        if not text or not text.isascii() or not text.decode("ascii").isprintable():
            raise MalformedError(_STRUCTURE, f"VBIOS_VERSION is no text: {data.hex():.80}")
        return text.decode("ascii")

    @property
    def fwid(self) -> bytes | None:
        """SHA-384 of the FMC firmware; None where the switch does not report it, as no LS10 seen does.

        Raises:
            MalformedError: not 48 bytes.
        """
        return self._sized(OpaqueType.FWID, FWID_SIZE)

    @property
    def pdi(self) -> bytes | None:
        """The switch's own PDI, most significant byte first; None where absent.

        Raises:
            MalformedError: not 8 bytes.
        """
        return self._sized(OpaqueType.SWITCH_PDI, PDI_SIZE)

    @property
    def disabled_ports(self) -> int | None:
        """DISABLED_PORTS as it stands (little-endian); None where absent.

        Raises:
            MalformedError: not 2 bytes.
        """
        return self._uint(OpaqueType.DISABLED_PORTS)

    @property
    def position(self) -> int | None:
        """The switch's place on its board, 0 to 3 in published evidence; None where absent.

        Raises:
            MalformedError: not 2 bytes.
        """
        return self._uint(OpaqueType.POSITION_ID)

    @property
    def lock_status(self) -> int | None:
        """LOCK_STATUS: 1 where the fabric's configuration is locked; None where absent.

        Raises:
            MalformedError: not 2 bytes.
        """
        return self._uint(OpaqueType.LOCK_STATUS)

    @property
    def gpu_pdis(self) -> tuple[bytes, ...] | None:
        """The distinct PDIs of the GPUs behind the ports, most significant byte first, sorted; None where absent.

        Raises:
            MalformedError: not 8 PDIs and 64 ports, or a port that leads to no listed place.
        """
        link = self._links()
        if link is None:
            return None
        places, _ = link
        return tuple(sorted({pdi for pdi in places if pdi != _NO_PDI}))

    @property
    def gpu_pdi_by_port(self) -> tuple[bytes | None, ...] | None:
        """The PDI of the GPU behind each of the 64 ports, None where there is none; None where absent.

        Raises:
            MalformedError: see `gpu_pdis`.
        """
        link = self._links()
        if link is None:
            return None
        places, ports = link
        return tuple(None if place == NO_GPU or places[place] == _NO_PDI else places[place] for place in ports)

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

    def _links(self) -> tuple[tuple[bytes, ...], bytes] | None:
        """The 8 PDIs, and the place among them by port."""
        data = self._sized(OpaqueType.GPU_LINK_CONN, GPU_COUNT * PDI_SIZE + PORT_COUNT)
        if data is None:
            return None
        size = GPU_COUNT * PDI_SIZE
        ports = data[size:]
        bad = [place for place in ports if place != NO_GPU and place >= GPU_COUNT]
        if bad:
            raise MalformedError(_STRUCTURE, f"GPU_LINK_CONN leads to place {bad[0]} of {GPU_COUNT}")
        return tuple(data[offset : offset + PDI_SIZE] for offset in range(0, size, PDI_SIZE)), ports

    def _sized(self, kind: OpaqueType, size: int) -> bytes | None:
        """The field `kind`, which must have `size` bytes where it is present."""
        data = self.opaque.get(kind)
        if data is not None and len(data) != size:
            raise MalformedError(_STRUCTURE, f"{kind.name} has {len(data)} bytes, expected {size}")
        return data

    def _uint(self, kind: OpaqueType) -> int | None:
        """The field `kind` as an unsigned integer of 2 bytes."""
        data = self._sized(kind, 2)
        return None if data is None else int.from_bytes(data, "little")
