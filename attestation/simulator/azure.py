"""A software Azure confidential virtual machine: a simulated SEV-SNP chip under a paravisor with a vTPM.

The paravisor asks the chip for a report over its runtime data, and hands the two out in an HCL report. What the guest
writes to NV index 0x01400002 stands in the runtime data from then on. Any defect of the chip can be asked for, and
those of the envelope (`HclDefect`).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from attestation.simulator.snp import SimulatedSnp, SnpDefect
from attestation.snp.azure_hcl import HASH_SHA256, USER_DATA_SIZE, HclReport
from attestation.snp.azure_verify import SCHEME
from attestation.types import Evidence, Json

NV_INDEX_SIZE: Final = 2600
"""Bytes of the vTPM's NV index that holds the HCL report."""

_MODULUS_SIZE: Final = 256


class HclDefect(StrEnum):
    """What can be wrong with a simulated HCL report, by name."""

    BOOT_REPORT = "boot-report"
    NO_USER_DATA = "no-user-data"
    OTHER_USER_DATA = "other-user-data"
    ALTERED_RUNTIME_DATA = "altered-runtime-data"
    FOREIGN_REPORT = "foreign-report"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedAzureVm:
    """One confidential virtual machine of Azure.

    Attributes:
        chip: the SEV-SNP platform it runs on.
        name: what its identifier and its vTPM's key are derived from.
        hash_type: of the runtime data: 1 SHA-256, 2 SHA-384, 3 SHA-512.
    """

    chip: SimulatedSnp
    name: str = "vm-1"
    hash_type: int = HASH_SHA256

    def runtime_data(self, user_data: bytes | None, *, members: Mapping[str, Json] | None = None) -> bytes:
        """The paravisor's JSON.

        Args:
            user_data: what the guest wrote, 64 bytes; None leaves the member out.
            members: replaces members of the object, or adds some.
        """
        digests = (hashlib.sha256(f"{self.name} {index}".encode()).digest() for index in range(_MODULUS_SIZE // 32))
        modulus = base64.urlsafe_b64encode(b"".join(digests)).rstrip(b"=").decode("ascii")
        key = {"kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": modulus}
        document: dict[str, Json] = {
            "keys": [key, {**key, "kid": "HCLEkPub", "key_ops": ["encrypt"]}],
            "vm-configuration": {
                "console-enabled": True,
                "secure-boot": True,
                "tpm-enabled": True,
                "vmUniqueId": hashlib.sha256(self.name.encode()).hexdigest()[:32].upper(),
            },
        }
        if user_data is not None:
            document["user-data"] = user_data.hex().upper()
        return json.dumps({**document, **(members or {})}, separators=(",", ":")).encode("utf-8")

    def evidence(
        self,
        user_data: bytes,
        *,
        slot: str = "cpu0",
        defects: frozenset[SnpDefect | HclDefect] = frozenset(),
        members: Mapping[str, Json] | None = None,
    ) -> Evidence:
        """Evidence for `user_data` (64 bytes), with the defects that are asked for."""
        carried: bytes | None = user_data
        if HclDefect.BOOT_REPORT in defects:
            carried = bytes(USER_DATA_SIZE)
        if HclDefect.NO_USER_DATA in defects:
            carried = None
        if HclDefect.OTHER_USER_DATA in defects:
            carried = bytes((user_data[0] ^ 1,)) + user_data[1:]
        runtime = self.runtime_data(carried, members=members)
        hcl = HclReport(report=b"", runtime_data=runtime, hash_type=self.hash_type)
        report_data = bytes(64) if HclDefect.FOREIGN_REPORT in defects else hcl.expected_report_data
        chip_defects = frozenset(each for each in defects if isinstance(each, SnpDefect))
        signed = self.chip.evidence(report_data, slot=slot, defects=chip_defects)
        if HclDefect.ALTERED_RUNTIME_DATA in defects:
            # What an attacker can do after the fact: the session's value into the report of the boot.
            hcl = replace(hcl, runtime_data=self.runtime_data(user_data, members={"altered": True}))
        data = replace(hcl, report=signed.data).to_bytes(padded_to=NV_INDEX_SIZE)
        return replace(signed, scheme=SCHEME, data=data)
