"""Azure's HCL report: an SNP report that a paravisor asked for at boot, with the runtime data that it binds.

Layout as published with Azure's guest attestation samples: a 32-byte header (``HCLA``, version, size), the report, a
20-byte description of the runtime data, and the data, JSON that names the vTPM's keys. REPORT_DATA begins with their
hash. The report dates from boot and can hold no nonce of ours: it binds the vTPM's keys and no session.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final, Self

from attestation.errors import MalformedError
from attestation.findings import Check
from attestation.snp.abi import REPORT_DATA_SIZE, REPORT_SIZE
from attestation.wire import Reader

HCL_RUNTIME_DATA = Check(
    "SNP_HCL_RUNTIME_DATA",
    "the HCL report carries this very report, and REPORT_DATA is the hash of its runtime data",
    "HCL report",
    "Azure guest attestation samples, HCL report",
    "Read the HCL report from the vTPM again.",
)

_STRUCTURE: Final = "HCL report"
_SIGNATURE: Final = b"HCLA"
_REPORT_TYPE_SNP: Final = 2
_HASHES: Final = {1: hashlib.sha256, 2: hashlib.sha384, 3: hashlib.sha512}
_HEADER: Final = struct.Struct("<4sIIII12s")
_RUNTIME: Final = struct.Struct("<IIIII")
MAX_RUNTIME_SIZE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class HclReport:
    """An HCL report.

    Attributes:
        report: the SNP report (1,184 bytes), unparsed.
        runtime_data: the JSON that it binds, byte for byte.
        hash_type: 1 SHA-256, 2 SHA-384, 3 SHA-512.
    """

    report: bytes
    runtime_data: bytes
    hash_type: int

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse an HCL report; zero padding may follow it, as the vTPM's NV index has a fixed size.

        Raises:
            MalformedError: another signature, report type or hash, sizes that contradict, or other trailing bytes.
        """
        reader = Reader(data, _STRUCTURE)
        signature, _version, size, _request, _status, _reserved = _HEADER.unpack(reader.take(_HEADER.size, "header"))
        if signature != _SIGNATURE:
            raise MalformedError(_STRUCTURE, f"begins with {signature.hex()}, expected {_SIGNATURE.hex()}", offset=0)
        report = reader.take(REPORT_SIZE, "SNP report")
        at = reader.offset
        total, _version, kind, hash_type, variable = _RUNTIME.unpack(reader.take(_RUNTIME.size, "runtime data header"))
        if kind != _REPORT_TYPE_SNP or hash_type not in _HASHES:
            raise MalformedError(_STRUCTURE, f"report type {kind} with hash type {hash_type} is not SNP's", offset=at)
        if variable > MAX_RUNTIME_SIZE or total != _RUNTIME.size + variable:
            raise MalformedError(_STRUCTURE, f"runtime data of {variable} bytes in {total}", offset=at)
        runtime_data = reader.take(variable, "runtime data")
        if size != reader.offset:
            raise MalformedError(_STRUCTURE, f"states {size} bytes, has {reader.offset}", offset=8)
        reader.zero(reader.remaining, "padding")
        return cls(report=report, runtime_data=runtime_data, hash_type=hash_type)

    @property
    def expected_report_data(self) -> bytes:
        """The 64 bytes that REPORT_DATA must be for the runtime data to be bound."""
        return _HASHES[self.hash_type](self.runtime_data).digest().ljust(REPORT_DATA_SIZE, b"\x00")
